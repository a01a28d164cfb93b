"""Creating a classifier, and adding examples to one: zips go up one at a time, by their digests, if they are not stored yet.

A procedure here may be started again at any time with the same examples. Nothing is stored twice, and nothing is lost but the
zip that was in flight.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from ocelli_client import api
from ocelli_client.calls import Call, Content, Pause, Procedure
from ocelli_client.cards import Details
from ocelli_client.errors import RefusedError
from ocelli_client.examples import Examples
from ocelli_client.folders import read_class
from ocelli_client.retries import INTERRUPTIONS, PATIENCE_SECONDS, Patience
from ocelli_client.zips import ExampleZip, build_zips

PIECE_BYTES = 256 * 1024
ClassPaths = Mapping[str, Path | Sequence[Path]]
"""The folders, images or zips of each class."""
T = TypeVar("T")


class TransferState(StrEnum):
    """What happens to a zip, or to the connection."""

    SENDING = "sending"
    SENT = "sent"
    STORED = "stored"
    """It was stored already."""
    INTERRUPTED = "interrupted"
    """The connection is lost or the gateway is busy; the upload resumes after a pause."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How far an upload is. Bytes are those of the images."""

    state: TransferState
    title: str
    """The class, or the negative examples."""
    done_bytes: int
    total_bytes: int
    message: str = ""
    """Of an interruption."""
    pause_seconds: float = 0.0
    """Of an interruption: how long until the next attempt."""


OnTransfer = Callable[[Transfer], None]


@dataclass(frozen=True, kw_only=True)
class Creation:
    """How a classifier is created."""

    classifier_id: str | None = None
    """That of an unfinished creation, which is resumed."""
    suspend: bool = False
    """Only check the images, and train nothing."""
    on_id: Callable[[str], str] | None = None
    """Called with a new id before anything is sent, so that it can be remembered. Returns the id that is used."""
    on_transfer: OnTransfer | None = None
    patience_seconds: float = PATIENCE_SECONDS


@dataclass(frozen=True, kw_only=True)
class _StoredSet:
    """An example set as the gateway takes it."""

    class_name: str | None
    uploads: tuple[str, ...]


def build_given_examples(given: Examples | ClassPaths) -> Examples:
    """The examples of a call, which may name paths."""
    if isinstance(given, Examples):
        return given
    sets = (read_class(name, [paths] if isinstance(paths, Path) else list(paths)) for name, paths in given.items())
    return Examples(tuple(sets))


def create(name: str, examples: Examples, options: Creation) -> Procedure[Details]:
    """Draw an id, store all zips that are not stored yet, and create the classifier from them."""
    patience = Patience(seconds=options.patience_seconds)
    on_transfer = options.on_transfer or _ignore
    classifier_id = options.classifier_id
    if classifier_id is None:
        classifier_id = yield from _persist(api.draw_classifier_id(name), on_transfer, patience)
        if options.on_id is not None:
            classifier_id = options.on_id(classifier_id)
    definition = {"classifier_id": classifier_id, "name": name, "suspend": options.suspend}
    try:
        return (yield from _create(definition, examples, on_transfer, patience))
    except RefusedError as error:
        # An upload of hours: its first zips were swept before the last one was stored.
        if "missing" not in error.body:
            raise
        return (yield from _create(definition, examples, on_transfer, patience))


def _create(
    definition: Mapping[str, Any], examples: Examples, on_transfer: OnTransfer, patience: Patience
) -> Procedure[Details]:
    sets = yield from _store(definition["classifier_id"], examples, on_transfer, patience)
    call = api.create_classifier({**definition, **_describe(sets)})
    return (yield from _persist(call, on_transfer, patience))


def add(classifier_id: str, examples: Examples, on_transfer: OnTransfer | None = None) -> Procedure[Details]:
    """Store all zips that are not stored yet, and add them to the classifier, which retrains.

    The gateway changes nothing where the examples are part of the classifier already, so a lost answer does no harm.
    """
    patience = Patience()
    sets = yield from _store(classifier_id, examples, on_transfer or _ignore, patience)
    call = api.change_classifier(classifier_id, "examples", _describe(sets))
    return (yield from _persist(call, on_transfer or _ignore, patience))


def _describe(sets: Sequence[_StoredSet]) -> dict[str, Any]:
    return {
        "classes": [{"class": one.class_name, "uploads": list(one.uploads)} for one in sets if one.class_name is not None],
        "negative_examples": [upload for one in sets if one.class_name is None for upload in one.uploads],
    }


@dataclass(kw_only=True)
class _Meter:
    """Counts what is sent, and reports it."""

    on_transfer: OnTransfer
    total_bytes: int
    done_bytes: int = 0
    title: str = ""

    def report(self, state: TransferState, bytes_in_flight: int = 0) -> None:
        done = min(self.done_bytes + bytes_in_flight, self.total_bytes)
        self.on_transfer(Transfer(state=state, title=self.title, done_bytes=done, total_bytes=self.total_bytes))

    def report_interruption(self, interruption: Transfer) -> None:
        self.on_transfer(replace(interruption, title=self.title, done_bytes=self.done_bytes, total_bytes=self.total_bytes))


def _store(
    classifier_id: str, examples: Examples, on_transfer: OnTransfer, patience: Patience
) -> Procedure[tuple[_StoredSet, ...]]:
    total = sum(image.size_bytes for one in examples.sets for image in one.images)
    meter = _Meter(on_transfer=on_transfer, total_bytes=total)
    stored = yield from _persist(api.list_uploads(classifier_id), on_transfer, patience)
    sets = []
    for one in examples.sets:
        meter.title = one.title
        uploads = []
        with tempfile.TemporaryDirectory(prefix="ocelli-") as folder:
            for archive in build_zips(one.images, Path(folder)):
                uploads.append(archive.sha256)
                if archive.sha256 in stored:
                    meter.done_bytes += sum(image.size_bytes for image in archive.images)
                    meter.report(TransferState.STORED)
                else:
                    yield from _store_zip(classifier_id, archive, meter, patience)
                archive.path.unlink()
        sets.append(_StoredSet(class_name=one.class_name, uploads=tuple(uploads)))
    return tuple(sets)


def _store_zip(classifier_id: str, archive: ExampleZip, meter: _Meter, patience: Patience) -> Procedure[None]:
    def read() -> Iterator[bytes]:
        sent = 0
        with archive.path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
                sent += len(piece)
                meter.report(TransferState.SENDING, sent)

    content = Content(read=read, size_bytes=archive.size_bytes, media_type="application/zip")
    call = api.store_upload(classifier_id, archive.sha256, content)

    yield from _persist(call, meter.report_interruption, patience)
    meter.done_bytes += sum(image.size_bytes for image in archive.images)
    meter.report(TransferState.SENT)


def _persist(call: Call[T], on_transfer: OnTransfer, patience: Patience) -> Procedure[T]:
    """The answer of a call that may be sent again."""
    while True:
        try:
            answer = yield from call
        except INTERRUPTIONS as error:
            pause = patience.find_pause(error)
            if pause is None:
                raise
            message = f"{error}; trying again in {pause:g} s"
            state = TransferState.INTERRUPTED
            on_transfer(Transfer(state=state, title="", done_bytes=0, total_bytes=0, message=message, pause_seconds=pause))
            yield Pause(seconds=pause)
        else:
            patience.report_success()
            return answer


def _ignore(transfer: Transfer) -> None:
    """For callers that do not follow an upload."""
