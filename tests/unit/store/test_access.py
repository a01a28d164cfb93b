"""Access rules of the embedded store."""

import pytest

from ocelli_storage.layout import DEFINITION, OUTCOME, ClassifierLocation, orphans_key, owner_key
from ocelli_store.access import Caller, is_folder_of_layout, is_key, is_permitted

OPERATOR = "system:serviceaccount:ocelli-system:ocelli-operator"
ADMINISTRATORS = {OPERATOR}
TENANT = Caller(user_name="system:serviceaccount:team-a:default", may_write=True)
READER = Caller(user_name="system:serviceaccount:team-a:default", may_write=False)
OWN = "tenants/team-a/artifacts/dogs_1/0123456789/artifact.json"


@pytest.mark.parametrize(
    ("key", "writing", "permitted"),
    [
        (OWN, False, True),
        (OWN, True, True),
        ("tenants/team-a", False, True),
        ("backbones/ab/model.onnx", False, True),
        ("backbones", False, True),
        ("backbones/ab/model.onnx", True, False),
        ("tenants/team-b/artifacts/dogs_1/0123456789/artifact.json", False, False),
        ("tenants/team-b/uploads/dogs_1/ab.zip", True, False),
        ("tenants/team-ab/uploads/dogs_1/ab.zip", False, False),
        ("tenants/team-b", False, False),
        ("tenants", False, False),
        ("team-a/uploads", False, False),
        ("backbonesteam", False, False),
    ],
)
def test_tenant_reads_its_own_part_and_backbones(key: str, writing: bool, permitted: bool) -> None:
    assert is_permitted(TENANT, ADMINISTRATORS, key, writing=writing) is permitted


LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")


@pytest.mark.parametrize(
    "key",
    [
        LOCATION.training_key("0123456789", 1, OUTCOME),
        LOCATION.artifact_key("0123456789", "heads.safetensors"),
        LOCATION.definition_key("0123456789"),
        LOCATION.source_key("ab" * 32),
        f"{LOCATION.network_prefix('0123456789')}/backbone.json",
    ],
)
def test_tenant_writes_the_keys_of_trainers(key: str) -> None:
    assert is_permitted(TENANT, ADMINISTRATORS, key, writing=True)


@pytest.mark.parametrize(
    "key",
    [
        "tenants",
        "tenants/team-a",
        "tenants/team-a/x",
        "tenants/team-a/x/dogs_1/0123456789/1/artifact.json",
        "tenants/team-a/artifacts",
        "tenants/team-a/sources/dogs_1",
        "tenants/team-a/artifacts/dogs_1",
        "tenants/team-a/artifacts/dogs_1/0123456789",
        "tenants/team-a/trainings/dogs_1/0123456789/1",
        LOCATION.upload_key("ab" * 32),
    ],
)
def test_tenant_writes_no_other_keys(key: str) -> None:
    assert not is_permitted(TENANT, ADMINISTRATORS, key, writing=True)


@pytest.mark.parametrize(
    ("key", "is_folder"),
    [
        ("tenants", True),
        ("backbones", True),
        ("installation", True),
        ("installation/orphans", True),
        ("tenants/team-a", True),
        ("tenants/team-a/uploads", True),
        ("tenants/team-a/trainings/dogs_1", True),
        (LOCATION.upload_key("ab" * 32), False),
        (LOCATION.training_key("0123456789", 1, DEFINITION), False),
        ("backbones/ab", False),
        (owner_key(), False),
        (orphans_key("uid-1"), False),
        ("backbones/ab/model.onnx", False),
        ("probes/gateway-1", False),
    ],
)
def test_folders_of_the_layout_are_not_keys_of_objects(key: str, is_folder: bool) -> None:
    assert is_folder_of_layout(key) is is_folder


def test_token_for_reading_reads_like_its_tenant() -> None:
    assert is_permitted(READER, ADMINISTRATORS, OWN, writing=False)


def test_a_token_for_reading_writes_nothing() -> None:
    assert not is_permitted(READER, ADMINISTRATORS, OWN, writing=True)


def test_an_administrator_may_write_everywhere() -> None:
    caller = Caller(user_name=OPERATOR, may_write=True)
    assert is_permitted(caller, ADMINISTRATORS, "backbones/ab/model.onnx", writing=True)


def test_namespace_of_the_administrators_does_not_make_an_administrator() -> None:
    caller = Caller(user_name="system:serviceaccount:ocelli-system:default", may_write=True)
    assert not is_permitted(caller, ADMINISTRATORS, OWN, writing=False)


@pytest.mark.parametrize("user_name", ["team-a", "system:node:team-a", "system:serviceaccount:team-a", "system:anonymous", ""])
def test_other_users_than_service_accounts_can_read_nothing(user_name: str) -> None:
    assert not is_permitted(Caller(user_name=user_name, may_write=True), ADMINISTRATORS, OWN, writing=False)


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "/tenants", "tenants/", "tenants//a", "tenants/../team-b", "tenants/team-a/../team-b/x", "./tenants", "a/.",
        "..", "tenants/team-a\\..\\team-b", "tenants/team-a/\0", "tenants/a\nb", "x" * 1025, "tenants/\udc80",
        "tenants/team-a/" + "ü" * 128,
    ],
)  # fmt: skip
def test_unsafe_text_is_not_a_key(text: str) -> None:
    assert not is_key(text)


@pytest.mark.parametrize("text", [OWN, "tenants", "backbones/ab/model.onnx", "tenants/a/uploads/ü_1/x.zip", "a/..b/.c"])
def test_segments_between_single_slashes_are_a_key(text: str) -> None:
    assert is_key(text)
