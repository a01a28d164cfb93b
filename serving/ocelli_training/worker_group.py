"""How the workers of a training find each other and exchange numbers: `torch.distributed` with gloo, on GPUs with NCCL.

The environment of `torchrun` is not used, because it would have to be known before the first worker has started: the first
worker listens on its Pod's address, and the others read that address from the object store.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore

from ocelli_api.classifier import Accelerator
from ocelli_storage.object_store import ObjectStore
from ocelli_training.stop_request import StopRequest
from ocelli_training.worker_watch import ENDED_WELL, Board, WorkerWatch, end_key
from ocelli_training.workers import (
    FIRST_WORKER,
    WorkerAddress,
    WorkerLostError,
    WorkerPatience,
    WorkersMissingError,
    find_address,
    publish_address,
    withdraw_address,
)

_POLL_SECONDS = 0.2
_STORE_POLL_SECONDS = 1.0
_ANSWER_TIMEOUT = timedelta(seconds=30)
_COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Longer than any wait for a worker that lives, such as one that saves a checkpoint while the store does not answer."""
_STOPPED = "was asked to stop (SIGTERM), for example because its node is drained"
_SESSION, _DEVICE, _GO, _COMMAND = "session", "device", "go", "command"

T = TypeVar("T", bound=np.generic)

logger = logging.getLogger(__name__)


class Control(Board, Protocol):
    """The board of a training, in the process of the first worker."""

    @property
    def host(self) -> str:
        """Where it is."""

    def set(self, key: str, value: str, /) -> None:
        """Write a text."""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """What a worker needs to join the others."""

    worker: int
    workers: int
    host: str
    """IP address of its Pod."""
    store: ObjectStore
    key: str
    """Of the first worker's address."""
    stop: StopRequest
    abort: Callable[[Exception], None]
    """Ends the process without waiting for any thread."""
    patience: WorkerPatience = field(default_factory=WorkerPatience)


class WorkerGroup:
    """The connection of one worker to all others. Its methods block, unless they say otherwise."""

    def __init__(self, membership: Membership, control: Control, port: int) -> None:
        self._membership, self._control = membership, control
        self._commands = 0
        self._stopped: int | None = None
        board = _open_board(control.host, port, timeout=_ANSWER_TIMEOUT)
        self.watch = WorkerWatch(
            board,
            worker=membership.worker,
            workers=membership.workers,
            patience=membership.patience,
            abort=membership.abort,
        )

    @property
    def worker(self) -> int:
        """The number of this worker, from 0."""
        return self._membership.worker

    @property
    def workers(self) -> int:
        """How many there are."""
        return self._membership.workers

    @property
    def device(self) -> Accelerator:
        """What all workers train on: the choice of the first one."""
        return Accelerator(self._control.get(_DEVICE).decode())

    def connect(self, device: Accelerator) -> None:
        """Connect to all workers, once all of them call this. Raises WorkerLostError."""
        # NCCL's own reaction to a lost worker is to crash the process, before anybody can say which one was lost.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
        with self.watch.connecting(), self._explained():
            torch.distributed.init_process_group(
                "gloo" if device is Accelerator.CPU else "cpu:gloo,cuda:nccl",
                store=PrefixStore("group", self._control),  # type: ignore[arg-type]
                rank=self.worker,
                world_size=self.workers,
                timeout=_COLLECTIVE_TIMEOUT,
            )

    def share(self, rows: NDArray[T]) -> NDArray[T]:
        """The part of the rows that this worker computes; the parts of all workers are the whole, in order."""
        part: NDArray[T] = np.array_split(rows, self.workers)[self.worker]
        return part

    def command(self, name: str) -> None:
        """Let all other workers do something. Only for the first worker."""
        self.watch.check()
        self._commands += 1
        self._control.set(f"{_COMMAND}/{self._commands}", name)

    def wait_for_command(self) -> str | None:
        """What the first worker wants next; None: the results are stored. Raises WorkerLostError."""
        key = f"{_COMMAND}/{self._commands + 1}"
        while not self.watch.finished:
            self.watch.check()
            if self._membership.stop.requested:
                self.announce_end(_STOPPED)
                self._membership.stop.end()
            try:
                if self._control.check([key]):
                    self._commands += 1
                    return self._control.get(key).decode()
            except Exception as error:  # the library's errors have no common class
                if not self._ends_soon():
                    raise self.watch.explain(error) from error
            time.sleep(_POLL_SECONDS)
        return None

    def send(self, content: bytes) -> None:
        """Send bytes to all workers, which `receive` them. Only for the first worker."""
        length = torch.tensor([len(content)])
        self._broadcast(length)
        if content:
            self._broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8))

    def receive(self) -> bytes:
        """What the first worker sends."""
        length = torch.zeros(1, dtype=torch.int64)
        self._broadcast(length)
        content = torch.empty(int(length), dtype=torch.uint8)
        if len(content):
            self._broadcast(content)
        return content.numpy().tobytes()

    def sum(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of the workers' arrays of one shape. All get the same, to the last bit."""
        total = torch.from_numpy(numbers.copy())
        self._sum(total)
        return total.numpy()

    def sum_gradients(self, network: nn.Module, loss: float | None) -> float | None:
        """Add up the gradients of all workers, in place, and their losses; None: for one of them the memory is too small.

        Also exchanges whether a worker was asked to stop, see `check_stopped`.
        """
        parameters = list(network.parameters())
        device = parameters[0].device
        parts = [
            torch.zeros(parameter.numel(), device=device)
            if parameter.grad is None or loss is None
            else parameter.grad.float().flatten()
            for parameter in parameters
        ]
        has_gradient = [float(parameter.grad is not None and loss is not None) for parameter in parameters]
        signs = [0.0] * self.workers
        signs[self.worker] = float(self._membership.stop.requested)
        facts = [*has_gradient, *signs, loss or 0.0, float(loss is None)]
        total = torch.cat([*parts, torch.tensor(facts, device=device)])
        self._sum(total)
        numbers = total[-len(facts) :].tolist()
        signs = numbers[len(parameters) : -2]
        self._stopped = next((worker for worker, sign in enumerate(signs) if sign), None)
        if numbers[-1]:
            return None
        start = 0
        for parameter, known in zip(parameters, numbers, strict=False):
            end = start + parameter.numel()
            # One that no worker has a gradient for is not learned, and must not get a gradient of zeros: that would decay it.
            parameter.grad = total[start:end].view_as(parameter).to(parameter.dtype) if known else None
            start = end
        return float(numbers[-2])

    @property
    def is_stopping(self) -> bool:
        """Whether a worker, perhaps this one, was asked to stop before the last step."""
        return self._stopped is not None

    def check_stopped(self) -> None:
        """Raises WorkerLostError if another worker was asked to stop."""
        if self._stopped is not None and self._stopped != self.worker:
            raise WorkerLostError(worker=self._stopped, workers=self.workers, fact=_STOPPED)

    def release(self) -> None:
        """The first worker goes on alone; the others wait for what becomes of the results."""
        self.watch.release()

    async def finish(self) -> None:
        """The first worker has stored the results, and lets the others end well. Does not block."""
        self.release()
        await withdraw_address(self._membership.store, self._membership.key)
        self._control.set(end_key(FIRST_WORKER), ENDED_WELL)
        await asyncio.to_thread(self._wait_for_confirmations)

    def confirm_end(self) -> None:
        """Another worker has seen that the results are stored."""
        try:
            self._control.set(f"read/{self.worker}", "1")
        except Exception as error:  # the library's errors have no common class
            logger.info("workers.end_not_confirmed", extra={"error": str(error).partition("\n")[0]})

    def announce_end(self, fact: str) -> None:
        """Let the others know at once that this worker ends, and why."""
        try:
            self._control.set(end_key(self.worker), fact)
        except Exception as error:  # the library's errors have no common class
            logger.info("workers.end_not_announced", extra={"error": str(error).partition("\n")[0]})

    def _broadcast(self, tensor: Tensor) -> None:
        with self._explained():
            torch.distributed.broadcast(tensor, src=FIRST_WORKER)

    def _sum(self, tensor: Tensor) -> None:
        with self._explained():
            torch.distributed.all_reduce(tensor)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        self.watch.check()
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise self.watch.explain(error) from error

    def _wait_for_confirmations(self) -> None:
        """The others read from this process that all is well. Who has not is started again, and finds the stored results."""
        deadline = time.monotonic() + 4 * self._membership.patience.beat_seconds
        confirmations = [f"read/{worker}" for worker in range(1, self.workers)]
        while time.monotonic() < deadline and not self._control.check(confirmations):
            time.sleep(_POLL_SECONDS)

    def _ends_soon(self) -> bool:
        """Whether the first worker has said that the results are stored, which the watch reads independently."""
        deadline = time.monotonic() + 2 * self._membership.patience.beat_seconds
        while time.monotonic() < deadline and not self.watch.finished:
            time.sleep(_POLL_SECONDS)
        return self.watch.finished


async def gather_workers(membership: Membership, device: Accelerator) -> WorkerGroup:
    """The first worker: listen, publish the address, and wait until all others have come.

    Raises:
        WorkersMissingError, WorkerLostError, ObjectStoreError: see there.
    """
    session, patience = secrets.token_hex(16), membership.patience
    control, port = await asyncio.to_thread(_listen, membership.host)
    control.set(_SESSION, session)
    control.set(_DEVICE, str(device))
    await publish_address(membership.store, membership.key, WorkerAddress(host=membership.host, port=port, session=session))
    started = time.monotonic()
    missing: Sequence[int] = range(1, membership.workers)
    logger.info("workers.expected", extra={"workers": membership.workers, "address": f"{membership.host}:{port}"})
    while missing := [worker for worker in missing if not control.check([f"here/{worker}"])]:
        if time.monotonic() - started > patience.start_seconds:
            raise WorkersMissingError(missing=missing, workers=membership.workers, waited_seconds=patience.start_seconds)
        await asyncio.sleep(_POLL_SECONDS)
    group = await asyncio.to_thread(WorkerGroup, membership, control, port)
    control.set(_GO, "1")
    await asyncio.to_thread(group.connect, device)
    logger.info("workers.connected", extra={"workers": membership.workers, "seconds": time.monotonic() - started})
    return group


async def join_workers(membership: Membership, is_done: Callable[[], Awaitable[bool]]) -> WorkerGroup | None:
    """Another worker: find the first one, and wait until all have come; None: `is_done` says that nothing is left to do.

    It does not use the address of an earlier process of the first worker: the connection is refused, the session differs, or
    that process already has a worker of this number and ends soon.

    Raises:
        WorkersMissingError, WorkerLostError, ObjectStoreError: see there.
    """
    started, patience = time.monotonic(), membership.patience
    refused: set[str] = set()
    called: set[str] = set()
    while time.monotonic() - started < patience.start_seconds:
        if await is_done():
            return None
        address = await find_address(membership.store, membership.key)
        if address is not None and address.session not in refused:
            control = await asyncio.to_thread(_call, address, logs=address.session not in called)
            called.add(address.session)
            if control is not None and control.add(f"joined/{membership.worker}", 1) == 1:
                group = await _wait_for_go(membership, control, address, started)
                if group is not None:
                    return group
            if control is not None:
                refused.add(address.session)
        await asyncio.sleep(_STORE_POLL_SECONDS)
    raise WorkersMissingError(missing=[FIRST_WORKER], workers=membership.workers, waited_seconds=patience.start_seconds)


async def _wait_for_go(membership: Membership, control: Control, address: WorkerAddress, started: float) -> WorkerGroup | None:
    """The group, once all workers are there; None: the first worker has ended before that, or time is up."""
    group: WorkerGroup | None = None
    try:
        group = await asyncio.to_thread(WorkerGroup, membership, control, address.port)
        control.set(f"here/{membership.worker}", "1")
        while not control.check([_GO]):
            if time.monotonic() - started > membership.patience.start_seconds:
                group.release()
                return None
            await asyncio.sleep(_POLL_SECONDS)
        device = group.device
    except Exception as error:  # the library's errors have no common class
        if group is not None:
            group.release()
        logger.info("first_worker.ended", extra={"error": str(error).partition("\n")[0]})
        return None
    await asyncio.to_thread(group.connect, device)
    return group


def _listen(host: str) -> tuple[Control, int]:
    """Listen on a free port of that address only."""
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    listening = socket.create_server((host, 0), family=family)
    port = int(listening.getsockname()[1])
    control = _open_board(host, port, timeout=_ANSWER_TIMEOUT, listening=listening.detach())
    return control, port


def _call(address: WorkerAddress, *, logs: bool) -> Control | None:
    """The board of the first worker; None: it does not answer there, or somebody else does. `logs`: why, in the log."""
    try:
        # The library would try for minutes, and write pages about it.
        socket.create_connection((address.host, address.port), timeout=5).close()
        control = _open_board(address.host, address.port, timeout=timedelta(seconds=10))
        if not control.check([_SESSION]) or control.get(_SESSION).decode() != address.session:
            return None
    except Exception as error:  # OSError, and the library's errors, which have no common class
        if logs:
            logger.info("first_worker.not_reached", extra={"error": str(error).partition("\n")[0]})
        return None
    return control


def _open_board(host: str, port: int, *, timeout: timedelta, listening: int | None = None) -> Control:
    """The board at that address; `listening` is a socket's file descriptor if this process should have it."""
    board: Control = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, is_master=listening is not None, wait_for_workers=False, timeout=timeout, master_listen_fd=listening
    )
    return board
