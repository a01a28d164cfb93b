"""Fine-tuning: from the features and pixels of a dataset to a network of its own with calibrated heads.

1. For each fold a network is trained that neither learns from it nor from the next one. The next fold chooses the epoch, and
   epoch 0 is the linear heads. The network then scores its fold, in the engine that serves on a CPU.
2. If the images that chose epochs do not have lower losses and fewer errors than with the linear heads (`is_improvement`), the
   linear heads are the result.
3. Otherwise a last network learns from all images, for the median of the chosen epochs. The scores of 1 calibrate its heads and
   evaluate them, as those of the linear heads do (`fit.score_unseen`).

Every run begins with the installed backbone and with linear heads of the images that it learns from.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.classifier import Accelerator
from ocelli_api.outcome import TuningProgress
from ocelli_model.backbone import Backbone, BackboneMetadata, Precision
from ocelli_model.backbones.families import build_tuned, load_network
from ocelli_model.engine import load_engine
from ocelli_model.heads import Heads
from ocelli_storage.object_store import ObjectStore
from ocelli_training.features import compute_features
from ocelli_training.fit import FEATURE_POWER, Examples, Fit, PartialHeads, normalised_rows, score_unseen
from ocelli_training.learned import OwnNetwork, Tuned, TuningOutcome
from ocelli_training.progress import Progress
from ocelli_training.settings import TrainerSettings
from ocelli_training.shared_tuning import SharedTask, send_images, send_run
from ocelli_training.stop_request import StopRequest
from ocelli_training.tuning_checkpoint import INTERVAL_SECONDS, Checkpoint, CheckpointStore
from ocelli_training.tuning_curves import CurveStore
from ocelli_training.tuning_network import TunedNetwork
from ocelli_training.tuning_recipe import RunPlan, StoppingScores, TuningRecipe, choose_epochs, is_improvement, plan_runs
from ocelli_training.tuning_run import RunState, Step, TuningImages, TuningRun
from ocelli_training.within_class import WithinClass
from ocelli_training.worker_group import WorkerGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningTask:
    """What is tuned, with what."""

    backbone: Backbone
    """With its weights for PyTorch."""
    examples: Examples
    linear: Fit
    """The linear heads of all images."""
    images: TuningImages
    test_numbers: Sequence[int]
    """Of the images of the Classifier's own test set in the pixel file."""
    recipe: TuningRecipe
    device: Accelerator
    threads: int
    scratch: Path
    """A folder."""
    group: WorkerGroup | None = None
    """The connection to the other workers, if there are any. This one is the first."""


@dataclass(frozen=True, kw_only=True)
class TuningFiles:
    """What is written while fine-tuning runs."""

    checkpoints: CheckpointStore
    curves: CurveStore


async def fine_tune(
    task: TuningTask,
    settings: TrainerSettings,
    store: ObjectStore,
    stop: StopRequest,
    progress: Progress,
) -> TuningOutcome:
    """Tune in a thread, with checkpoints next to the other documents of the attempt, and curves next to the artifact.

    Errors as `FineTuning.tune`. Afterwards no other worker is needed, whatever the end.
    """
    location, loop = settings.location, asyncio.get_running_loop()
    checkpoints = CheckpointStore(
        store=store,
        key=partial(location.training_key, settings.revision, settings.attempt),
        inputs=digest_inputs(task),
        scratch=task.scratch,
        loop=loop,
        interval_seconds=INTERVAL_SECONDS,
    )
    curves = CurveStore(store=store, prefix=location.curves_prefix(settings.revision), scratch=task.scratch, loop=loop)
    files = TuningFiles(checkpoints=checkpoints, curves=curves)
    try:
        return await asyncio.to_thread(lambda: FineTuning(task, files, stop, progress).tune())
    finally:
        if task.group is not None:
            task.group.release()


class FineTuning:
    """One training. It blocks, and is called from a thread of its own."""

    def __init__(self, task: TuningTask, files: TuningFiles, stop: StopRequest, progress: Progress) -> None:
        self._task, self._stop, self._progress = task, stop, progress
        self._checkpoints, self._curves = files.checkpoints, files.curves
        self._runs = plan_runs(task.examples.folds, task.examples.membership)
        self._heads = PartialHeads(task.examples, task.linear.recipe, threads=task.threads)
        self._finished = _Finished.start(task.examples.membership)
        self._torch_device = torch.device("cuda" if task.device is Accelerator.GPU else "cpu")
        torch.set_num_threads(task.threads)
        # The same numbers from the same seeds, as far as the libraries can do that.
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True

    def tune(self) -> TuningOutcome:
        """Train, or continue from the checkpoint of an earlier process of this attempt.

        Raises:
            DivergedError, GpuMemoryError: see there.
            BackboneError: the backbone cannot be tuned in PyTorch.
            StoreUnavailableError: the store does not say whether there is a checkpoint.
            WorkerLostError: see there.
        """
        task = self._task
        if task.group is not None:
            digest = task.backbone.digest
            send_images(task.group, SharedTask(backbone_digest=digest, recipe=task.recipe, images=task.images))
        checkpoint = self._checkpoints.load()
        if checkpoint is None:
            self._curves.clear()
        else:
            self._finished.restore(checkpoint)
            logger.info("tuning.resumed", extra=checkpoint.place)
        for plan in self._runs[len(self._finished.best_epochs) : -1]:
            self._cross_validate(plan, checkpoint)
            checkpoint = None
        epochs, finished = choose_epochs(self._finished.best_epochs), self._finished
        improved = epochs > 0 and is_improvement(finished.linear, finished.tuned)
        logger.info(
            "tuning.compared",
            extra={
                "improved": improved,
                "epochs": epochs,
                "loss": float(finished.tuned.losses.mean()),
                "linear_loss": float(finished.linear.losses.mean()),
                "errors": int((~finished.tuned.right).sum()),
                "linear_errors": int((~finished.linear.right).sum()),
            },
        )
        tuned = self._finish(epochs, checkpoint) if improved else None
        return TuningOutcome(tuned=tuned, report=self._describe(epochs, improved), halved=finished.halved)

    def _cross_validate(self, plan: RunPlan, checkpoint: Checkpoint | None) -> None:
        """One run of cross-validation, with the scores of its fold."""
        run = self._train(plan, self._task.recipe.epochs, checkpoint)
        served = self._serve(run.network)
        weights, bias = _head_of(run.network)
        learned = _Learned.measure(served.features(plan.learned), self._task.examples.membership[plan.learned])
        rows, finished = normalised_rows(served.features(plan.judged)), self._finished
        finished.margins[plan.judged] = rows.astype(np.float64) @ weights.T.astype(np.float64) + bias
        finished.distances[plan.judged] = learned.distances(rows)
        if len(plan.stopping):
            for whole, part in zip((finished.linear, finished.tuned), run.stopping_scores, strict=True):
                whole.losses[plan.stopping], whole.right[plan.stopping] = part.losses, part.right
        finished.best_epochs.append(run.state.best_epoch)
        finished.halved = finished.halved or run.state.halved
        self._store(Checkpoint(document=finished.document(), tensors=finished.tensors()))

    def _finish(self, epochs: int, checkpoint: Checkpoint | None) -> Tuned:
        """The network that is served, from all images."""
        examples, finished = self._task.examples, self._finished
        run = self._train(self._runs[-1], epochs, checkpoint)
        finished.halved = finished.halved or run.state.halved
        served = self._serve(run.network)
        weights, bias = _head_of(run.network)
        features = served.features(np.arange(len(examples.folds)))
        learned = _Learned.measure(features, examples.membership)
        unseen = score_unseen(
            finished.margins, finished.distances, examples.membership, examples.folds, learned.within_class.least_border
        )
        heads = Heads(
            weights=weights,
            bias=bias,
            slope=unseen.slope,
            offset=unseen.offset,
            power=FEATURE_POWER,
            rejection=learned.within_class.rejection(None, learned.origin, unseen.border),
        )
        fit = Fit(
            heads=heads, recipe=self._task.linear.recipe, scores=unseen.scores, unrejected_scores=unseen.unrejected_scores
        )
        return Tuned(
            fit=fit,
            network=OwnNetwork(metadata=served.metadata, files=served.files),
            features=features,
            test_features=served.features_of(self._task.test_numbers),
        )

    def _train(self, plan: RunPlan, epochs: int, checkpoint: Checkpoint | None) -> TuningRun:
        task = self._task
        weights, bias = self._heads.learn(plan.learned)
        # Calibrated, the first losses are those of scores, and the gradients are small.
        slope, offset = task.linear.heads.slope, task.linear.heads.offset
        network = TunedNetwork(
            load_network(task.backbone), slope[:, np.newaxis] * weights, slope * bias + offset, power=FEATURE_POWER
        )
        run = TuningRun(
            network=network,
            recipe=task.recipe,
            plan=plan,
            images=task.images,
            device=self._torch_device,
            epochs=epochs,
            reading_threads=task.threads,
            sharing=task.group,
        )
        if checkpoint is not None and "run" in checkpoint.document:
            run.restore(RunState(**checkpoint.document["run"]), checkpoint.tensors)
        run.state.halved = run.state.halved or self._finished.halved
        self._progress.report_device(run.engine_name)
        if task.group is not None:
            send_run(task.group, run, plan, epochs)

        def after_step(step: Step) -> None:
            self._progress.report((plan.number + min(step.done_epochs / epochs, 1.0)) / len(self._runs))
            self._progress.report_tuning(
                TuningProgress(
                    network=plan.number + 1,
                    networks=len(self._runs),
                    epoch=min(int(step.done_epochs) + 1, epochs),
                    epochs=epochs,
                    loss=round(step.loss, 6),
                )
            )
            if run.state.step == 0:
                # An epoch has ended. Before the checkpoint: no state is ahead of its curves.
                self._curves.save(plan.number + 1, run.curve())
            # Read once: a request that arrives meanwhile waits for the next step, and does not end what is not saved. Another
            # worker that was asked to stop ends after this step as well.
            group = task.group
            stopping = self._stop.requested if group is None else group.is_stopping
            if stopping or self._checkpoints.is_due:
                self._save(run)
            if stopping:
                self._stop.end()
            if group is not None:
                group.check_stopped()

        with self._stop.resumable():
            run.train(after_step)
            state = run.state
            logger.info(
                "tuning.run_ended",
                extra={"run": plan.number, "epochs": state.epoch, "best": state.best_epoch, "losses": state.losses},
            )
            # What follows can take minutes: export, features, the artifact. A successor repeats only that.
            self._save(run)
        return run

    def _save(self, run: TuningRun) -> None:
        document = {**self._finished.document(), "run": asdict(run.state)}
        self._store(Checkpoint(document=document, tensors={**run.tensors(), **self._finished.tensors()}))

    def _store(self, checkpoint: Checkpoint) -> None:
        with nullcontext() if self._task.group is None else self._task.group.watch.protect():
            self._checkpoints.save(checkpoint)

    def _serve(self, network: TunedNetwork) -> _Served:
        """The network as an inference server on a CPU runs it."""
        metadata, files = build_tuned(self._task.backbone.metadata, network.body.cpu().eval())
        return _Served(metadata=metadata, files=files, task=self._task)

    def _describe(self, epochs: int, improved: bool) -> dict[str, Any]:
        finished, recipe = self._finished, self._task.recipe
        return {
            "epochs": recipe.epochs,
            "learningRate": recipe.learning_rate,
            "batchSize": recipe.batch_images,
            "mirrored": recipe.mirror,
            **({} if self._task.group is None else {"workers": self._task.group.workers}),
            "bestEpochs": list(finished.best_epochs),
            "usedEpochs": epochs if improved else 0,
            "improved": improved,
            "linearLoss": round(float(finished.linear.losses.mean()), 6),
            "tunedLoss": round(float(finished.tuned.losses.mean()), 6),
            "linearErrors": int((~finished.linear.right).sum()),
            "tunedErrors": int((~finished.tuned.right).sum()),
        }


@dataclass(kw_only=True, eq=False)
class _Finished:
    """What the runs of cross-validation have found."""

    margins: NDArray[np.float64]
    """float64[N, C]: of each image, by the run that judged it."""
    distances: NDArray[np.float64]
    linear: StoppingScores
    """Of each image, in the run whose epoch it chose, by the linear heads; without a loss and right where there is none."""
    tuned: StoppingScores
    """The same in the best epoch."""
    best_epochs: list[int]
    halved: bool = False

    @classmethod
    def start(cls, membership: NDArray[np.bool_]) -> _Finished:
        count = len(membership)
        return cls(
            margins=np.zeros(membership.shape),
            distances=np.zeros(count),
            linear=StoppingScores(losses=np.zeros(count), right=np.ones(count, dtype=np.bool_)),
            tuned=StoppingScores(losses=np.zeros(count), right=np.ones(count, dtype=np.bool_)),
            best_epochs=[],
        )

    def document(self) -> dict[str, Any]:
        return {"bestEpochs": list(self.best_epochs), "halved": self.halved}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"finished.{name}": torch.from_numpy(array.copy()) for name, array in self._arrays().items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        for name, array in self._arrays().items():
            array[...] = checkpoint.tensors[f"finished.{name}"].numpy()
        self.best_epochs, self.halved = list(checkpoint.document["bestEpochs"]), bool(checkpoint.document["halved"])

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "margins": self.margins,
            "distances": self.distances,
            "linear.losses": self.linear.losses,
            "linear.right": self.linear.right,
            "tuned.losses": self.tuned.losses,
            "tuned.right": self.tuned.right,
        }


class _Served:
    """A tuned network in the engine of an inference server on a CPU."""

    def __init__(self, *, metadata: BackboneMetadata, files: Mapping[str, bytes], task: TuningTask) -> None:
        self.metadata, self.files, self._task = metadata, files, task
        folder = task.scratch / "tuned"
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        backbone = Backbone(metadata=metadata, folder=folder)
        self._engine = load_engine(backbone, threads=task.threads, device=Accelerator.CPU, precision=Precision.FLOAT32)

    def features(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """float32[len(rows), D] of whole examples."""
        return self.features_of([self._task.images.numbers[row] for row in rows.tolist()])

    def features_of(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """float32[len(numbers), D] of whole images by their numbers in the pixel file."""
        return compute_features(self._engine, self._task.images.pixels, numbers)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Learned:
    """Where the images are that a network learned from."""

    within_class: WithinClass
    origin: NDArray[np.float64]
    """float64[D]: the mean of their normalised features."""

    @classmethod
    def measure(cls, features: NDArray[np.float32], membership: NDArray[np.bool_]) -> _Learned:
        rows = normalised_rows(features)
        origin = rows.mean(axis=0, dtype=np.float64)
        centred = (rows - origin).astype(np.float32)
        return cls(within_class=WithinClass.measure(centred, membership, rows.shape[1]), origin=origin)

    def distances(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[N] of normalised features float32[N, D]."""
        centred = (rows - self.origin).astype(np.float32)
        return self.within_class.distances(centred, np.einsum("nd,nd->n", centred, centred, dtype=np.float64))


def _head_of(network: TunedNetwork) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights float32[C, D] and bias float32[C]."""
    head = network.head.cpu()
    return head.weight.detach().numpy().copy(), head.bias.detach().numpy().copy()


def digest_inputs(task: TuningTask) -> str:
    """SHA-256 (hex) of everything that a checkpoint depends on: it continues no other training."""
    examples = task.examples
    document = {
        "backbone": task.backbone.digest,
        "recipe": asdict(task.recipe),
        "images": list(task.images.digests),
        "membership": sha256_hex(np.packbits(examples.membership).tobytes()),
        "folds": examples.folds.tolist(),
        "device": str(task.device),
        "versions": {name: importlib.metadata.version(name) for name in ("ocelli", "torch", "torchvision")},
    }
    return sha256_hex(canonical_bytes(document))
