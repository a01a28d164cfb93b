"""The measured figures as tables, goals and JSON. All parts of one are shown in percent."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.accuracy.networks import Disagreement
from tests.benchmarks.measurement import Bound, Measurement

GOAL_SIZE = 20
TOP_1_GOALS = {"dogs": 99.0, "flowers": 90.0, "plugs": 87.0}
REJECTED_NEGATIVES_GOALS = {"dogs": 92.0}
REJECTED_OTHERS_GOAL = 90.0
LOST_GOAL = 5.0
BEHIND_REFERENCE_GOAL = 1.0

DASH = "–"


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """The figures of one training, 0 to 1; None if there are no images for one."""

    top_1: float
    macro_f1: float
    rejected_negatives: float | None
    rejected_others: float | None
    """Pictures of the other sets."""
    lost: float | None
    """Correct answers that rejection costs."""
    seconds: float
    reference_top_1: float
    reference_rejected_negatives: float | None


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One size of a set, trained several times, each time with other pictures."""

    set_name: str
    negatives: bool
    size: int
    """Pictures of each class."""
    splits: tuple[SplitFigures, ...]
    """One for each seed; empty if too few pictures would remain for evaluation."""

    def mean(self, choose: Callable[[SplitFigures], float | None]) -> float | None:
        """Over the splits; None if one of them has no figure."""
        return mean(choose(figures) for figures in self.splits)

    @property
    def title(self) -> str:
        return f"{self.set_name} + negatives" if self.negatives else self.set_name


@dataclass(frozen=True, kw_only=True)
class NetworkFigures:
    """Of one of the networks that are compared."""

    title: str
    milliseconds: float | None
    """What an image takes on one thread."""
    disagreement: Disagreement | None
    """With float32, where only the precision differs."""
    top_1: dict[tuple[str, int], float]
    """scikit-learn's, by set and size."""
    reason: str | None = None
    """Why nothing could be measured."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All of it."""

    seeds: int
    lessons: tuple[Lesson, ...]
    networks: tuple[NetworkFigures, ...]
    about: dict[str, Any]
    """The machine, versions and pictures."""


def mean(values: Iterable[float | None]) -> float | None:
    """None if there are no values, or if one is missing."""
    there = list(values)
    known = [value for value in there if value is not None]
    return statistics.fmean(known) if known and len(known) == len(there) else None


def render_table(header: Sequence[str], rows: Sequence[Sequence[str | float | None]], *, decimals: int = 1) -> str:
    """Columns next to each other, with each word of a title on its own line, numbers aligned right, and None as a dash."""
    titles = [title.split() or [""] for title in header]
    height = max(len(words) for words in titles)
    lines = [[words[line] if line < len(words) else "" for words in titles] for line in range(height)]
    lines += [
        [cell if isinstance(cell, str) else DASH if cell is None else f"{cell:.{decimals}f}" for cell in row] for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    left = [all(isinstance(row[column], str) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if to_left else text.rjust(width) for text, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )


def render(results: Results) -> str:
    """All tables, without the goals."""
    return "\n\n".join([_render_top_1(results), _render_product(results), _render_networks(results)])


def _render_top_1(results: Results) -> str:
    header = ["set", "pictures", "ours", "sklearn", *(figures.title for figures in results.networks)]
    plain = [lesson for lesson in results.lessons if not lesson.negatives]
    rows: list[list[str | float | None]] = []
    for lesson in plain:
        rows.append([lesson.title, str(lesson.size), *_top_1_cells(results, [lesson])])
    for size in dict.fromkeys(lesson.size for lesson in plain):
        there = [lesson for lesson in plain if lesson.size == size and lesson.splits]
        rows.append([f"mean of {len(there)}", str(size), *_top_1_cells(results, there)])
    seeds = "one seed" if results.seeds == 1 else f"mean of {results.seeds} seeds"
    title = f"Top-1 in percent, {seeds}. sklearn: its logistic regression on our features"
    title += "; right of it: on those of other networks" if results.networks else ""
    return f"{title}\n{render_table(header, rows)}"


def _top_1_cells(results: Results, lessons: Sequence[Lesson]) -> list[float | None]:
    own = [mean(lesson.mean(choose) for lesson in lessons) for choose in (_top_1, _reference_top_1)]
    others = [mean(figures.top_1.get((lesson.set_name, lesson.size)) for lesson in lessons) for figures in results.networks]
    return [_percent(value) for value in (*own, *others)]


def _render_product(results: Results) -> str:
    columns: dict[str, Callable[[SplitFigures], float | None]] = {
        "top-1": _top_1,
        "macro F1": lambda figures: figures.macro_f1,
        "negatives rejected": _rejected_negatives,
        "by sklearn": lambda figures: figures.reference_rejected_negatives,
        "other sets rejected": _rejected_others,
        "right answers lost": _lost,
    }
    rows = [
        [
            lesson.title,
            str(lesson.size),
            *(_percent(lesson.mean(choose)) for choose in columns.values()),
            lesson.mean(lambda figures: figures.seconds),
        ]
        for lesson in results.lessons
    ]
    header = ["set", "pictures", *columns, "seconds to learn"]
    return f"Ours, in percent, at threshold 0.5\n{render_table(header, rows)}"


def _render_networks(results: Results) -> str:
    rows: list[list[str | float | None]] = []
    for figures in results.networks:
        moved = figures.disagreement
        rows.append(
            [
                figures.title,
                figures.milliseconds,
                _percent(mean(figures.top_1.values())),
                None if moved is None else f"{moved.largest:.4f}",
                None if moved is None else f"{moved.mean:.4f}",
                None if moved is None else _percent(moved.other_top),
                figures.reason or "",
            ]
        )
    header = ["network", "ms an image", "top-1", "largest move", "mean move", "other class, %", ""]
    title = "Networks: one thread; top-1 over all sets and sizes; how far ImageNet's probabilities move from those of float32"
    return f"{title}\n{render_table(header, rows)}"


def measure_goals(results: Results) -> list[Measurement]:
    """Those that the sets at hand allow, all at 20 pictures a class."""
    goals = []
    plain = [item for item in results.lessons if item.size == GOAL_SIZE and item.splits and not item.negatives]
    for lesson in plain:
        top_1 = _percent(lesson.mean(_top_1))
        if top_1 is not None and lesson.set_name in TOP_1_GOALS:
            goals.append(_goal(f"{lesson.title}: top-1", top_1, TOP_1_GOALS[lesson.set_name], Bound.AT_LEAST))
    for lesson in results.lessons:
        rejected = _percent(lesson.mean(_rejected_negatives)) if lesson.size == GOAL_SIZE and lesson.negatives else None
        if rejected is not None and lesson.set_name in REJECTED_NEGATIVES_GOALS:
            goal = REJECTED_NEGATIVES_GOALS[lesson.set_name]
            goals.append(_goal(f"{lesson.title}: unseen negatives rejected", rejected, goal, Bound.AT_LEAST))
    for lesson in plain:
        others, lost = _percent(lesson.mean(_rejected_others)), _percent(lesson.mean(_lost))
        if others is not None and lost is not None:
            what = f"{lesson.title} without negatives: other sets rejected"
            goals.append(_goal(what, others, REJECTED_OTHERS_GOAL, Bound.AT_LEAST))
            goals.append(_goal(f"{lesson.title} without negatives: right answers lost", lost, LOST_GOAL, Bound.AT_MOST))
    ahead = [(lesson, _ahead(lesson)) for lesson in plain]
    for lesson, points in ahead:
        goals.append(_goal(f"{lesson.title}: top-1 ahead of scikit-learn", points, -BEHIND_REFERENCE_GOAL, Bound.AT_LEAST))
    if ahead:
        points = statistics.fmean(points for _, points in ahead)
        goals.append(_goal("mean of the sets: top-1 ahead of scikit-learn", points, 0.0, Bound.ABOVE))
    return goals


def to_json(results: Results) -> dict[str, Any]:
    """Everything, seed by seed, with the goals."""
    return {
        "about": results.about,
        "seeds": results.seeds,
        "lessons": [asdict(lesson) for lesson in results.lessons],
        "networks": [
            {
                **asdict(figures),
                "top_1": [{"set": name, "pictures": size, "top_1": top} for (name, size), top in figures.top_1.items()],
            }
            for figures in results.networks
        ],
        "goals": [{**asdict(goal), "met": goal.met} for goal in measure_goals(results)],
    }


def _goal(what: str, value: float, goal: float, bound: Bound) -> Measurement:
    return Measurement(what=what, value=value, goal=goal, unit="%", bound=bound)


def _ahead(lesson: Lesson) -> float:
    return 100 * statistics.fmean(figures.top_1 - figures.reference_top_1 for figures in lesson.splits)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _top_1(figures: SplitFigures) -> float:
    return figures.top_1


def _reference_top_1(figures: SplitFigures) -> float:
    return figures.reference_top_1


def _rejected_negatives(figures: SplitFigures) -> float | None:
    return figures.rejected_negatives


def _rejected_others(figures: SplitFigures) -> float | None:
    return figures.rejected_others


def _lost(figures: SplitFigures) -> float | None:
    return figures.lost
