"""`make benchmark-accuracy`: prints tables and goals, and writes them as JSON. It fails only if it cannot measure.

Settings, in the environment: DATA, a folder with a subfolder for each set and in it a zip for each class (`negatives.zip`:
negative examples); SIZES, pictures a class, `10 20 40`; SEEDS, 3; NETWORKS, `all` or `none` of those that are compared; OUT,
the file for the JSON; CACHE, a folder that keeps features between runs. Progress goes to standard error.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# As in the trainer. Read once, when NumPy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from ocelli_model.artifact import library_versions
from ocelli_storage.archives import ArchiveError
from tests.benchmarks.accuracy.figures import lost, macro_f1, rejected, top_1
from tests.benchmarks.accuracy.networks import (
    Disagreement,
    Model,
    Network,
    NotMeasurableError,
    NumberFormat,
    Workshop,
    choose_calibration,
    compared_networks,
    measure_disagreement,
)
from tests.benchmarks.accuracy.picture_sets import PictureSet, PictureSetsError, load_sets
from tests.benchmarks.accuracy.product import Learned, Product, without_rejection
from tests.benchmarks.accuracy.reference import measure_reference
from tests.benchmarks.accuracy.results import (
    Lesson,
    NetworkFigures,
    Results,
    SplitFigures,
    mean,
    measure_goals,
    render,
    to_json,
)
from tests.benchmarks.accuracy.splits import Split, split_set
from tests.product.instance import CHECKOUT

DEFAULT_DATA = CHECKOUT.parent / "shared" / "photos"
_CHECKED_PICTURES = 5


class SettingError(Exception):
    """A setting cannot be used; the message names it."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What a user sets."""

    data: Path
    sizes: tuple[int, ...]
    seeds: int
    networks: bool
    out: Path | None
    cache: Path
    quantiser_python: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> BenchmarkSettings:
        """Raises SettingError."""
        sizes = tuple(_number("SIZES", word) for word in (environment.get("SIZES") or "10 20 40").replace(",", " ").split())
        networks = environment.get("NETWORKS") or "all"
        if networks not in ("all", "none"):
            raise SettingError(f"NETWORKS is {networks!r}; set it to all or none")
        default_cache = Path(tempfile.gettempdir()) / f"ocelli-benchmark-{os.getuid()}"
        python = environment.get("NNCF_PYTHON")
        return cls(
            data=Path(environment.get("DATA") or DEFAULT_DATA),
            sizes=sizes,
            seeds=_number("SEEDS", environment.get("SEEDS") or "3"),
            networks=networks == "all",
            out=Path(environment["OUT"]) if environment.get("OUT") else None,
            cache=Path(environment.get("CACHE") or default_cache),
            quantiser_python=Path(python) if python else None,
        )


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingError(f"{name} holds {text!r}; give whole numbers, 1 or more")
    return int(text)


def measure_product(product: Product, sets: Sequence[PictureSet], settings: BenchmarkSettings) -> list[Lesson]:
    """Train on every split, and score the images that were held out."""
    lessons = []
    for pictures in sets:
        for negatives in (False, True) if pictures.has_negatives else (False,):
            for size in settings.sizes:
                splits = [split_set(pictures.labels, size, seed) for seed in range(settings.seeds)]
                figures = tuple(
                    _measure_split(product, sets, pictures, split, negatives=negatives)
                    for split in splits
                    if split is not None and (split.has_negatives or not negatives)
                )
                lessons.append(Lesson(set_name=pictures.name, negatives=negatives, size=size, splits=figures))
                _say_progress(f"{lessons[-1].title}, {size} pictures a class")
    return lessons


def _measure_split(
    product: Product, sets: Sequence[PictureSet], pictures: PictureSet, split: Split, *, negatives: bool
) -> SplitFigures:
    learned = product.learn(pictures, split, negatives=negatives)
    features = product.set_features(pictures, learned)
    if product.number == 1:
        product.check_server(pictures, learned, split.judged[:_CHECKED_PICTURES])
    labels = pictures.labels[split.judged]
    scores = learned.heads.scores(features[split.judged])
    reference = measure_reference(features, pictures.labels, split, negatives=negatives)
    unseen = learned.heads.scores(features[split.judged_negatives]) if negatives else None
    all_scores = scores if unseen is None else np.concatenate([scores, unseen])
    others = None if negatives else _other_features(product, sets, pictures, learned)
    unlimited = without_rejection(learned.heads).scores(features[split.judged])
    return SplitFigures(
        top_1=top_1(scores, labels),
        macro_f1=macro_f1(all_scores, np.concatenate([labels, np.full(len(all_scores) - len(labels), -1)])),
        rejected_negatives=None if unseen is None else rejected(unseen),
        rejected_others=None if others is None else rejected(learned.heads.scores(others)),
        lost=None if negatives else lost(scores, unlimited, labels),
        seconds=learned.seconds,
        reference_top_1=reference.top_1,
        reference_rejected_negatives=reference.rejected_negatives,
    )


def _other_features(
    product: Product, sets: Sequence[PictureSet], pictures: PictureSet, learned: Learned
) -> NDArray[np.float32] | None:
    others = [product.set_features(other, learned) for other in sets if other is not pictures]
    return np.concatenate(others) if others else None


def measure_networks(sets: Sequence[PictureSet], settings: BenchmarkSettings) -> list[NetworkFigures]:
    """scikit-learn on the features of each."""
    settings.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    workshop = Workshop(folder=settings.cache, quantiser_python=settings.quantiser_python)
    exact: dict[Network, list[NDArray[np.float32]]] = {}
    measured = []
    for network in compared_networks():
        images = [pictures.decode(network.preprocessing) for pictures in sets]
        try:
            model = workshop.build(network, choose_calibration(np.concatenate(images)))
        except NotMeasurableError as error:
            measured.append(
                NetworkFigures(title=network.title, milliseconds=None, disagreement=None, top_1={}, reason=str(error))
            )
            continue
        features = [workshop.features(model, pixels) for pixels in images]
        exact[network] = features
        measured.append(
            NetworkFigures(
                title=network.title,
                milliseconds=model.milliseconds(images[0]),
                disagreement=_compare(model, features, exact),
                top_1=_reference_top_1(sets, features, settings),
            )
        )
        _say_progress(network.title)
    return measured


def _compare(
    model: Model, features: list[NDArray[np.float32]], exact: Mapping[Network, list[NDArray[np.float32]]]
) -> Disagreement | None:
    """With the same network in float32, which comes before."""
    network = model.network
    if network.numbers is NumberFormat.FLOAT32:
        return None
    same = exact[Network(backbone=network.backbone, preprocessing=network.preprocessing)]
    return measure_disagreement(network.backbone, np.concatenate(features), np.concatenate(same))


def _reference_top_1(
    sets: Sequence[PictureSet], features: Sequence[NDArray[np.float32]], settings: BenchmarkSettings
) -> dict[tuple[str, int], float]:
    found = {}
    for pictures, set_features in zip(sets, features, strict=True):
        for size in settings.sizes:
            splits = [split_set(pictures.labels, size, seed) for seed in range(settings.seeds)]
            value = mean(
                measure_reference(set_features, pictures.labels, split, negatives=False).top_1
                for split in splits
                if split is not None
            )
            if value is not None:
                found[pictures.name, size] = value
    return found


def _describe(sets: Sequence[PictureSet]) -> dict[str, object]:
    """What the figures hold for."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "libraries": dict(library_versions()),
        "sets": {
            pictures.name: {
                "classes": {name: int((pictures.labels == label).sum()) for label, name in enumerate(pictures.class_names)},
                "negatives": int((pictures.labels < 0).sum()),
            }
            for pictures in sets
        },
    }


def _say_progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def main() -> int:
    try:
        settings = BenchmarkSettings.from_environment(os.environ)
        sets = load_sets(settings.data)
    except (SettingError, PictureSetsError, ArchiveError) as error:
        print(f"benchmark-accuracy: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="ocelli-benchmark-") as folder:
        lessons = measure_product(Product.install(Path(folder)), sets, settings)
    networks = measure_networks(sets, settings) if settings.networks else []
    results = Results(seeds=settings.seeds, lessons=tuple(lessons), networks=tuple(networks), about=_describe(sets))
    print(render(results))
    print()
    goals = measure_goals(results)
    for goal in goals:
        print(goal)
    print(f"{sum(goal.met for goal in goals)} met, {sum(not goal.met for goal in goals)} missed")
    if settings.out is not None:
        settings.out.write_text(json.dumps(to_json(results), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
