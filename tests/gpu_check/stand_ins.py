"""Stand-ins for missing libraries that Ocelli's modules import and that the computation on a GPU does not use.

Only the one for `safetensors` works: it reads.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
_HEADER_BYTES = 8
_IMPORTED = ("PIL", "simplejpeg")
"""Libraries that the needed modules import and do not use here."""


class SafetensorError(Exception):
    """The library's exception."""


def read_safetensors(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a file: eight bytes with the header's length, a header in JSON, then the arrays' bytes.

    Raises:
        SafetensorError: it is not such a file.
    """
    try:
        length = int.from_bytes(data[:_HEADER_BYTES], "little")
        header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + length])
        body = memoryview(data)[_HEADER_BYTES + length :]
        arrays = {}
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                values = np.frombuffer(body[start:end], dtype=_DTYPES[entry["dtype"]])
                arrays[name] = values.reshape(entry["shape"]).copy()
    except (ValueError, KeyError, TypeError) as error:
        raise SafetensorError(f"not a safetensors file: {error!r}") from error
    return arrays


def install_stand_ins() -> None:
    """For each library that is missing. Call it before Ocelli's modules are imported."""
    if _is_missing("safetensors"):
        _install_safetensors()
    for name in _IMPORTED:
        if _is_missing(name):
            sys.modules[name] = MagicMock()


def _is_missing(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return True
    return False


def _install_safetensors() -> None:
    import torch

    def load_file(path: Path) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(values) for name, values in read_safetensors(Path(path).read_bytes()).items()}

    package, for_numpy, for_torch = (ModuleType(f"safetensors{part}") for part in ("", ".numpy", ".torch"))
    package.__dict__.update(SafetensorError=SafetensorError, numpy=for_numpy, torch=for_torch)
    for_numpy.__dict__.update(load=read_safetensors)
    for_torch.__dict__.update(load_file=load_file)
    sys.modules.update({module.__name__: module for module in (package, for_numpy, for_torch)})
