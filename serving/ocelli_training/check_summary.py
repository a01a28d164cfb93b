"""What a check says in a few sentences: they become the message of the condition `DataValid`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ocelli_storage.archives import shown_name
from ocelli_training.data_report import DataReport, describe_sides

MESSAGE_LIMIT = 3500
"""Characters. A condition has at most 4,096, and the operator adds what to do then."""
CLASSES_SHOWN = 20
REASONS_SHOWN = 5


def describe_faults(classifier: str, faults: Sequence[str]) -> str | None:
    """Everything that is wrong, as far as there is room; None if nothing is. `classifier` is its `namespace/name`."""
    if not faults:
        return None
    start = f"Classifier {classifier}: "
    if len(faults) == 1:
        return f"{start}{faults[0]}"
    start += f"{len(faults)} faults: "
    shown = 1
    while shown < len(faults) and len(start) + len(" | ".join(faults[: shown + 1])) <= MESSAGE_LIMIT:
        shown += 1
    more = len(faults) - shown
    return start + " | ".join(faults[:shown]) + (f" | and {more} more: see the report of the check" if more else "")


def describe_findings(report: DataReport, page: str) -> str:
    """What was found in data that suffices for a training. `page` is the key of the report."""
    return "; ".join([_describe_counts(report), *_describe_problems(report), f"report: {page}"])


def _describe_counts(report: DataReport) -> str:
    counts = [(item.example_set.class_name, item.distinct) for item in report.dataset.reports]
    classes = [f'"{shown_name(name)}" {count}' for name, count in counts if name is not None]
    more = len(classes) - CLASSES_SHOWN
    listed = ", ".join(classes[:CLASSES_SHOWN]) + (f" and {more} more classes" if more > 0 else "")
    negatives = "".join(f", negative examples {count}" for name, count in counts if name is None)
    return f"every source was read: {len(report.dataset.examples)} different images ({listed}{negatives})"


def _describe_problems(report: DataReport) -> Iterator[str]:
    reports = report.dataset.reports
    skipped = [file for item in reports for file in item.skipped]
    if skipped:
        reasons = [file.reason for file in skipped]
        kinds = sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason))
        more = ", …" if len(kinds) > REASONS_SHOWN else ""
        parts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in kinds[:REASONS_SHOWN])
        yield f"skipped files: {len(skipped)} ({parts}{more})"
    duplicates, given_away = sum(item.duplicates for item in reports), report.given_away_count
    if duplicates:
        yield f"exact duplicates within a class: {duplicates}"
    if given_away:
        yield f"files that another class has too: {given_away}"
    corrections = report.corrections
    if corrections.relabelled or corrections.dropped:
        yield f"spec.corrections: {corrections.relabelled} images in another class, {corrections.dropped} dropped"
    if corrections.unknown:
        yield corrections.describe_unknown().removeprefix("; ")
    near, conflicts = len(report.near_duplicates), len(report.conflicts)
    if near:
        yield f"near duplicates: {near}, {conflicts} of them of an image in another class"
    if report.suspicion is not None:
        errors, outliers = report.suspicion.label_errors, len(report.suspicion.outliers)
        if errors.suspects:
            yield f"images that may have the wrong class: {len(errors.suspects)}, probably about {errors.estimated} have"
        if outliers:
            yield f"images unlike those of every class: {outliers}"
    sides = describe_sides(report.dataset.examples)
    if sides:
        small = len(report.small_images)
        shorter = sides["shorter"]
        below = f", {small} images smaller than the network's {report.input_side_pixels}" if small else ""
        yield f"shorter sides: {shorter['smallest']} to {shorter['largest']} pixels{below}"
