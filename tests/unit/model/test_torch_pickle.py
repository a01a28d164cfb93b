"""PyTorch's older files of weights: read as PyTorch reads them, without running other code."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ocelli_model.backbones.packaged_weights import read_packaged_weights
from ocelli_model.backbones.torch_pickle import read_state_dict


def saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def assert_as_torch_reads_it(data: bytes) -> None:
    expected = torch.load(io.BytesIO(data), weights_only=True)
    read = read_state_dict(data)
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        assert (read[name].dtype, read[name].shape) == (tensor.numpy().dtype, tuple(tensor.shape))
        np.testing.assert_array_equal(read[name], tensor.numpy())


class Calls:
    """Pickled as a call of `os.mkdir`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("weights", ["EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2"])
def test_packaged_files_are_read_as_pytorch_reads_them(weights: str) -> None:
    assert_as_torch_reads_it(read_packaged_weights(weights))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32, torch.int64])
def test_numbers_of_every_known_kind_are_read(dtype: torch.dtype) -> None:
    assert_as_torch_reads_it(saved({"weight": torch.arange(6, dtype=dtype).view(2, 3)}))


def test_views_strides_and_shared_storages_are_read() -> None:
    whole = torch.arange(12, dtype=torch.float32)
    assert_as_torch_reads_it(saved(OrderedDict(weight=whole.view(3, 4).T, part=whole[4:8], count=torch.tensor(7))))


def test_state_dict_of_a_module_is_read() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2))
    assert_as_torch_reads_it(saved(module.state_dict()))


def test_file_that_calls_something_is_refused_and_nothing_is_called(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"the file contains posix\.mkdir, which is not part of a state dict"):
        read_state_dict(saved({"weight": Calls(tmp_path / "called")}))
    assert not (tmp_path / "called").exists()


def test_whole_module_is_refused_by_its_class() -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"the file contains torch\.nn\.modules\.linear\.Linear"):
        read_state_dict(saved(torch.nn.Linear(2, 2)))


def test_tensor_outside_its_storage_is_refused() -> None:
    data = saved({"weight": torch.arange(4, dtype=torch.float32)[1:]})
    offset = b"K\x01K\x03\x85"
    assert data.count(offset) == 1
    with pytest.raises((TypeError, ValueError)):
        read_state_dict(data.replace(offset, b"K\x02K\x03\x85"))
