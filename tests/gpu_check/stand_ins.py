"""Stand-ins for missing libraries that Ocelli's modules import and that the computation on a GPU does not use.

Only the one for `safetensors` works: it reads and writes.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from numpy.typing import NDArray

CHECKOUT = Path(__file__).resolve().parents[2]

_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
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


def write_safetensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Such a file."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header, parts, end = {}, [], 0
    for name, values in arrays.items():
        parts.append(values.tobytes())
        start, end = end, end + len(parts[-1])
        header[name] = {"dtype": names[values.dtype.str], "shape": list(values.shape), "data_offsets": [start, end]}
    described = json.dumps(header).encode()
    return b"".join([len(described).to_bytes(_HEADER_BYTES, "little"), described, *parts])


def prepare_imports() -> None:
    """Make Ocelli's modules importable, with stand-ins for missing libraries. Call it before they are imported."""
    install_stand_ins()
    if importlib.util.find_spec("ocelli_model") is None:
        sys.path[:0] = [str(CHECKOUT / source) for source in ("crds", "serving")]


def install_stand_ins() -> None:
    """For each library that is missing."""
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

    def save_file(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
        Path(path).write_bytes(write_safetensors({name: value.numpy() for name, value in tensors.items()}))

    package, for_numpy, for_torch = (ModuleType(f"safetensors{part}") for part in ("", ".numpy", ".torch"))
    package.__dict__.update(SafetensorError=SafetensorError, numpy=for_numpy, torch=for_torch)
    for_numpy.__dict__.update(load=read_safetensors, save=write_safetensors)
    for_torch.__dict__.update(load_file=load_file, save_file=save_file)
    sys.modules.update({module.__name__: module for module in (package, for_numpy, for_torch)})
