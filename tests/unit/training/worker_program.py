"""A worker that trains the small network together with others. Its arguments are a folder, its number and their number.

With a third number it exits after that many steps without telling the others. It leaves what it learned in the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import safetensors.torch

from ocelli_api.classifier import Accelerator
from ocelli_storage.store_url import open_store
from ocelli_training.stop_request import StopRequest
from ocelli_training.tuning_run import Step
from ocelli_training.worker_group import Membership, WorkerGroup, gather_workers, join_workers
from ocelli_training.workers import WorkerLostError, WorkerPatience
from tests.unit.training.tuned_pictures import make_images, make_network, make_run, make_steady_body

KEY = "attempt/first-worker.json"
PATIENCE = WorkerPatience(start_seconds=60, connect_seconds=30, lost_seconds=4, beat_seconds=0.2, end_seconds=10)
LOST_EXIT_CODE = 66
ABORTED_EXIT_CODE = 67
KILLED_EXIT_CODE = 9


def main(folder: Path, worker: int, workers: int, dies_after_steps: int | None) -> int:
    try:
        group = asyncio.run(_meet(folder, worker, workers))
        _train(folder, group, dies_after_steps)
    except WorkerLostError as error:
        (folder / f"lost-{worker}").write_text(str(error))
        return LOST_EXIT_CODE
    return 0


async def _meet(folder: Path, worker: int, workers: int) -> WorkerGroup:
    async def never() -> bool:
        return False

    membership = Membership(
        worker=worker,
        workers=workers,
        host="127.0.0.1",
        store=open_store((folder / "store").as_uri()),
        key=KEY,
        stop=StopRequest(os._exit),
        abort=lambda _: os._exit(ABORTED_EXIT_CODE),
        patience=PATIENCE,
    )
    if worker == 0:
        return await gather_workers(membership, Accelerator.CPU)
    group = await join_workers(membership, never)
    assert group is not None
    return group


def _train(folder: Path, group: WorkerGroup, dies_after_steps: int | None) -> None:
    def after_step(left: list[None], step: Step) -> None:
        if dies_after_steps is not None:
            if not left:
                os._exit(KILLED_EXIT_CODE)
            left.pop()

    scratch = folder / f"worker-{group.worker}"
    scratch.mkdir()
    with make_images(scratch) as images:
        run = make_run(images, network=make_network(make_steady_body()), sharing=group)
        run.train(partial(after_step, [None] * (dies_after_steps or 0)))
    group.release()
    safetensors.torch.save_file(run.tensors(), folder / f"tensors-{group.worker}.safetensors")
    (folder / f"state-{group.worker}.json").write_text(json.dumps(asdict(run.state)))


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    sys.exit(main(Path(sys.argv[1]), numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else None))
