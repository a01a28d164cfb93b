"""`python -m tests.gpu_check.tuning_process FOLDER STORE ORDER`: one fine-tuning, with checkpoints in STORE, in a process that
can be killed.

It prints a line of JSON for each step, and for each checkpoint. Started again with the same STORE, it goes on from there. At
the end, STORE has the network. ORDER is JSON, see `Order`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.gpu_check.folder_store import FolderStore
from tests.gpu_check.stand_ins import prepare_imports

if TYPE_CHECKING:
    from ocelli_training.tuning_run import Step

NETWORK = "network.safetensors"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to train."""

    device: str
    pictures: int
    batch_images: int
    epochs: int
    interval_seconds: float
    """Between checkpoints."""


def train(folder: Path, store: Path, order: Order, scratch: Path) -> None:
    """Train to the end, from the checkpoint if there is one."""
    import safetensors.torch

    from ocelli_training.tuning_checkpoint import Checkpoint, CheckpointStore
    from ocelli_training.tuning_run import RunState
    from tests.gpu_check.tuning import open_tuning

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    objects: Any = FolderStore(store)
    checkpoints = CheckpointStore(
        store=objects,
        key=str,
        inputs=json.dumps(asdict(order)),
        scratch=scratch,
        loop=loop,
        interval_seconds=order.interval_seconds,
    )
    with open_tuning(folder, order.device, pictures=order.pictures, scratch=scratch) as prepared:
        run = prepared.start(batch_images=order.batch_images, epochs=order.epochs)
        checkpoint = checkpoints.load()
        if checkpoint is not None:
            run.restore(RunState(**checkpoint.document["run"]), checkpoint.tensors)
        _report("resumed", run.state.updates)

        def after_step(_: Step) -> None:
            _report("step", run.state.updates)
            if checkpoints.is_due:
                started = time.time()
                document = {"bestEpochs": [], "run": asdict(run.state)}
                checkpoints.save(Checkpoint(document=document, tensors=run.tensors()))
                _report("saved", run.state.updates, seconds=time.time() - started)

        run.train(after_step)
    tensors = {name: value.detach().cpu().contiguous() for name, value in run.network.state_dict().items()}
    safetensors.torch.save_file(tensors, store / NETWORK)
    _report("ended", run.state.updates)


def _report(event: str, updates: int, **more: float) -> None:
    print(json.dumps({"event": event, "updates": updates, "at": time.time(), **more}), flush=True)


def main() -> int:
    folder, store, order = sys.argv[1:]
    prepare_imports()
    with tempfile.TemporaryDirectory(prefix="ocelli-gpu-check-") as scratch:
        train(Path(folder), Path(store), Order(**json.loads(order)), Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
