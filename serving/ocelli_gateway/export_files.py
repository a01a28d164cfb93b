"""Files for download: of a served revision the exports, whose parts are sent in order, and the bill of materials; the report.

They are read from the store while they are sent. This module must not know what they contain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from ocelli_gateway.refusals import NotFoundError, UnavailableError
from ocelli_gateway.stored_files import StoredExport
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore

CHUNK_BYTES = 128 * 1024
"""Each download has a few of these in memory, however slowly its client reads."""


@dataclass(frozen=True, kw_only=True)
class ExportFile:
    """A whole file."""

    size_bytes: int
    chunks: AsyncIterator[bytes]


async def open_export(objects: ObjectStore, export: StoredExport) -> ExportFile:
    """The file of an export. Presence and size of every part are checked before the first byte is sent.

    Raises:
        UnavailableError: a part is missing or cut off.
        StoreUnavailableError: the store does not answer.
    """
    for part, key in zip(export.parts, export.keys, strict=True):
        try:
            size_bytes = await objects.size_of(key)
        except ObjectNotFoundError as error:
            raise UnavailableError("The object store has lost a part of this model; retrain the classifier.") from error
        if size_bytes != part.size_bytes:
            raise UnavailableError("A part of this model is damaged in the object store; retrain the classifier.")
    size_bytes = sum(part.size_bytes for part in export.parts) + len(export.description)
    return ExportFile(size_bytes=size_bytes, chunks=_read(objects, export))


async def open_bill_of_materials(objects: ObjectStore, classifier_id: str, key: str) -> ExportFile:
    """What a revision was made from.

    Raises:
        NotFoundError: an earlier release trained the revision.
        StoreUnavailableError: the store does not answer.
    """
    try:
        size_bytes = await objects.size_of(key)
    except ObjectNotFoundError as error:
        raise NotFoundError(
            f"The model of the classifier {classifier_id} has no bill of materials, because an earlier release trained it; "
            "retrain the classifier."
        ) from error
    return ExportFile(size_bytes=size_bytes, chunks=objects.open_read(key, CHUNK_BYTES))


async def open_report(objects: ObjectStore, classifier_id: str, keys: Sequence[str]) -> ExportFile:
    """The first report that is stored at one of these keys.

    Raises:
        NotFoundError: there is none.
        StoreUnavailableError: the store does not answer.
    """
    for key in keys:
        try:
            size_bytes = await objects.size_of(key)
        except ObjectNotFoundError:
            continue
        return ExportFile(size_bytes=size_bytes, chunks=objects.open_read(key, CHUNK_BYTES))
    raise NotFoundError(
        f"The classifier {classifier_id} has no report: its images were not checked, and no training has succeeded."
    )


async def _read(objects: ObjectStore, export: StoredExport) -> AsyncIterator[bytes]:
    for key in export.keys:
        async for chunk in objects.open_read(key, CHUNK_BYTES):
            yield chunk
    if export.description:
        yield export.description
