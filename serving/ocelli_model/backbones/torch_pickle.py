"""PyTorch's older files of weights, read without PyTorch.

Such a file is five pickles (a magic number, the version of the format, the byte order, the state dict, and the keys of its
storages), then the numbers of each storage after their count. `torch.save(..., _use_new_zipfile_serialization=False)` writes
this format.

Only for files whose digest was checked: the names that a pickle can use are limited here, the sizes that it declares are not.
"""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PICKLES_BEFORE_STATE = 3
_COUNT_BYTES = 8


def read_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors by name, with their shapes and strides.

    Raises:
        pickle.UnpicklingError: the state dict contains something other than tensors.
    """
    stream, storages = io.BytesIO(data), dict[str, NDArray[Any]]()
    for _ in range(_PICKLES_BEFORE_STATE):
        _StateDictUnpickler(stream, storages).load()
    state = _StateDictUnpickler(stream, storages).load()
    for key in _StateDictUnpickler(stream, storages).load():
        stream.seek(_COUNT_BYTES, os.SEEK_CUR)
        stream.readinto(storages[key].data)
    return dict(state)


class _StateDictUnpickler(pickle.Unpickler):
    """Maps the names that a state dict needs to objects of this module. No other name is looked up or imported."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, NDArray[Any]]) -> None:
        """`storages` takes the storages by key; their numbers follow after the pickles."""
        super().__init__(stream)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"the file contains {module}.{name}, which is not part of a state dict")
        return known

    def persistent_load(self, identity: Any) -> NDArray[Any]:
        _, number_format, key, _, count, _ = identity
        return self._storages.setdefault(key, np.empty(count, number_format))


def _build_view(storage: NDArray[Any], offset: int, sizes: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> NDArray[Any]:
    """Stands for `torch._utils._rebuild_tensor_v2`. Offset and strides are in elements."""
    size = storage.itemsize
    return np.ndarray(sizes, storage.dtype, storage, offset * size, [stride * size for stride in strides])


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _build_view,
    ("torch", "DoubleStorage"): "<f8",
    ("torch", "FloatStorage"): "<f4",
    ("torch", "HalfStorage"): "<f2",
    ("torch", "LongStorage"): "<i8",
    ("torch", "IntStorage"): "<i4",
}
