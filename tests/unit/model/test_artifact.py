import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ocelli_api.canonical_json import canonical_bytes, sha256_hex
from ocelli_api.classifier import Activation
from ocelli_api.export import ArtifactSummary, PartPlace
from ocelli_model.artifact import HEADS_FILE, OUTPUT_HEAD_FILE, Artifact, ArtifactError, load_artifact, save_artifact
from ocelli_model.backbone import Precision
from ocelli_model.heads import Heads, Rejection
from ocelli_model.output_head import OutputClass, OutputHead
from ocelli_model.preprocessing import Preprocessing
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")
REVISION = "0123456789"


def make_artifact(**changes: Any) -> Artifact:
    random = np.random.default_rng(0)
    artifact = Artifact(
        revision=REVISION,
        class_names=("beagle", "日本犬"),
        heads=Heads(
            weights=random.normal(size=(2, 7)).astype(np.float32),
            bias=random.normal(size=2).astype(np.float32),
            slope=np.array([0.1, 2.3], dtype=np.float32),
            offset=np.array([-0.7, 1e-8], dtype=np.float32),
        ),
        backbone_name="EfficientNetLite0",
        backbone_digest="ab" * 32,
        precision=Precision.FLOAT32,
        preprocessing=Preprocessing(height=128, width=128),
        metrics={"accuracy": 0.9},
    )
    return dataclasses.replace(artifact, **changes)


def make_rejecting_heads() -> Heads:
    """Heads with a power and a rejection, as trainings make them."""
    random = np.random.default_rng(1)
    rejection = Rejection(
        linear=random.normal(size=(3, 7)).astype(np.float32),
        constant=random.normal(size=3).astype(np.float32),
        directions=np.asfortranarray(random.normal(size=(4, 7)).astype(np.float32)),
        centre=random.normal(size=4).astype(np.float32),
    )
    return dataclasses.replace(make_artifact().heads, power=0.6, rejection=rejection)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path.as_uri())


def save(store: ObjectStore, artifact: Artifact) -> str:
    return asyncio.run(save_artifact(store, LOCATION, artifact))


def load(store: ObjectStore, **options: Any) -> Artifact:
    return asyncio.run(load_artifact(store, LOCATION, REVISION, **options))


def file_of(tmp_path: Path, name: str) -> Path:
    return tmp_path / LOCATION.artifact_key(REVISION, name)


def test_an_artifact_survives_storage(store: ObjectStore) -> None:
    artifact = make_artifact()
    save(store, artifact)

    loaded = load(store)

    assert dataclasses.replace(loaded, heads=artifact.heads).to_files() == artifact.to_files()
    for name in ("weights", "bias", "slope", "offset"):
        assert np.array_equal(getattr(loaded.heads, name), getattr(artifact.heads, name))


def test_heads_whose_memory_is_transposed_survive_storage(store: ObjectStore) -> None:
    heads = make_artifact().heads
    transposed = dataclasses.replace(heads, weights=np.asfortranarray(heads.weights))
    save(store, make_artifact(heads=transposed))

    assert np.array_equal(load(store).heads.weights, heads.weights)


def test_power_and_rejection_survive_storage(store: ObjectStore) -> None:
    artifact = make_artifact(heads=make_rejecting_heads())
    features = np.random.default_rng(2).normal(size=(20, 7)).astype(np.float32)
    save(store, artifact)

    loaded = load(store)

    assert isinstance(loaded.heads, Heads)
    assert isinstance(artifact.heads, Heads)
    assert (loaded.heads.power, loaded.digest) == (0.6, artifact.digest)
    assert np.array_equal(loaded.heads.scores(features), artifact.heads.scores(features))


@pytest.mark.parametrize("part", ["power", "rejection"])
def test_the_digest_depends_on_power_and_rejection(part: str) -> None:
    heads = make_rejecting_heads()

    without = dataclasses.replace(heads, **{part: None})

    assert make_artifact(heads=without).digest != make_artifact(heads=heads).digest


def test_heads_without_power_and_rejection_have_the_same_files_as_before() -> None:
    metadata, files = make_artifact().to_files()

    assert "featurePower" not in json.loads(metadata)
    assert set(safetensors.numpy.load(files[HEADS_FILE])) == {"weights", "bias"}


def test_a_rejection_that_misses_an_array_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact(heads=make_rejecting_heads()))
    arrays = safetensors.numpy.load(file_of(tmp_path, HEADS_FILE).read_bytes())
    del arrays["rejection.centre"]
    data = safetensors.numpy.save(arrays)
    file_of(tmp_path, HEADS_FILE).write_bytes(data)
    document = json.loads(file_of(tmp_path, ARTIFACT_METADATA).read_bytes())
    document["files"][HEADS_FILE] = sha256_hex(data)
    file_of(tmp_path, ARTIFACT_METADATA).write_bytes(canonical_bytes(document))

    with pytest.raises(ArtifactError, match="cannot be read"):
        load(store)


def test_the_digest_is_that_of_its_metadata_file(store: ObjectStore, tmp_path: Path) -> None:
    digest = save(store, make_artifact())

    assert digest == make_artifact().digest == load(store, expected_digest=digest).digest
    assert json.loads(file_of(tmp_path, ARTIFACT_METADATA).read_bytes())["formatVersion"] == 3


def test_an_artifact_records_the_precision_of_its_features(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact())

    assert json.loads(file_of(tmp_path, ARTIFACT_METADATA).read_bytes())["backbone"]["precision"] == "Float32"
    assert load(store).precision is Precision.FLOAT32


def test_an_artifact_of_format_version_1_leaves_the_precision_to_its_backbone_and_keeps_its_digest(
    store: ObjectStore, tmp_path: Path
) -> None:
    save(store, make_artifact())
    path = file_of(tmp_path, ARTIFACT_METADATA)
    document = json.loads(path.read_bytes())
    del document["backbone"]["precision"]
    path.write_bytes(canonical_bytes({**document, "formatVersion": 1, "classifierID": LOCATION.classifier_id}))

    loaded = load(store)

    assert (loaded.precision, loaded.digest) == (None, sha256_hex(path.read_bytes()))
    assert isinstance(loaded.heads, Heads)
    assert (loaded.heads.power, loaded.heads.rejection) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ("beagle", "husky")},
        {"backbone_digest": "cd" * 32},
        {"precision": Precision.FASTEST},
        {"metrics": {"accuracy": 0.8}},
        {"preprocessing": Preprocessing(height=64, width=128)},
        {"library_versions": {"numpy": "0"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_digest_depends_on_everything(changes: dict[str, Any]) -> None:
    assert make_artifact(**changes).digest != make_artifact().digest


def test_the_digest_depends_on_the_weights() -> None:
    heads = make_artifact().heads

    assert make_artifact(heads=dataclasses.replace(heads, weights=heads.weights + 1)).digest != make_artifact().digest


def test_a_missing_artifact_is_an_error_that_names_it(store: ObjectStore) -> None:
    with pytest.raises(
        ArtifactError, match=r"artifact of dogs_1, revision 0123456789: the object store has no .*artifact\.json"
    ):
        load(store)


def test_an_artifact_without_its_heads_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact())
    file_of(tmp_path, HEADS_FILE).unlink()

    with pytest.raises(ArtifactError, match=r"has no .*model\.safetensors"):
        load(store)


def test_damaged_heads_are_an_error(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact())
    path = file_of(tmp_path, HEADS_FILE)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        load(store)


def test_another_artifact_than_expected_is_an_error(store: ObjectStore) -> None:
    save(store, make_artifact())

    with pytest.raises(ArtifactError, match="its digest is"):
        load(store, expected_digest="00" * 32)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'"x"', b'{"formatVersion": 1}', b"\xff"])
def test_invalid_metadata_are_an_error(store: ObjectStore, tmp_path: Path, data: bytes) -> None:
    save(store, make_artifact())
    file_of(tmp_path, ARTIFACT_METADATA).write_bytes(data)

    with pytest.raises(ArtifactError, match="cannot be read"):
        load(store)


def test_metadata_with_a_list_of_exports_are_an_error(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact())
    path = file_of(tmp_path, ARTIFACT_METADATA)
    path.write_bytes(canonical_bytes({**json.loads(path.read_bytes()), "exports": []}))

    with pytest.raises(ArtifactError, match="cannot be read"):
        load(store)


def test_a_later_format_is_an_error_that_says_so(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact())
    file_of(tmp_path, ARTIFACT_METADATA).write_bytes(b'{"formatVersion": 4}')

    with pytest.raises(ArtifactError, match="format version 4; this program reads versions 1 to 3"):
        load(store)


def test_an_artifact_of_format_version_2_keeps_its_digest(store: ObjectStore) -> None:
    digest = save(store, make_artifact(classifier_id=LOCATION.classifier_id))

    assert digest == load(store, expected_digest=digest).digest != make_artifact().digest


def test_an_artifact_names_nothing_of_its_cluster() -> None:
    metadata = make_artifact().to_files()[0]

    assert not [word for word in (LOCATION.classifier_id, LOCATION.namespace) if word.encode() in metadata]


def test_the_artifact_of_another_revision_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact())
    file_of(tmp_path, ARTIFACT_METADATA).write_bytes(make_artifact(revision="9876543210").to_files()[0])

    with pytest.raises(ArtifactError, match="belongs to revision 9876543210 of dogs_1"):
        load(store)


def test_an_artifact_of_format_version_2_of_another_classifier_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_artifact())
    metadata = file_of(tmp_path, ARTIFACT_METADATA)
    metadata.write_bytes(make_artifact(classifier_id="cats_2").to_files()[0])

    with pytest.raises(ArtifactError, match="of cats_2"):
        load(store)


def test_names_and_heads_must_fit() -> None:
    with pytest.raises(ValueError, match="1 class names"):
        make_artifact(class_names=("beagle",))


OUTPUT_HEAD = OutputHead(
    activation=Activation.SIGMOID,
    output_count=3,
    classes=(
        OutputClass(name="barn owl", outputs=(0, 2), ancestors=("owl",), translations={"de": "Schleiereule"}),
        OutputClass(name="日本犬", outputs=(1,)),
        OutputClass(name="owl", outputs=(0, 2)),
        OutputClass(name="nothing", outputs=()),
    ),
)


def make_pretrained_artifact() -> Artifact:
    return make_artifact(heads=OUTPUT_HEAD, class_names=OUTPUT_HEAD.class_names, backbone_place=PartPlace.ARTIFACT, metrics={})


def test_the_artifact_of_a_pretrained_classifier_survives_storage(store: ObjectStore) -> None:
    save(store, make_pretrained_artifact())

    loaded = load(store)

    assert (loaded.heads, loaded.backbone_place) == (OUTPUT_HEAD, PartPlace.ARTIFACT)
    assert loaded.to_files() == make_pretrained_artifact().to_files()


def test_other_programs_can_read_its_classes_and_the_key_of_its_network(store: ObjectStore, tmp_path: Path) -> None:
    save(store, make_pretrained_artifact())

    summary = ArtifactSummary.parse(json.loads(file_of(tmp_path, ARTIFACT_METADATA).read_bytes()))

    assert summary.class_names == ("barn owl", "日本犬", "owl", "nothing")
    assert summary.backbone_place is PartPlace.ARTIFACT


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"activation": "Softmax", "outputCount": 1, "classes": []}'])
def test_a_damaged_head_of_a_pretrained_classifier_is_an_error(store: ObjectStore, tmp_path: Path, data: bytes) -> None:
    save(store, make_pretrained_artifact())
    file_of(tmp_path, OUTPUT_HEAD_FILE).write_bytes(data)

    with pytest.raises(ArtifactError, match=r"head\.json does not have the digest in artifact\.json"):
        load(store)
