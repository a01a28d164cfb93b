"""PyTorch's older files: read as PyTorch reads them, and refused without running anything where they are something else."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocelli_model.backbones.packaged_weights import read_packaged_weights
from ocelli_model.backbones.torch_pickle import PICKLE_LIMIT_BYTES, TorchPickleError, read_state_dict

ODD_NAMES = ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"), ("torch", "FloatStorage")


def saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def small_file() -> bytes:
    whole = torch.arange(12, dtype=torch.float32)
    return saved(OrderedDict(weight=whole.view(3, 4).T, part=whole[4:8], count=torch.tensor(7)))


def refusal(data: bytes) -> str:
    with pytest.raises(TorchPickleError) as caught:
        read_state_dict(data)
    return str(caught.value)


def assert_as_torch_reads_it(data: bytes) -> None:
    expected = torch.load(io.BytesIO(data), weights_only=True)
    read = read_state_dict(data)
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        assert (read[name].dtype, read[name].shape) == (tensor.numpy().dtype, tuple(tensor.shape))
        np.testing.assert_array_equal(read[name], tensor.numpy())


def file_with(state_pickle: bytes, keys: tuple[str, ...] = (), numbers: bytes = b"") -> bytes:
    """A file whose state dict is written by hand."""
    head = b"".join(pickle.dumps(item, 2) for item in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return head + state_pickle + pickle.dumps(list(keys), 2) + numbers


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def storage(count: int = 4, key: str = "0", kind: str = "FloatStorage", last: bytes = b"N") -> bytes:
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + last + b"tQ"


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def tensor(
    sizes: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), offset: int = 0, stored: bytes | None = None
) -> bytes:
    both = [b"(" + b"".join(map(number, values)) + b"t" for values in (sizes, strides)]
    hooks = name("collections", "OrderedDict") + b")R"
    given = storage() if stored is None else stored
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + given + number(offset) + b"".join(both) + b"\x89" + hooks + b"tR"


def state(value: bytes) -> bytes:
    return b"\x80\x02}" + text("weight") + value + b"s."


FOUR = struct.pack("<q4f", 4, 1, 2, 3, 4)


class Calls:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("weights", ["EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2"])
def test_packaged_files_are_read_as_pytorch_reads_them(weights: str) -> None:
    assert_as_torch_reads_it(read_packaged_weights(weights))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32, torch.int64])
def test_numbers_of_every_known_kind_are_read(dtype: torch.dtype) -> None:
    assert_as_torch_reads_it(saved({"weight": torch.arange(6, dtype=dtype).view(2, 3)}))


def test_views_strides_and_shared_storages_are_read() -> None:
    assert_as_torch_reads_it(small_file())


def test_state_dict_of_a_module_is_read() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2))
    assert_as_torch_reads_it(saved(module.state_dict()))


def test_tensors_are_views_that_cannot_be_written() -> None:
    assert not any(value.flags.writeable for value in read_state_dict(small_file()).values())


def test_hand_written_file_is_read() -> None:
    """The refusals below are of files that differ from this one."""
    read = read_state_dict(file_with(state(tensor()), ("0",), FOUR))
    assert read["weight"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda path: Calls(os.system, f"touch {path}"), "'posix.system'"),
        (lambda path: Calls(eval, f"open({str(path)!r}, 'w')"), "'builtins.eval'"),
        (lambda path: Calls(exec, f"open({str(path)!r}, 'w')"), "'builtins.exec'"),
        (lambda path: Calls(open, str(path), "w"), "'_io.open'"),
        (lambda path: Calls(getattr, OrderedDict, "fromkeys"), "'builtins.getattr'"),
        (lambda path: Path(path), "'pathlib.PosixPath'"),
    ],
    ids=["system", "eval", "exec", "open", "getattr", "class"],
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_pickle_that_calls_something_is_refused_by_its_name_and_nothing_happens(
    call: Callable[[Path], Any], named: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "happened"
    data = file_with(pickle.dumps({"weight": call(path)}, protocol))
    # Protocol 2 knows the names of Python 2.
    assert named.replace("builtins", "__builtin__" if protocol == 2 else "builtins").rsplit(".", 1)[-1] in refusal(data)
    assert not path.exists()


@pytest.mark.parametrize("protocol", [0, 1, 4, 5])
def test_instructions_that_pytorch_does_not_write_are_refused(protocol: int, tmp_path: Path) -> None:
    data = file_with(pickle.dumps({"weight": Calls(os.system, f"touch {tmp_path / 'happened'}")}, protocol))
    assert "which weights do not need" in refusal(data) or "posix.system" in refusal(data)
    assert not list(tmp_path.iterdir())


def test_first_pickle_may_call_as_little_as_the_others(tmp_path: Path) -> None:
    data = pickle.dumps(Calls(os.system, f"touch {tmp_path / 'happened'}"), 2)
    assert "posix.system" in refusal(data)
    assert not list(tmp_path.iterdir())


REFUSED = {
    "ordered dict of given items": name("collections", "OrderedDict") + b"(](" + text("a") + number(1) + b"etR",
    "ordered dict of a text": name("collections", "OrderedDict") + b"(" + text("a") + b"tR",
    "tensor of nothing": name("torch._utils", "_rebuild_tensor_v2") + b")R",
    "tensor of another thing": tensor(stored=number(4)),
    "tensor of a name": tensor(stored=name("torch", "FloatStorage")),
    "tensor of sizes and strides that do not fit": tensor(sizes=(2, 2), strides=(1,)),
    "tensor of many dimensions": tensor(sizes=(1,) * 40, strides=(1,) * 40),
    "call of a storage": name("torch", "FloatStorage") + number(4) + b"\x85R",
    "call of a text": text("os.system") + text("true") + b"\x85R",
    "call of what was made": name("collections", "OrderedDict") + b")R)R",
    "call with a list": name("collections", "OrderedDict") + b"]R",
    "new object": name("collections", "OrderedDict") + b")\x81",
    "instance": b"(icollections\nOrderedDict\n",
    "object": b"(" + name("collections", "OrderedDict") + b"o",
    "extension": b"\x82\x01",
    "attributes of a name": name("collections", "OrderedDict") + b"}" + text("pop") + number(1) + b"sb",
    "attributes of a function": name("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__code__") + number(1) + b"s\x86b",
    "attributes of a tensor": tensor() + b"}" + text("__class__") + number(1) + b"sb",
    "identity that is a text": text("storage") + b"Q",
    "identity by a line": b"Pstorage\n",
    "identity of another thing": b"(" + text("module") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04NtQ",
    "identity without a type": b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + b"K\x04NtQ",
    "identity of another type": b"("
    + text("storage")
    + name("collections", "OrderedDict")
    + text("0")
    + text("cpu")
    + b"K\x04NtQ",
    "identity that is a number": b"(" + text("storage") + name("torch", "FloatStorage") + b"K\x00" + text("cpu") + b"K\x04NtQ",
    "storage that is part of another": tensor(stored=storage(last=b"(" + text("1") + b"K\x00K\x04t")),
    "storage of less than nothing": tensor(stored=storage(-4)),
    "storage of another kind": tensor(stored=storage(kind="QInt8Storage")),
    "storage that is not there": tensor(stored=storage(key="1")),
    "storage that is described in two ways": tensor(stored=storage() + b"0" + storage(kind="IntStorage")),
    "text as tensor": text("weight"),
    "storage as tensor": storage(),
    "name as tensor": name("torch", "FloatStorage"),
    "key that is a tuple": b"}))s",
    "item of a tensor": tensor() + text("a") + text("b") + b"s",
    "item of a list": b"]" + text("a") + text("b") + b"s",
    "odd number of items": b"}(" + text("a") + b"u",
    "memory that was never written": b"h\x00",
    "mark that was never set": b"t",
    "more than one thing": number(1) + number(2),
}
"""What stands where a tensor should."""


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_whatever_is_no_tensor_is_refused(value: bytes) -> None:
    assert refusal(file_with(state(value), ("0",), FOUR))


def test_attributes_of_a_state_dict_change_nothing() -> None:
    built = b"\x80\x02" + name("collections", "OrderedDict") + b")R" + text("weight") + tensor() + b"s"
    built += b"N}" + text("__class__") + name("torch", "FloatStorage") + text("items") + number(1) + b"s\x86b."
    assert refusal(file_with(built, ("0",), FOUR))
    built = built.replace(b"N}" + text("__class__") + name("torch", "FloatStorage"), b"N}")
    read = read_state_dict(file_with(built, ("0",), FOUR))
    assert (list(read), OrderedDict(a=1).items()) == (["weight"], {"a": 1}.items())


@pytest.mark.parametrize(
    ("sizes", "strides", "offset", "fact"),
    [
        ((5,), (1,), 0, "reaches beyond its numbers"),
        ((4,), (1,), 1, "reaches beyond its numbers"),
        ((2, 2), (3, 1), 0, "reaches beyond its numbers"),
        ((2,), (1 << 62,), 0, "reaches beyond its numbers"),
        ((1,), (1,), 1 << 70, "reaches beyond its numbers"),
        ((1 << 40,), (0,), 0, "reaches beyond its numbers"),
        ((0,), (1,), 0, "has no elements"),
        ((-1,), (1,), 0, "it is damaged"),
        ((2,), (-1,), 3, "it is damaged"),
        ((2,), (1,), -1, "it is damaged"),
    ],
)
def test_tensor_that_leaves_its_storage_is_refused(
    sizes: tuple[int, ...], strides: tuple[int, ...], offset: int, fact: str
) -> None:
    assert fact in refusal(file_with(state(tensor(sizes, strides, offset)), ("0",), FOUR))


def test_stride_of_a_side_of_one_means_nothing() -> None:
    data = file_with(state(tensor((1, 4), (1 << 70, 1))), ("0",), FOUR)
    assert read_state_dict(data)["weight"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("stored", "keys", "numbers", "fact"),
    [
        (storage(1 << 60), ("0",), struct.pack("<q4f", 1 << 60, 1, 2, 3, 4), "it is cut off"),
        (storage(5), ("0",), struct.pack("<q4f", 5, 1, 2, 3, 4), "it is cut off"),
        (storage(3), ("0",), FOUR, "another length"),
        (storage(), ("0",), FOUR + b"\n", "something follows"),
        (storage(), ("0",), b"", "it is cut off"),
        (storage(), ("1",), FOUR, "other numbers"),
        (storage(), ("0", "0"), FOUR + FOUR, "other numbers"),
        (storage(), (), FOUR, "other numbers"),
    ],
)
def test_numbers_that_do_not_fit_their_description_are_refused(
    stored: bytes, keys: tuple[str, ...], numbers: bytes, fact: str
) -> None:
    assert fact in refusal(file_with(state(tensor(stored=stored)), keys, numbers))


@pytest.mark.parametrize("nothing", [b"", b"\x80", bytes(100), b"weights", b"\x93NUMPY"])
def test_other_bytes_are_refused(nothing: bytes) -> None:
    assert refusal(nothing)


def test_newer_format_is_refused_with_its_name() -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    assert refusal(buffer.getvalue()).startswith("it is a zip archive, PyTorch's newer format; save it with")


def test_big_endian_numbers_are_refused() -> None:
    data = file_with(state(tensor()), ("0",), FOUR).replace(b"little_endianq\x01\x88", b"little_endianq\x01\x89")
    assert "not little-endian" in refusal(data)


def test_whole_module_is_refused_by_its_class() -> None:
    assert "'torch.nn.modules.linear.Linear'" in refusal(saved(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize(
    "value",
    [
        # Python's own unpickler would set aside memory for two thousand million entries.
        b"N" + b"r" + struct.pack("<I", 0x7FFFFFFF),
        # A tuple of a tuple of ... twice each: its hash would take forever.
        b"}" + b")" + b"2\x86" * 500 + b"Ns",
        b")" + b"\x85" * 400_000,
        b"(" + b"N" * PICKLE_LIMIT_BYTES + b"t",
        b"X\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
    ],
    ids=["memory", "hash", "depth", "size", "text", "number"],
)
@pytest.mark.timeout(20)
def test_pickle_that_wants_time_or_memory_is_refused(value: bytes) -> None:
    assert refusal(file_with(state(value), ("0",), FOUR))


def test_file_cut_off_anywhere_is_refused() -> None:
    data = small_file()
    for length in range(len(data)):
        refusal(data[:length])


@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_altered_file_is_read_or_refused_and_raises_nothing_else(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(small_file())
    for position, replacement in changes:
        start = position % len(data)
        data[start : start + len(replacement)] = replacement
    try:
        read = read_state_dict(bytes(data))
    except TorchPickleError:
        return
    assert sum(value.size for value in read.values()) < 100
