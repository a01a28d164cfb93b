"""The dataset: which class each image belongs to, and whether there are enough examples. Pure: no I/O, no pixels.

Files of the same content are one image, identified by its SHA-256. An image in several sets belongs to the set of the later
round; within a round to a class rather than to the negatives, because "this is a husky" says more than "this is none of them";
and among classes to the later one. `spec.corrections` win over all of these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ocelli_api.classifier import ClassifierSpec, Correction, Source
from ocelli_api.prediction import ImageFault
from ocelli_storage.archives import EntryFault, shown_name
from ocelli_training.sources import shown_source

EXAMPLES_MINIMUM = 10
"""Usable examples that each class and the negatives must have, all their sources together."""
DISTINCT_MINIMUM = 2
"""Different images that each of them must have: an image cannot be used for training and for evaluation."""
SKIPPED_SHOWN = 5
SUBJECTS_SHOWN = 3
FILES_REPORTED = 1000

_PHRASES: Mapping[str, str] = {
    EntryFault.NOT_AN_IMAGE: "not a JPEG or PNG image",
    EntryFault.TOO_LARGE: "more than 10 MB",
    EntryFault.DAMAGED: "damaged",
    EntryFault.UNSUPPORTED_COMPRESSION: "compressed by a method other than deflate and bzip2",
    EntryFault.SYMBOLIC_LINK: "a symbolic link",
    ImageFault.CORRUPT: "cannot be decoded",
    ImageFault.TOO_SMALL: "a side under 10 pixels",
    ImageFault.TOO_MANY_PIXELS: "more than 100 megapixels",
}


class DatasetError(Exception):
    """There are not enough examples for a training. The message names the Classifier and the first skipped files."""


@dataclass(frozen=True, kw_only=True)
class ExampleSet:
    """The sources of one class, or of the negatives."""

    class_name: str | None
    """None: the negatives."""
    sources: tuple[Source, ...]
    """Without erased ones."""
    partly_erased: bool = False
    """Some of its sources were erased: it needs fewer examples."""
    is_test: bool = False
    """It belongs to the Classifier's own test set."""

    def __str__(self) -> str:
        if self.is_test:
            return f'the test images of class "{shown_name(self.class_name or "")}"'
        return "the negative examples" if self.class_name is None else f'class "{shown_name(self.class_name)}"'


@dataclass(frozen=True, kw_only=True)
class FileReading:
    """One file of a source: the digest of its image, or why it is not usable."""

    name: str
    digest: str | None = None
    """SHA-256 (hex) of the bytes of a usable image."""
    sides: tuple[int, int] | None = None
    """Its shorter and its longer side in pixels, as stored."""
    fault: EntryFault | ImageFault | None = None


@dataclass(frozen=True, kw_only=True)
class SourceReading:
    """All files of one source that are not hidden, in the order of the source."""

    source: Source
    files: tuple[FileReading, ...]
    sha256: str | None = None
    """SHA-256 (hex) of its file; None for a folder."""

    @property
    def usable(self) -> int:
        return sum(file.digest is not None for file in self.files)

    @property
    def image_files(self) -> int:
        """Files that look like images to the gateway, which does not decode them."""
        return sum(file.digest is not None or isinstance(file.fault, ImageFault) for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image for training and evaluation."""

    digest: str
    set_index: int
    """Index into the example sets: the classes in their order, then the negatives."""
    name: str
    """Of the first file with this image."""
    source: str
    """Of that file, as messages show it."""
    round: int = 1
    """The first round of its set that contained the image: the lower, the older."""
    sides: tuple[int, int] | None = None
    """See `FileReading.sides`."""
    customer: str | None = None
    """Key of the customer whose image it is; None: it has no customer. Of several, the first."""


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file that is not used, with the reason as users read it."""

    source: str
    name: str
    reason: str
    owner: str | None = None
    """The example set that its image belongs to, if that is the reason."""
    digest: str | None = None
    """Of its image, in that case."""

    def __str__(self) -> str:
        return f"{shown_name(self.name)} ({self.reason})"


@dataclass(frozen=True, kw_only=True)
class SetReport:
    """How the files of one example set were used."""

    example_set: ExampleSet
    files: int
    usable: int
    """Files whose image belongs to this set, repeats included."""
    distinct: int
    """Images that belong to this set."""
    skipped: tuple[SkippedFile, ...]
    given_away: tuple[SkippedFile, ...]
    """Files whose image belongs to another set."""

    @property
    def duplicates(self) -> int:
        """Files that repeat an image of this set."""
        return self.usable - self.distinct

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.example_set.class_name,
            "files": self.files,
            "usable": self.usable,
            "distinct": self.distinct,
            "duplicates": self.duplicates,
            "skippedCount": len(self.skipped),
            "skipped": [_file_json(file) for file in self.skipped[:FILES_REPORTED]],
            "givenAwayCount": len(self.given_away),
            "givenAway": [_file_json(file) for file in self.given_away[:FILES_REPORTED]],
        }


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """All examples of one revision, classes in their order, then the negatives, each set ordered by digest."""

    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    reports: tuple[SetReport, ...]
    """One for each example set."""


def example_sets(definition: ClassifierSpec) -> tuple[ExampleSet, ...]:
    """The example sets of a definition: the classes in their order, then the negatives if there are any."""
    sets = tuple(_example_set(item.name, item.examples) for item in definition.classes)
    if definition.negative_examples:
        sets += (_example_set(None, definition.negative_examples),)
    return sets


def _example_set(class_name: str | None, sources: tuple[Source, ...]) -> ExampleSet:
    left = tuple(source for source in sources if not source.erased)
    return ExampleSet(class_name=class_name, sources=left, partly_erased=len(left) < len(sources))


def build_dataset(
    sets: Sequence[ExampleSet], readings: Sequence[Sequence[SourceReading]], corrections: Sequence[Correction] = ()
) -> Dataset:
    """Assign each image to a set; `readings` has, for each set, those of its sources in order."""
    owners: dict[str, int | None] = {**find_owners(sets, readings)}
    numbers = {item.class_name: index for index, item in enumerate(sets)}
    corrected = {item.image: item.class_name for item in corrections if item.image in owners}
    owners |= {digest: numbers.get(class_name) for digest, class_name in corrected.items()}
    moved: dict[str, Example] = {}
    """Images that corrections give to a set none of whose sources may have them."""
    found: list[dict[str, Example]] = [{} for _ in sets]
    reports: list[SetReport] = []
    for set_index, example_set in enumerate(sets):
        own: dict[str, Example] = {}
        usable = 0
        skipped: list[SkippedFile] = []
        given_away: list[SkippedFile] = []
        for reading in readings[set_index]:
            shown = shown_source(reading.source)
            for file in reading.files:
                if file.digest is None:
                    reason = _PHRASES[file.fault] if file.fault is not None else ""
                    skipped.append(SkippedFile(source=shown, name=file.name, reason=reason))
                    continue
                owner = owners[file.digest]
                if owner is None:
                    reason = _describe_unused(corrected[file.digest])
                    skipped.append(SkippedFile(source=shown, name=file.name, reason=reason))
                    continue
                example = Example(
                    digest=file.digest,
                    set_index=owner,
                    name=file.name,
                    source=shown,
                    round=reading.source.round,
                    sides=file.sides,
                    customer=reading.source.customer,
                )
                if owner == set_index:
                    usable += 1
                    own[file.digest] = _merge(own.get(file.digest, example), example)
                elif file.digest in corrected:
                    reason = f"spec.corrections moves it to {sets[owner]}"
                    given_away.append(SkippedFile(source=shown, name=file.name, reason=reason))
                    moved[file.digest] = _merge(moved.get(file.digest, example), example)
                else:
                    name = str(sets[owner])
                    reason = f"belongs to {name}, which has the same image"
                    given_away.append(SkippedFile(source=shown, name=file.name, reason=reason, owner=name, digest=file.digest))
        found[set_index] = own
        reports.append(
            SetReport(
                example_set=example_set,
                files=sum(len(reading.files) for reading in readings[set_index]),
                usable=usable,
                distinct=len(own),
                skipped=tuple(skipped),
                given_away=tuple(given_away),
            )
        )
    for digest, example in moved.items():
        own = found[example.set_index]
        report = reports[example.set_index]
        if digest not in own:
            reports[example.set_index] = replace(report, usable=report.usable + 1, distinct=report.distinct + 1)
        own[digest] = _merge(own.get(digest, example), example)
    return Dataset(
        class_names=tuple(item.class_name for item in sets if item.class_name is not None),
        examples=tuple(own[digest] for own in found for digest in sorted(own)),
        reports=tuple(reports),
    )


def check_dataset(classifier: str, dataset: Dataset, readings: Sequence[Sequence[SourceReading]]) -> None:
    """Check that there are enough examples. `classifier` is its `namespace/name`.

    Raises:
        DatasetError: an example set has too few usable examples, or a zip that was just uploaded too many damaged ones.
    """
    faults = find_faults(dataset, readings)
    if faults:
        raise DatasetError(f"Classifier {classifier}: {join_faults(faults)}")


def find_faults(
    dataset: Dataset, readings: Sequence[Sequence[SourceReading]], unknown: Collection[ExampleSet] = ()
) -> list[str]:
    """Every reason why the examples do not suffice. Sets with unread sources are `unknown`: they may have enough."""
    if len(dataset.reports) < 2:
        return ["there is only one class; add another class, or negative examples"]
    checked = [item for item in zip(dataset.reports, readings, strict=True) if item[0].example_set not in unknown]
    return [fault for report, found in checked if (fault := _set_fault(report) or _upload_fault(report, found))]


def join_faults(faults: Sequence[str]) -> str:
    """The first faults as one text, with the number of the others."""
    text = " | ".join(faults[:SUBJECTS_SHOWN])
    more = len(faults) - SUBJECTS_SHOWN
    return f"{text} | and {more} more" if more > 0 else text


def find_owners(sets: Sequence[ExampleSet], readings: Sequence[Sequence[SourceReading]]) -> dict[str, int]:
    """For every digest the index of the set that the image belongs to according to its sources."""
    claims: dict[str, tuple[int, bool, int]] = {}
    for set_index, (example_set, set_readings) in enumerate(zip(sets, readings, strict=True)):
        for reading in set_readings:
            claim = (reading.source.round, example_set.class_name is not None, set_index)
            for file in reading.files:
                if file.digest is not None:
                    claims[file.digest] = max(claims.get(file.digest, claim), claim)
    return {digest: set_index for digest, (_, _, set_index) in claims.items()}


def _merge(earlier: Example, example: Example) -> Example:
    """The same image in a further file: the first file names it, the oldest round and the first customer count."""
    return replace(earlier, round=min(earlier.round, example.round), customer=earlier.customer or example.customer)


def _describe_unused(class_name: str) -> str:
    if not class_name:
        return "dropped by spec.corrections"
    return f'spec.corrections moves it to class "{shown_name(class_name)}", which has no images here'


def _set_fault(report: SetReport) -> str | None:
    subject = report.example_set
    # A request to erase one customer's images should not fail because few others are left.
    minimum = DISTINCT_MINIMUM if subject.partly_erased else EXAMPLES_MINIMUM
    if report.usable >= minimum and report.distinct >= DISTINCT_MINIMUM:
        return None
    verb = "have" if subject.class_name is None else "has"
    if subject.partly_erased and report.distinct < DISTINCT_MINIMUM:
        fact = f"{subject} {verb} {_count(report.distinct, 'different example')} left after others were erased on request"
        return f"{fact}; add at least {EXAMPLES_MINIMUM}"
    owners = {file.owner for file in report.given_away}
    if report.usable == 0 and len(owners) == 1 and not report.skipped:
        fact = f"{subject} {verb} 0 usable examples of {_count(report.files, 'file')}"
        why = f"all its images are also in {owners.pop()}; check whether both have the same zip"
        return f"{fact}: {why}, and give each at least {EXAMPLES_MINIMUM} images of its own"
    if report.usable < EXAMPLES_MINIMUM:
        fact = f"{subject} {verb} {_count(report.usable, 'usable example')} of {_count(report.files, 'file')}"
        return (
            f"{fact}; add at least {EXAMPLES_MINIMUM - report.usable}{_describe_skipped((*report.skipped, *report.given_away))}"
        )
    fact = f"{subject} {verb} {_count(report.usable, 'usable example')}, and all are the same image"
    return f"{fact}; add at least {DISTINCT_MINIMUM - report.distinct} different one"


def _upload_fault(report: SetReport, readings: Sequence[SourceReading]) -> str | None:
    """The fault of a zip that was just uploaded for a set that has enough examples without it.

    v3 promises at least ten usable images in each zip, and its gateway does not decode them: here those are found that cannot
    be decoded. Zips with fewer files that look like images come by the management API, and count for their set alone; so do
    all zips of a set that does not have enough. Zips of earlier rounds are not checked: an upload cannot correct them.
    """
    latest_round = max((reading.source.round for reading in readings), default=1)
    usable = sum(reading.usable for reading in readings)
    for reading in readings:
        is_latest = reading.source.upload is not None and reading.source.round == latest_round
        if is_latest and reading.usable < EXAMPLES_MINIMUM <= min(reading.image_files, usable - reading.usable):
            shown = shown_source(reading.source)
            fact = f"{_count(reading.usable, 'usable example')} of {_count(len(reading.files), 'file')}"
            skipped = [file for file in report.skipped if file.source == shown]
            missing = EXAMPLES_MINIMUM - reading.usable
            return (
                f"{report.example_set}: its {shown} has {fact}; add at least {missing} to that zip{_describe_skipped(skipped)}"
            )
    return None


def _describe_skipped(files: Sequence[SkippedFile]) -> str:
    if not files:
        return ""
    more = len(files) - SKIPPED_SHOWN
    listed = ", ".join(str(file) for file in files[:SKIPPED_SHOWN])
    return f". Skipped: {listed}{f' and {more} more' if more > 0 else ''}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _file_json(file: SkippedFile) -> dict[str, str]:
    document = {"source": file.source, "name": shown_name(file.name), "reason": file.reason}
    return document if file.digest is None else {**document, "sha256": file.digest}
