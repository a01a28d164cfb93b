"""`python -m tests.gpu_check.fine_tuning FOLDER`: fine-tuning on a GPU, next to a plain torchvision loop and to a CPU.

Prints what, ours, the other side or the limit, their ratio, the goal, and whether it is met. Exits with 1 if scores differ
from those of the CPU, or a process that was killed does not go on as it should; speed and memory are figures only. FOLDER was
written by `python -m tests.gpu_check.prepare`. It needs PyTorch, torchvision and NumPy, and takes some minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.benchmarks.comparison import HEADING, Comparison
from tests.gpu_check.compare import BOUND, PREPARE, GpuCheckError, check_device, describe_device
from tests.gpu_check.pictures import make_pictures
from tests.gpu_check.stand_ins import CHECKOUT, prepare_imports
from tests.gpu_check.tuning_process import NETWORK, Order

if TYPE_CHECKING:
    from tests.gpu_check.tuning import PreparedTuning

WARM_UP_STEPS = 5
LEAST_SPEED = 0.9
"""Images per second of ours, relative to the plain loop."""
LARGEST_MEMORY = 1.5
"""Peak memory of ours, relative to the plain loop: ours keeps two more copies of the weights."""
_PROCESS_SECONDS = 600.0
"""After which a process counts as hanging."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    pictures: int
    batches: tuple[int, ...]
    """Sizes of batches: the first one is that of the killed processes."""
    seconds: float
    """Of each measurement of speed."""
    rounds: int
    """Both sides are measured in turn, this many times each; the medians count."""
    epochs: int
    """Of the processes that are killed."""
    kills: int
    interval_seconds: float
    """Between checkpoints."""
    judged: int
    """Pictures whose scores are compared."""


SIZES = {
    "cuda": Sizes(pictures=768, batches=(16, 64), seconds=4.0, rounds=3, epochs=12, kills=3, interval_seconds=1.0, judged=64),
    # To try it out.
    "cpu": Sizes(pictures=8, batches=(4,), seconds=0.5, rounds=1, epochs=3, kills=1, interval_seconds=0.5, judged=4),
}


class EnoughError(Exception):
    """The measurement has ended."""


class Stopwatch:
    """Measures steps after `WARM_UP_STEPS`. Call it after each step."""

    def __init__(self, seconds: float, device: str) -> None:
        self._limit, self._device = seconds, device
        self._steps, self._started = -WARM_UP_STEPS, 0.0
        self.steps_per_second = 0.0

    def __call__(self, *_: object) -> None:
        self._steps += 1
        if self._steps == 0:
            self._started = self._now()
        elif self._steps > 0 and time.perf_counter() - self._started >= self._limit:
            self.steps_per_second = self._steps / (self._now() - self._started)
            raise EnoughError

    def _now(self) -> float:
        """With everything done that was sent to the device."""
        import torch

        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One measurement of a side."""

    images_per_second: float
    peak_megabytes: float
    """Of tensors in the memory of the GPU; 0 on a CPU."""


def measure_ours(prepared: PreparedTuning, batch_images: int, seconds: float) -> Speed:
    """The product's fine-tuning: augmentation, steps and averages."""
    run = prepared.start(batch_images=batch_images, epochs=1_000_000)
    return _measure(prepared.device.type, batch_images, seconds, run.train)


def measure_plain_loop(prepared: PreparedTuning, batch_images: int, seconds: float) -> Speed:
    """The loop of `plain_loop` with the same network, pictures and batch."""
    import numpy as np

    from tests.gpu_check.plain_loop import MadePictures, count_workers, train_plainly

    images = prepared.images
    made = images.read(np.arange(len(images.numbers)))
    pictures = MadePictures(made, images.membership)
    network = prepared.build_network()

    def train(after_step: Stopwatch) -> None:
        train_plainly(
            network,
            pictures,
            prepared.device,
            batch_images=batch_images,
            workers=count_workers(batch_images * made.nbytes // len(made)),
            after_step=after_step,
        )

    return _measure(prepared.device.type, batch_images, seconds, train)


def _measure(device: str, batch_images: int, seconds: float, train: Any) -> Speed:
    import torch

    if device == "cuda":
        # The other side's tensors, which the exception at its end may have kept.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    stopwatch = Stopwatch(seconds, device)
    try:
        train(stopwatch)
    except EnoughError:
        pass
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else 0.0
    return Speed(images_per_second=stopwatch.steps_per_second * batch_images, peak_megabytes=peak)


def compare_speed(prepared: PreparedTuning, batch_images: int, sizes: Sizes) -> Iterator[Comparison]:
    """Images per second and memory of both sides, measured in turn."""
    ours, other = [], []
    for _ in range(sizes.rounds):
        ours.append(measure_ours(prepared, batch_images, sizes.seconds))
        other.append(measure_plain_loop(prepared, batch_images, sizes.seconds))
    rates = [median(speed.images_per_second for speed in side) for side in (ours, other)]
    yield Comparison(
        what=f"FineTune, batches of {batch_images}: images/s, ours / plain torchvision loop",
        ours=rates[0],
        other=rates[1],
        unit="/s",
        ratio=rates[0] / rates[1],
        goal=LEAST_SPEED,
        at_least=True,
    )
    if prepared.device.type == "cuda":
        peaks = [max(speed.peak_megabytes for speed in side) for side in (ours, other)]
        yield Comparison(
            what=f"FineTune, batches of {batch_images}: peak GPU memory, ours / plain loop",
            ours=peaks[0],
            other=peaks[1],
            unit="MB",
            ratio=peaks[0] / peaks[1],
            goal=LARGEST_MEMORY,
            at_least=False,
        )


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """How a fine-tuning went that was killed."""

    lost_seconds: float
    """The most work that a kill destroyed."""
    limit_seconds: float
    """One interval between checkpoints, the longest step, and the longest time that a checkpoint took."""
    kills: int


def run_uninterrupted(folder: Path, store: Path, order: Order) -> int:
    """Train to the end in one process; returns the number of steps.

    Raises:
        GpuCheckError: the process failed.
    """
    lines = list(_lines(_start(folder, store, order)))
    return _ended(lines)


def run_with_kills(folder: Path, store: Path, order: Order, *, steps: int, kills: int) -> Interrupted:
    """The same training, killed that many times, each time in another part of it, at a step of chance.

    Raises:
        GpuCheckError: a process failed, or did not go on from a checkpoint.
    """
    chance, parts = random.Random(0), kills + 1
    done_at: dict[int, float] = {}
    lost, longest_step, longest_save = [0.0], 0.0, 0.0
    for number in range(parts):
        last_step = chance.randrange(number * steps // parts, (number + 1) * steps // parts) + 1
        is_killed, before = number < kills, 0.0
        process, lines = _start(folder, store, order), []
        for line in _lines(process, killed=is_killed):
            lines.append(line)
            match line["event"]:
                case "resumed":
                    if number:
                        lost.append(_lost_seconds(done_at, line["updates"]))
                    done_at = {line["updates"]: line["at"]}
                case "step":
                    done_at[line["updates"]] = line["at"]
                    longest_step = max(longest_step, line["at"] - before)
                    if is_killed and line["updates"] >= last_step:
                        process.kill()
                case "saved":
                    longest_save = max(longest_save, line["seconds"])
            before = line["at"]
    if _ended(lines) != steps:
        raise GpuCheckError(f"fine-tuning ended after {lines[-1]['updates']} steps, and without kills after {steps}")
    limit_seconds = order.interval_seconds + longest_step + longest_save
    return Interrupted(lost_seconds=max(lost), limit_seconds=limit_seconds, kills=kills)


def _lost_seconds(done_at: Mapping[int, float], resumed: int) -> float:
    """From when each step was done until the process was killed: the work after the step that its successor began with."""
    if resumed not in done_at:
        raise GpuCheckError(f"fine-tuning went on from step {resumed}, which the killed process had not done")
    return max(done_at.values()) - done_at[resumed]


def _start(folder: Path, store: Path, order: Order) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.gpu_check.tuning_process", str(folder), str(store), json.dumps(asdict(order))]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


def _lines(process: subprocess.Popen[str], *, killed: bool = False) -> Iterator[dict[str, Any]]:
    """What a process reports, until it ends."""
    assert process.stdout is not None
    with process, process.stdout:
        try:
            for line in process.stdout:
                if line.endswith("}\n"):
                    yield json.loads(line)
            status = process.wait(timeout=_PROCESS_SECONDS)
        finally:
            # The caller may stop reading early.
            process.kill()
    if status != 0 and not killed:
        raise GpuCheckError(f"fine-tuning ended with exit status {status}; its error is above")


def _ended(lines: Sequence[dict[str, Any]]) -> int:
    if not lines or lines[-1]["event"] != "ended":
        raise GpuCheckError("fine-tuning ended without a network")
    return int(lines[-1]["updates"])


def compare_resumed(folder: Path, prepared: PreparedTuning, sizes: Sizes, scratch: Path) -> Iterator[Comparison]:
    """A training that is killed, next to the same one that is not; and the scores of its network, next to the CPU's."""
    from tests.gpu_check.tuned_scores import Scorer

    device = prepared.device.type
    order = Order(
        device=device,
        pictures=sizes.pictures,
        batch_images=sizes.batches[0],
        epochs=sizes.epochs,
        interval_seconds=sizes.interval_seconds,
    )
    whole, killed = scratch / "whole", scratch / "killed"
    for store in (whole, killed):
        store.mkdir()
    steps = run_uninterrupted(folder, whole, order)
    interrupted = run_with_kills(folder, killed, order, steps=steps, kills=sizes.kills)
    yield Comparison(
        what=f"FineTune, killed {interrupted.kills} times: work lost / interval, step, checkpoint",
        ours=interrupted.lost_seconds,
        other=interrupted.limit_seconds,
        unit="s",
        ratio=interrupted.lost_seconds / interrupted.limit_seconds,
        goal=1.0,
        at_least=False,
    )
    preprocessing = prepared.backbone.metadata.preprocessing
    pictures = make_pictures(sizes.judged, height=preprocessing.height, width=preprocessing.width)
    scorer = Scorer(prepared, scratch)
    ours = scorer.served(whole / NETWORK, pictures, device)
    moved = float(abs(scorer.served(killed / NETWORK, pictures, device) - ours).max())
    yield _within_bound("FineTune, killed: difference of scores from those without kills", moved)
    started_with = scorer.untuned(pictures)
    print(
        f"scores of {len(pictures)} pictures after {steps} steps: {ours.min():.3f} to {ours.max():.3f}, "
        f"moved by up to {abs(ours - started_with).max():.3f} by fine-tuning"
    )
    moved = float(abs(scorer.served(whole / NETWORK, pictures, "cpu") - ours).max())
    yield _within_bound(f"FineTune, served: difference of scores from {scorer.cpu_engine}", moved)


def _within_bound(what: str, moved: float) -> Comparison:
    return Comparison(what=what, ours=1000 * moved, other=1000 * BOUND, unit="‰", ratio=moved / BOUND, goal=1.0, at_least=False)


def check(folder: Path, device: str, sizes: Sizes) -> bool:
    """Print the table; whether scores agree and kills do no harm.

    Raises:
        GpuCheckError: there is no such device, the folder was not prepared, or a process failed.
    """
    check_device(device)
    prepare_imports()
    from tests.gpu_check.tuning import open_tuning

    print(f"{describe_device(device)}, {len(os.sched_getaffinity(0))} CPU cores")
    print(HEADING)
    right = True
    with tempfile.TemporaryDirectory(prefix="ocelli-gpu-check-") as name:
        scratch = Path(name)
        try:
            opened = open_tuning(folder, device, pictures=sizes.pictures, scratch=scratch)
            with opened as prepared:
                for batch_images in sizes.batches:
                    for comparison in compare_speed(prepared, batch_images, sizes):
                        print(comparison, flush=True)
                for comparison in compare_resumed(folder, prepared, sizes, scratch):
                    print(comparison, flush=True)
                    right = right and comparison.met
        except FileNotFoundError as error:
            raise GpuCheckError(f"{folder} was not prepared ({error}); {PREPARE}") from error
    if device == "cpu":
        print("peak GPU memory: not measured on a CPU")
    return right


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check.fine_tuning", description="Fine-tune on a GPU.")
    parser.add_argument("folder", type=Path, help="what python -m tests.gpu_check.prepare wrote")
    parser.add_argument("--device", choices=tuple(SIZES), default="cuda", help="cpu: PyTorch on the CPU, to try it out")
    options = parser.parse_args(arguments)
    # Before PyTorch is imported. On a CPU that others use, threads that wait actively cost the other side most of its time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        right = check(options.folder, options.device, SIZES[options.device])
    except GpuCheckError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    print(f"gpu-check: fine-tuning {'passed' if right else 'FAILED'}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
