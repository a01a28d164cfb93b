"""Example sets of REST requests: which parts of a form they are, and whether their zips can be used for training.

The trainer decodes the images; here only signatures and completeness of the entries are checked. It must not know where the
zips are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.names import class_name_fault
from ocelli_gateway.refusals import GatewayError, InputError, LimitExceededError, ParameterError
from ocelli_gateway.uploads import Form, SpooledFile
from ocelli_gateway.zip_inspection import ZipInspector
from ocelli_storage.archive_inspection import ZipReport
from ocelli_storage.archives import ArchiveFault, EntryFault, SkippedEntry, shown_name

POSITIVE_SUFFIX = "_positive_examples"
NEGATIVE_PART = "negative_examples"
LEAST_IMAGES = 10
"""Of a class, and in v3 of each zip: there a zip is a class."""
LEAST_UPLOAD_IMAGES = 1
"""Of a zip that is sent by itself: the images of a class can be in several zips, which the trainer counts together."""
_FILE_NAME_BYTES = 4096
_ENTRY_FAULTS = {
    EntryFault.NOT_AN_IMAGE: "is not a JPEG or PNG image",
    EntryFault.TOO_LARGE: "is larger than 10 MB",
    EntryFault.DAMAGED: "is damaged",
    EntryFault.SYMBOLIC_LINK: "is a symbolic link",
}
_LIMIT_FAULTS = (ArchiveFault.TOO_MANY_ENTRIES, ArchiveFault.TOO_MANY_IMAGES)


@dataclass(frozen=True, kw_only=True)
class ExampleSet:
    """One zip of examples."""

    class_name: str | None
    """None: negative examples."""
    file: SpooledFile


@dataclass(frozen=True, kw_only=True)
class NamedUpload:
    """A zip of examples that is stored, or will be."""

    class_name: str | None
    """None: negative examples."""
    sha256: str


def name_uploads(sets: Iterable[ExampleSet]) -> tuple[NamedUpload, ...]:
    """The uploads that the example sets of a form become."""
    return tuple(NamedUpload(class_name=item.class_name, sha256=item.file.sha256) for item in sets)


def parse_example_sets(form: Form) -> tuple[ExampleSet, ...]:
    """The example sets of a form, in their order.

    Raises:
        ParameterError: the name of a class is not allowed, or a class is in the form twice.
    """
    sets: list[ExampleSet] = []
    seen: set[str] = set()
    for file in form.files:
        if file.part_name == NEGATIVE_PART:
            sets.append(ExampleSet(class_name=None, file=file))
            continue
        class_name = file.part_name.removesuffix(POSITIVE_SUFFIX)
        fault = class_name_fault(class_name)
        if fault is not None:
            raise ParameterError(f'The class name of the part "{shown_name(file.part_name)}" {fault}.')
        if class_name in seen:
            raise ParameterError(
                f'The class "{shown_name(class_name)}" is in the request twice; put all its images into one zip.'
            )
        seen.add(class_name)
        sets.append(ExampleSet(class_name=class_name, file=file))
    return tuple(sets)


async def check_archives(
    sets: Sequence[ExampleSet], tenant: str, zips: ZipInspector, *, left: asyncio.Event | None = None
) -> None:
    """Check every zip. `left` is set when the client has left.

    Raises:
        InputError, LimitExceededError: a zip cannot be used, or the client has left.
        UnavailableError: too many zips are being checked.
    """
    reports = await zips.inspect([example_set.file.path for example_set in sets], tenant, left=left)
    for example_set, report in zip(sets, reports, strict=True):
        check_archive(example_set.file, report, least_images=LEAST_IMAGES)


def check_archive(file: SpooledFile, report: ZipReport, *, least_images: int) -> None:
    """Raises InputError or LimitExceededError where the zip cannot be used, or has fewer usable images."""
    part = shown_name(file.part_name)
    if report.refusal is not None:
        fault = report.refusal.fault
        kind: type[GatewayError] = LimitExceededError if fault in _LIMIT_FAULTS else InputError
        hint = _describe_text(file.path) if fault is ArchiveFault.NOT_A_ZIP else ""
        raise kind(f'The example set "{part}" cannot be used: {report.refusal.message}{hint}.')
    if report.usable < least_images:
        missing = least_images - report.usable
        raise InputError(
            f'The example set "{part}" has {report.usable} usable images and needs at least {least_images}; '
            f"add {missing} or more JPEG or PNG images.{_describe_skipped(report)}"
        )


def _describe_text(path: Path) -> str:
    """A hint for the content that curl sends if the @ is missing: the name of the file."""
    data = path.read_bytes() if path.stat().st_size <= _FILE_NAME_BYTES else b""
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        return ""
    if not text.isprintable() or not text.lower().endswith(".zip"):
        return ""
    return f' (it is the text "{shown_name(text)}"; with curl, write @ before the file\'s name)'


def _describe_skipped(report: ZipReport) -> str:
    if not report.skipped:
        return ""
    shown = [f"{shown_name(entry.name)} {describe_fault(entry)}" for entry in report.skipped]
    more = report.skipped_count - len(shown)
    return f" Skipped: {', '.join(shown)}{f', and {more} more' if more else ''}."


def describe_fault(entry: SkippedEntry) -> str:
    """Why an entry of a zip is skipped, as the end of a sentence."""
    if entry.fault is EntryFault.UNSUPPORTED_COMPRESSION:
        return f"is compressed by {entry.method} (deflate and bzip2 are read)"
    return _ENTRY_FAULTS[entry.fault]
