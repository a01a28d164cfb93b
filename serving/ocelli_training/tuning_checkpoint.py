"""Checkpoints of fine-tuning in the store: one file of tensors, and a pointer to it that is written last.

They are next to the other documents of the attempt, and are deleted with them. A checkpoint of other inputs, or a damaged one,
is not used.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ocelli_storage.documents import parse_document
from ocelli_storage.layout import CHECKPOINT
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectStoreError, ObjectTooLargeError

FORMAT_VERSION = 1
POINTER = f"{CHECKPOINT}.json"
INTERVAL_SECONDS = 30.0
"""At most the work of this time is lost, and of one step."""
_POINTER_LIMIT_BYTES = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was saved at one moment."""

    document: Mapping[str, Any]
    tensors: dict[str, Tensor]

    @property
    def place(self) -> Mapping[str, int]:
        """For the log: how many networks are finished, and how many steps of the next one are done."""
        return {"networks": len(self.document["bestEpochs"]), "steps": self.document.get("run", {}).get("updates", 0)}


class CheckpointStore:
    """The checkpoints of one attempt. Its methods block, and are called from a thread other than the event loop's."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        key: Callable[[str], str],
        inputs: str,
        scratch: Path,
        loop: asyncio.AbstractEventLoop,
        interval_seconds: float,
    ) -> None:
        """`key` is the key of a file of the attempt; `inputs` is the digest of everything that the training depends on."""
        self._store, self._key, self._inputs, self._scratch, self._loop = store, key, inputs, scratch, loop
        self._interval_seconds = interval_seconds
        self._saved_at = time.monotonic()
        self._file: str | None = None

    @property
    def is_due(self) -> bool:
        """Whether the interval since the last one is over."""
        return time.monotonic() - self._saved_at >= self._interval_seconds

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it. If the store does not answer, or has no room, the training continues without."""
        path = self._scratch / "checkpoint.safetensors"
        safetensors.torch.save_file(checkpoint.tensors, path)
        digest = _file_digest(path)
        file = f"{CHECKPOINT}-{digest[:16]}.safetensors"
        pointer = {
            "formatVersion": FORMAT_VERSION,
            "inputs": self._inputs,
            "file": file,
            "sha256": digest,
            "state": checkpoint.document,
        }
        try:
            self._wait(self._store.put(self._key(file), path))
            self._wait(self._store.put(self._key(POINTER), json.dumps(pointer).encode()))
            if self._file not in (None, file):
                self._wait(self._store.delete(self._key(str(self._file))))
        except ObjectStoreError as error:
            logger.warning("checkpoint.not_stored", extra={"error": str(error)})
        else:
            self._file = file
            logger.info("checkpoint.stored", extra={"bytes": path.stat().st_size, **checkpoint.place})
        finally:
            path.unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def load(self) -> Checkpoint | None:
        """The checkpoint of an earlier process of this attempt, if it had the same inputs.

        Raises:
            StoreUnavailableError: see there.
        """
        path = self._scratch / "earlier.safetensors"
        try:
            pointer = parse_document(self._wait(self._store.get(self._key(POINTER), limit_bytes=_POINTER_LIMIT_BYTES)))
            file, digest = str(pointer["file"]), pointer["sha256"]
            if "/" in file:
                raise ValueError(f"{POINTER} names a file in another folder")
            # The next one replaces it, whether this one is used or not.
            self._file = file
            if (pointer["formatVersion"], pointer["inputs"]) != (FORMAT_VERSION, self._inputs):
                logger.warning("checkpoint.of_other_inputs")
                return None
            self._wait(self._download(self._key(file), path))
            if _file_digest(path) != digest:
                logger.warning("checkpoint.damaged", extra={"error": f"{file} does not have the digest in {POINTER}"})
                return None
            return Checkpoint(document=pointer["state"], tensors=safetensors.torch.load_file(path))
        except ObjectNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, ObjectTooLargeError, SafetensorError) as error:
            logger.warning("checkpoint.damaged", extra={"error": str(error)})
            return None
        finally:
            path.unlink(missing_ok=True)

    async def _download(self, key: str, path: Path) -> None:
        with path.open("wb") as file:
            async for chunk in self._store.open_read(key):
                await asyncio.to_thread(file.write, chunk)

    def _wait(self, task: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result()


async def delete_checkpoint(store: ObjectStore, key: Callable[[str], str]) -> None:
    """Delete the checkpoint of an attempt whose results are stored. `key` is the key of a file of the attempt."""
    try:
        pointer = parse_document(await store.get(key(POINTER), limit_bytes=_POINTER_LIMIT_BYTES))
        await store.delete(key(POINTER))
        if "/" not in str(pointer["file"]):
            await store.delete(key(str(pointer["file"])))
    except ObjectNotFoundError:
        return
    except (ObjectStoreError, KeyError, TypeError, ValueError) as error:
        # The operator's sweep deletes the documents of attempts that have ended.
        logger.warning("checkpoint.not_deleted", extra={"error": str(error)})


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
