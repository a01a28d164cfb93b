import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.canonical_json import sha256_hex
from ocelli_model.backbone import (
    METADATA_FILE,
    ONNX_FILE,
    WEIGHTS_FILE,
    Backbone,
    BackboneError,
    BackboneMetadata,
    NetworkKind,
    Precision,
    Weights,
    load_backbone,
    save_backbone,
)
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.layout import backbone_key
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store

FILES = {ONNX_FILE: b"a network" * 100}
METADATA = BackboneMetadata(
    name="EfficientNetLite0",
    version="1",
    preprocessing=Preprocessing(height=128, width=128),
    feature_count=7,
    precision=Precision.FLOAT32,
    weights=None,
    licence="Apache-2.0",
    files={name: sha256_hex(data) for name, data in FILES.items()},
)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "store").as_uri())


@pytest.fixture
def digest(store: ObjectStore) -> str:
    return asyncio.run(save_backbone(store, METADATA, FILES))


def load(store: ObjectStore, digest: str, tmp_path: Path, **options: Any) -> Backbone:
    return asyncio.run(load_backbone(store, digest, cache=tmp_path / "cache", **options))


def stored(tmp_path: Path, digest: str, file: str) -> Path:
    return tmp_path / "store" / backbone_key(digest, file)


def test_a_backbone_is_loaded_as_it_was_installed(store: ObjectStore, digest: str, tmp_path: Path) -> None:
    backbone = load(store, digest, tmp_path)

    assert backbone.metadata == METADATA
    assert backbone.digest == digest
    assert (backbone.folder / ONNX_FILE).read_bytes() == FILES[ONNX_FILE]


@pytest.mark.parametrize("provenance", [None, "Trained by somebody"])
def test_metadata_with_weights_survive_storage(provenance: str | None) -> None:
    weights = Weights(origin="x.pth", sha256="ab" * 32, provenance=provenance)
    metadata = dataclasses.replace(METADATA, weights=weights, licence=None)

    assert BackboneMetadata.parse(metadata.to_bytes(), digest=metadata.digest) == metadata


@pytest.mark.parametrize("kind", [NetworkKind.CLASSIFIER, NetworkKind.ONNX])
def test_the_kind_of_a_whole_network_survives_storage(kind: NetworkKind) -> None:
    metadata = dataclasses.replace(METADATA, kind=kind)

    assert BackboneMetadata.parse(metadata.to_bytes(), digest=metadata.digest) == metadata


class TestABackboneBesideAnArtifact:
    PREFIX = "tenants/team-a/artifacts/dogs_1/0123456789/network"

    @pytest.fixture
    def own_digest(self, store: ObjectStore) -> str:
        return asyncio.run(save_backbone(store, METADATA, FILES, prefix=self.PREFIX))

    def test_it_is_loaded_as_it_was_stored(self, store: ObjectStore, own_digest: str, tmp_path: Path) -> None:
        backbone = load(store, own_digest, tmp_path, prefix=self.PREFIX)

        assert backbone.metadata == METADATA
        assert (backbone.folder / ONNX_FILE).read_bytes() == FILES[ONNX_FILE]

    def test_it_is_not_among_the_installed_ones(self, store: ObjectStore, own_digest: str, tmp_path: Path) -> None:
        with pytest.raises(BackboneError, match="publish it"):
            load(store, own_digest, tmp_path)

    @pytest.mark.parametrize("file", [ONNX_FILE, METADATA_FILE])
    def test_damage_is_reported_with_its_own_remedy(
        self, store: ObjectStore, own_digest: str, tmp_path: Path, file: str
    ) -> None:
        path = tmp_path / "store" / self.PREFIX / file
        path.write_bytes(path.read_bytes() + b" ")

        with pytest.raises(BackboneError, match=rf"{file}.*; train the revision again"):
            load(store, own_digest, tmp_path, prefix=self.PREFIX)

    def test_missing_file_is_named(self, store: ObjectStore, own_digest: str, tmp_path: Path) -> None:
        (tmp_path / "store" / self.PREFIX / ONNX_FILE).unlink()

        with pytest.raises(BackboneError, match=r"has no .*model\.onnx; train the revision again"):
            load(store, own_digest, tmp_path, prefix=self.PREFIX)


def test_a_cached_file_is_not_fetched_again(store: ObjectStore, digest: str, tmp_path: Path) -> None:
    load(store, digest, tmp_path)
    stored(tmp_path, digest, ONNX_FILE).unlink()

    assert (load(store, digest, tmp_path).folder / ONNX_FILE).exists()


def test_a_damaged_cached_file_is_fetched_again(store: ObjectStore, digest: str, tmp_path: Path) -> None:
    path = load(store, digest, tmp_path).folder / ONNX_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:100])

    load(store, digest, tmp_path)

    assert path.read_bytes() == whole


def test_a_file_that_the_backbone_does_not_have_is_ignored(store: ObjectStore, digest: str, tmp_path: Path) -> None:
    backbone = load(store, digest, tmp_path, files=(WEIGHTS_FILE,))

    assert list(backbone.folder.iterdir()) == []


def test_a_backbone_that_is_not_installed_is_an_error_that_says_how_to_install_it(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"publish it with python -m ocelli_model\.publish"):
        load(store, "00" * 32, tmp_path)


@pytest.mark.parametrize("name", ["", "EfficientNetLite0", "../secrets", "AB" * 32])
def test_text_that_is_not_a_digest_is_refused(store: ObjectStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(BackboneError, match="64 hex digits"):
        load(store, name, tmp_path)


@pytest.mark.parametrize("file", [ONNX_FILE, METADATA_FILE])
def test_damage_in_the_store_is_an_error(store: ObjectStore, digest: str, tmp_path: Path, file: str) -> None:
    path = stored(tmp_path, digest, file)
    path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(BackboneError, match=file):
        load(store, digest, tmp_path)


def test_metadata_of_another_format_are_an_error_that_says_so() -> None:
    data = METADATA.to_bytes().replace(b'"formatVersion":1', b'"formatVersion":2')
    digest = sha256_hex(data)

    with pytest.raises(BackboneError, match="format version 2; this program reads version 1"):
        BackboneMetadata.parse(data, digest=digest)


def test_files_other_than_the_metadata_name_are_not_installed(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="do not have the digests"):
        asyncio.run(save_backbone(store, METADATA, {ONNX_FILE: b"x"}))
