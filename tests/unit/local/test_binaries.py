"""Finding the control plane's programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocelli_local.binaries import BinaryStore, cache_folder
from ocelli_local.source_build import find_go, find_installed_go
from ocelli_local.versions import MODULE_FOLDER, PROGRAMS, BinariesError, PinnedVersions, parse_version, version_fits

PINNED = PinnedVersions(kubernetes="1.37.2", etcd="3.7.0", go="1.26.0")
SAYINGS = {"etcd": "etcd Version: 3.7.1", "kubectl": "Client Version: v1.36.0"}


def make_program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def make_programs(folder: Path, **other: str) -> None:
    for program in PROGRAMS:
        make_program(folder, program, other.get(program) or SAYINGS.get(program, "Kubernetes v1.37.9"))


def make_store(**environ: Path | str) -> BinaryStore:
    return BinaryStore({name: str(value) for name, value in environ.items()})


def test_pinned_versions_are_read_from_go_mod() -> None:
    pinned = PinnedVersions.from_go_mod((MODULE_FOLDER / "go.mod").read_text())
    assert pinned.kubernetes.startswith("1.37.")
    assert pinned.etcd.startswith("3.7.")


def test_staging_modules_are_all_pinned_to_the_same_release() -> None:
    lines = (MODULE_FOLDER / "go.mod").read_text().splitlines()
    patch = PinnedVersions.from_go_mod("\n".join(lines)).kubernetes.removeprefix("1.")
    replaced = [line for line in lines if "=>" in line]
    assert len(replaced) > 30
    assert all(line.endswith(f" v0.{patch}") for line in replaced)


@pytest.mark.parametrize(
    ("text", "version"),
    [("Kubernetes v1.37.2", (1, 37, 2)), ("go1.26", (1, 26, 0)), ("go1.26.8", (1, 26, 8)), ("devel", None)],
)
def test_version_is_found_in_the_output_of_programs(text: str, version: tuple[int, ...] | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("program", "version", "fits"),
    [
        ("kube-apiserver", (1, 37, 0), True),
        ("kube-apiserver", (1, 36, 2), False),
        ("kubectl", (1, 36, 0), True),
        ("kubectl", (1, 38, 0), True),
        ("kubectl", (1, 32, 4), False),
        ("etcd", (3, 7, 4), True),
        ("etcd", (3, 5, 21), False),
    ],
)
def test_only_programs_of_a_fitting_version_are_used(program: str, version: tuple[int, ...], fits: bool) -> None:
    assert version_fits(program, version, PINNED) is fits


def test_suitable_programs_on_path_are_used(tmp_path: Path) -> None:
    make_programs(tmp_path / "bin")
    found = make_store(OCELLI_CACHE_DIR=tmp_path / "cache", PATH=tmp_path / "bin").find()
    assert found is not None
    assert found["etcd"] == tmp_path / "bin" / "etcd"


def test_assets_folder_comes_before_path(tmp_path: Path) -> None:
    make_programs(tmp_path / "bin")
    make_programs(tmp_path / "assets")
    store = make_store(OCELLI_CACHE_DIR=tmp_path, KUBEBUILDER_ASSETS=tmp_path / "assets", PATH=tmp_path / "bin")
    found = store.find()
    assert found is not None
    assert found["kubectl"] == tmp_path / "assets" / "kubectl"


def test_cache_comes_first(tmp_path: Path) -> None:
    make_programs(tmp_path / "bin")
    store = make_store(OCELLI_CACHE_DIR=tmp_path / "cache", PATH=tmp_path / "bin")
    make_programs(store.folder)
    found = store.find()
    assert found is not None
    assert found["etcd"] == store.folder / "etcd"


def test_one_program_of_another_version_is_not_used(tmp_path: Path) -> None:
    make_programs(tmp_path / "bin", etcd="etcd Version: 3.5.0")
    assert make_store(OCELLI_CACHE_DIR=tmp_path / "cache", PATH=tmp_path / "bin").find() is None


def test_cache_folder_follows_the_environment() -> None:
    assert cache_folder({"OCELLI_CACHE_DIR": "/a"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/ocelli")


def test_newer_go_on_path_is_used(tmp_path: Path) -> None:
    go = make_program(tmp_path, "go", "go1.30.1")
    assert find_go({"PATH": str(tmp_path)}, "1.26.0", print) == go


def test_older_go_is_reported_but_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = make_program(tmp_path, "go", "go1.19.8")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert find_installed_go({"PATH": str(tmp_path)}, "1.26.0") == (None, [f"{go} is 1.19.8"])


def test_missing_go_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(tmp_path, "go", "go1.19.8")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    with pytest.raises(BinariesError, match=r"go is 1\.19\.8.*install Go"):
        find_go({"PATH": str(tmp_path)}, "1.26.0", print)
