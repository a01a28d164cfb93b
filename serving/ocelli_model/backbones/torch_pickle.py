"""Reading PyTorch's older files of weights, which are pickles, without PyTorch and without running what they say.

Such a file is five pickles (a magic number, the version of the format, the byte order, the state dict, the keys of its
storages) and then the storages' raw numbers, each after its length. Python's own unpickler imports and calls what a pickle
names, sets attributes of what it was allowed to import, and takes as much memory as a pickle asks for. Here the few
instructions that a state dict consists of are carried out one by one: a name is only compared with those that are known, and a
call only ever makes an empty dictionary or a description of a tensor.

`torch.save(..., _use_new_zipfile_serialization=False)` writes the same format.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocelli_storage.archives import MEGABYTE

PICKLE_LIMIT_BYTES = 1 * MEGABYTE
"""Of one pickle; that of a state dict has about 150 bytes for each tensor. Python objects take far more than their pickles."""

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_FORMAT_VERSION = 1001
_ZIP_START = b"PK\x03\x04"
_LENGTH_BYTES = 8
_DIMENSIONS_LIMIT = 16

_ORDERED_DICT = "collections OrderedDict"
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_STORAGE_TYPES = {
    "torch DoubleStorage": "<f8",
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
}

_FETCH_AGAIN = "fetch the file again"
_STATE_DICT_ONLY = "give a file that holds a state_dict and nothing else"


class TorchPickleError(Exception):
    """The bytes are not a state dict of this format. The message is fact and remedy, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class _Name:
    """A class or function that the pickle names: one of those that are known. It is never looked up."""

    text: str


@dataclass(frozen=True, kw_only=True)
class _Storage:
    """Numbers that lie behind the pickles."""

    key: str
    type_name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A view of a storage; all in numbers of elements."""

    storage: _Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors by name, as read-only views of `data` with the shapes and strides that they had.

    Raises:
        TorchPickleError: the bytes are of another format, damaged, or name anything but tensors.
    """
    if data.startswith(_ZIP_START):
        raise TorchPickleError(
            "it is a zip archive, PyTorch's newer format; save it with _use_new_zipfile_serialization=False or as safetensors"
        )
    reader = _Reader(data=data)
    if reader.read_pickle() != _MAGIC_NUMBER:
        raise TorchPickleError(f"it does not begin as a file of PyTorch's weights does; {_FETCH_AGAIN}")
    version = reader.read_pickle()
    if version != _FORMAT_VERSION:
        raise TorchPickleError(
            f"its format is not version {_FORMAT_VERSION}; {_STATE_DICT_ONLY}, saved by PyTorch 0.4 or later"
        )
    system = reader.read_pickle()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise TorchPickleError("its numbers are not little-endian; save it on a machine that is")
    tensors = _checked_tensors(reader.read_pickle())
    storages = reader.read_storages(reader.read_pickle())
    return {name: _view(name, tensor, storages) for name, tensor in tensors.items()}


def _checked_tensors(state: Any) -> Mapping[str, _Tensor]:
    if not isinstance(state, dict):
        raise TorchPickleError(f"it holds no state_dict; {_STATE_DICT_ONLY}")
    for name, value in state.items():
        if not isinstance(value, _Tensor):
            raise TorchPickleError(f"its entry {name!r} is not a tensor; {_STATE_DICT_ONLY}")
    return state


def _view(name: str, tensor: _Tensor, storages: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    numbers = storages.get(tensor.storage.key)
    if numbers is None:
        raise TorchPickleError(f"the numbers of {name!r} are not in it; {_FETCH_AGAIN}")
    # Storages of one key are described wherever a tensor uses them: each description must be that of the numbers.
    if len(numbers) != tensor.storage.count or numbers.dtype.str != _STORAGE_TYPES[tensor.storage.type_name]:
        raise TorchPickleError(f"the numbers of {name!r} are described in two ways; {_FETCH_AGAIN}")
    elements, last = 1, tensor.offset
    for size, stride in zip(tensor.sizes, tensor.strides, strict=True):
        elements *= size
        last += (size - 1) * stride
    if not elements:
        raise TorchPickleError(f"tensor {name!r} has no elements; {_STATE_DICT_ONLY}")
    # More elements than numbers would be repeated ones, without a bound.
    if last >= len(numbers) or elements > len(numbers):
        raise TorchPickleError(f"tensor {name!r} reaches beyond its numbers; {_FETCH_AGAIN}")
    # The stride of a side of one element means nothing, and may be any number.
    strides = [stride * numbers.itemsize * (size > 1) for size, stride in zip(tensor.sizes, tensor.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.sizes, strides, writeable=False)


@dataclass(kw_only=True)
class _Reader:
    """Goes through the file once, from its beginning."""

    data: bytes
    position: int = 0
    storages: dict[str, _Storage] = field(default_factory=dict)
    """By key, as the state dict describes them."""

    def read_pickle(self) -> Any:
        """The next pickle: numbers, texts, None, tuples, lists, dictionaries with texts as keys, `_Tensor` and its parts."""
        machine = _Machine(self.storages)
        stream = io.BytesIO(self.data[self.position : self.position + PICKLE_LIMIT_BYTES])
        try:
            for operation, argument, _ in pickletools.genops(stream):
                machine.carry_out(operation.name, argument)
        except ValueError as error:
            if len(self.data) - self.position > PICKLE_LIMIT_BYTES and stream.tell() == PICKLE_LIMIT_BYTES:
                raise TorchPickleError(
                    f"what describes its tensors has more than {PICKLE_LIMIT_BYTES // MEGABYTE} MB; {_STATE_DICT_ONLY}"
                ) from error
            raise TorchPickleError(f"it is damaged or cut off; {_FETCH_AGAIN}") from error
        self.position += stream.tell()
        return machine.result()

    def read_storages(self, keys: Any) -> dict[str, NDArray[Any]]:
        """The numbers by key; they lie in the order of `keys`, up to the end of the file."""
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise TorchPickleError(f"it does not say where its numbers are; {_FETCH_AGAIN}")
        if sorted(keys) != sorted(self.storages):
            raise TorchPickleError(f"it has other numbers than its tensors name; {_FETCH_AGAIN}")
        numbers = {}
        for key in keys:
            storage = self.storages[key]
            length = self.data[self.position : self.position + _LENGTH_BYTES]
            start = self.position + _LENGTH_BYTES
            kind = np.dtype(_STORAGE_TYPES[storage.type_name])
            end = start + storage.count * kind.itemsize
            if len(length) < _LENGTH_BYTES or end > len(self.data):
                raise TorchPickleError(f"it is cut off; {_FETCH_AGAIN}")
            if int.from_bytes(length, "little", signed=True) != storage.count:
                raise TorchPickleError(f"its numbers have another length than its tensors say; {_FETCH_AGAIN}")
            numbers[key] = np.frombuffer(self.data, kind, storage.count, start)
            self.position = end
        if self.position != len(self.data):
            raise TorchPickleError(f"something follows after its numbers; {_FETCH_AGAIN}")
        return numbers


class _Machine:
    """The stack of one pickle. What an instruction does is in the documentation of Python's `pickletools`."""

    def __init__(self, storages: dict[str, _Storage]) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        """What lay on the stack before each mark."""
        self._memory: dict[int, Any] = {}

    def carry_out(self, operation: str, argument: Any) -> None:
        match operation:
            case "PROTO" | "STOP":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                self._stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self._stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[operation])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                self._stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[operation]())
            case "MARK":
                self._outer.append(self._stack)
                self._stack = []
            case "TUPLE":
                items = tuple(self._pop_to_mark())
                self._stack.append(items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = tuple(self._pop() for _ in range(int(operation[-1])))[::-1]
                self._stack.append(items)
            case "APPEND" | "APPENDS":
                added = self._pop_to_mark() if operation == "APPENDS" else [self._pop()]
                self._top(list).extend(added)
            case "SETITEM" | "SETITEMS":
                flat = self._pop_to_mark() if operation == "SETITEMS" else [self._pop(), self._pop()][::-1]
                self._set_items(flat)
            case "BINPUT" | "LONG_BINPUT":
                self._memory[argument] = self._top()
            case "BINGET" | "LONG_BINGET":
                if argument not in self._memory:
                    raise _damaged()
                self._stack.append(self._memory[argument])
            case "GLOBAL":
                self._stack.append(_known_name(argument))
            case "BINPERSID":
                self._stack.append(self._describe_storage(self._pop()))
            case "REDUCE":
                arguments = self._pop()
                self._stack.append(_made(self._pop(), arguments))
            case "BUILD":
                # Versions of PyTorch's modules, as attributes of the state dict: not needed here.
                self._pop()
                self._top(dict)
            case _:
                raise TorchPickleError(
                    f"its pickle has the instruction {operation}, which weights do not need; {_STATE_DICT_ONLY}"
                )

    def result(self) -> Any:
        if self._outer or len(self._stack) != 1:
            raise _damaged()
        return self._stack[0]

    def _pop(self) -> Any:
        if not self._stack:
            raise _damaged()
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._outer:
            raise _damaged()
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _top(self, kind: type = object) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise _damaged()
        return self._stack[-1]

    def _set_items(self, flat: list[Any]) -> None:
        keys, values = flat[::2], flat[1::2]
        # Texts alone: the hash of a tuple of tuples of tuples can take forever.
        if len(keys) != len(values) or not all(isinstance(key, str) for key in keys):
            raise _damaged()
        self._top(dict).update(zip(keys, values, strict=True))

    def _describe_storage(self, identity: Any) -> _Storage:
        match identity:
            case ("storage", _Name(text=type_name), str(key), str(_), int(count), None) if type_name in _STORAGE_TYPES:
                storage = _Storage(key=key, type_name=type_name, count=_natural(count))
                self._storages.setdefault(key, storage)
                return storage
        raise TorchPickleError(f"it refers to something that is not a storage of numbers; {_STATE_DICT_ONLY}")


def _known_name(text: str) -> _Name:
    if text not in (_ORDERED_DICT, _REBUILD_TENSOR, *_STORAGE_TYPES):
        shown = text.replace(" ", ".")[:200]
        raise TorchPickleError(f"it names {shown!r}, which is not loaded; {_STATE_DICT_ONLY}")
    return _Name(text=text)


def _made(name: Any, arguments: Any) -> Any:
    """What a call of a known name gives."""
    match name, arguments:
        case _Name(text=text), () if text == _ORDERED_DICT:
            return {}
        case _Name(text=text), (_Storage() as storage, int(offset), tuple(sizes), tuple(strides), bool(_), dict(hooks)) if (
            text == _REBUILD_TENSOR and not hooks and len(sizes) == len(strides) <= _DIMENSIONS_LIMIT
        ):
            return _Tensor(
                storage=storage,
                offset=_natural(offset),
                sizes=tuple(_natural(size) for size in sizes),
                strides=tuple(_natural(stride) for stride in strides),
            )
    called = name.text.replace(" ", ".") if isinstance(name, _Name) else "something that is not a function"
    raise TorchPickleError(f"it calls {called} with other arguments than PyTorch writes; {_STATE_DICT_ONLY}")


def _natural(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise _damaged()
    return number


def _damaged() -> TorchPickleError:
    return TorchPickleError(f"it is damaged; {_FETCH_AGAIN}")
