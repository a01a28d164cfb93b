"""The workers of one training: several Pods of an Indexed Job that train a network together. Without PyTorch.

The first worker (completion index 0) reads the sources, judges, saves checkpoints and stores the results. The others find it
through the object store, get the images from it, and compute their part of each batch. If one worker is lost, all of them end;
the Job starts them again, and they continue from the last checkpoint.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ocelli_storage.documents import parse_document
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError

ADDRESS = "first-worker.json"
"""Next to the other documents of the attempt."""
FIRST_WORKER = 0
_ADDRESS_LIMIT_BYTES = 4096

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerPatience:
    """How long workers wait for each other."""

    start_seconds: float = 600.0
    """Until all of them have started. A Job replaces a lost worker after up to six minutes."""
    connect_seconds: float = 120.0
    """Until each of them is connected to each other one."""
    lost_seconds: float = 60.0
    """A worker that has not shown a sign of life for this long is lost."""
    beat_seconds: float = 2.0
    """The interval of these signs."""
    end_seconds: float = 5.0
    """A worker that knows of a lost one, and cannot end by itself in this time, is ended: it may wait for the lost one."""


class WorkerLostError(Exception):
    """A worker has ended, or does not respond: all have to start again. The message is fact and remedy."""

    def __init__(self, *, worker: int, workers: int, fact: str) -> None:
        super().__init__(
            f"worker {worker} (of 0 to {workers - 1}) {fact}; all workers end, and continue from the last checkpoint when "
            f"Kubernetes has started them again; if it happens again, read the log of worker {worker}"
        )
        self.worker = worker


class WorkersMissingError(Exception):
    """Not all workers have started in time. The message is fact and remedy."""

    def __init__(self, *, missing: Sequence[int], workers: int, waited_seconds: float) -> None:
        names = ("worker " if len(missing) == 1 else "workers ") + ", ".join(str(worker) for worker in missing)
        super().__init__(
            f"{names} (of 0 to {workers - 1}) did not start within {waited_seconds:.0f} s; lower spec.training.workers, "
            "add nodes that have room for all workers at the same time, or name a queue of Kueue in spec.training.queueName, "
            "which starts them together"
        )


class WorkersNotConnectedError(Exception):
    """All workers have started, but cannot connect to each other. The message is fact and remedy."""

    def __init__(self, *, workers: int, waited_seconds: float) -> None:
        super().__init__(
            f"the {workers} workers could not connect to each other within {waited_seconds:.0f} s; allow connections on every "
            "port between the Pods of a training, for example in NetworkPolicies of the namespace"
        )


class WorkersDisconnectedError(Exception):
    """All workers run, but cannot exchange numbers any more. The message is fact and remedy."""

    def __init__(self, *, workers: int, cause: str) -> None:
        super().__init__(
            f"the connection between the {workers} workers failed, and all of them run ({cause}); check the network between "
            "their nodes and the log of each worker, or set spec.training.workers to 1"
        )


@dataclass(frozen=True, kw_only=True)
class WorkerAddress:
    """Where the first worker listens."""

    host: str
    """IP address of its Pod."""
    port: int
    session: str
    """Drawn by its process. The address may be that of an earlier process, whose IP address belongs to another Pod now: only
    who answers with this session is the first worker."""


async def publish_address(store: ObjectStore, key: str, address: WorkerAddress) -> None:
    """Let other workers find the first one."""
    await store.put(key, json.dumps(asdict(address)).encode())


async def find_address(store: ObjectStore, key: str) -> WorkerAddress | None:
    """Where the first worker was listening when it last started; None: it has not started yet, or the document is damaged."""
    try:
        document = parse_document(await store.get(key, limit_bytes=_ADDRESS_LIMIT_BYTES))
        return WorkerAddress(host=str(document["host"]), port=int(document["port"]), session=str(document["session"]))
    except ObjectNotFoundError:
        return None
    except (ObjectTooLargeError, KeyError, TypeError, ValueError) as error:
        logger.warning("first_worker.address_damaged", extra={"error": str(error)})
        return None


async def withdraw_address(store: ObjectStore, key: str) -> None:
    """Remove the address of an earlier process, or of a training that has ended."""
    await store.delete(key)
