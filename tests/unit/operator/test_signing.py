"""Which artifact a server may serve: what the operator says about digests and signatures to the programs it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ocelli_api.classifier import Manifest
from ocelli_api.settings import SettingsError, load_settings
from ocelli_operator.manifests.training_job import Attempt, build_training_job
from ocelli_operator.observed import ChildKind
from ocelli_operator.settings import ChildSettings
from tests.golden.test_manifests import REVISION, make_owner
from tests.unit.operator.factories import World, find_applied, settled_world

PUBLIC_KEY = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
SIGNING = {
    "OCELLI_STORE_URL": "file:///store",
    "OCELLI_SIGNING_SECRET": "ocelli-signing",
    "OCELLI_SIGNING_PUBLIC_KEYS": PUBLIC_KEY,
}


def variables(manifest: Manifest) -> dict[str, Any]:
    """The environment of the only container of a Job or Deployment: values, or references."""
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def trained_world(**environment: str) -> World:
    """The first revision is trained, and nothing is rolled out yet."""
    world = World()
    world.settings = load_settings(ChildSettings, {"OCELLI_STORE_URL": "file:///store", **environment})
    world.step()
    world.learn()
    return world


def deployment_of(world: World) -> dict[str, Any]:
    (manifest,) = find_applied(world.plan(), ChildKind.DEPLOYMENT)
    return variables(manifest)


def test_a_server_gets_the_digest_of_the_artifact_that_was_trained() -> None:
    assert deployment_of(trained_world())["OCELLI_ARTIFACT_DIGEST"] == "d" * 64


def test_a_server_is_not_replaced_when_the_artifact_gets_into_the_history() -> None:
    world = trained_world()
    (first,) = find_applied(world.step(), ChildKind.DEPLOYMENT)
    assert world.status.history
    world.see(artifact=None)
    assert find_applied(world.plan(), ChildKind.DEPLOYMENT) == []
    assert variables(first)["OCELLI_ARTIFACT_DIGEST"] == "d" * 64


def test_a_server_is_replaced_when_a_lost_artifact_was_trained_again() -> None:
    world = settled_world()
    (entry,) = world.status.history
    again = replace(entry, artifact_digest="e" * 64)
    world.see(artifact=again)
    assert deployment_of(world)["OCELLI_ARTIFACT_DIGEST"] == "e" * 64


def test_a_server_gets_the_public_keys_and_never_the_private_one() -> None:
    found = deployment_of(trained_world(**SIGNING))
    assert found["OCELLI_SIGNING_PUBLIC_KEYS"] == PUBLIC_KEY
    assert "OCELLI_SIGNING_KEY" not in found


def test_a_trainer_gets_its_key_from_the_secret() -> None:
    job = build_training_job(make_owner(), load_settings(ChildSettings, SIGNING), Attempt(revision=REVISION, number=1))
    assert variables(job)["OCELLI_SIGNING_KEY"] == {"secretKeyRef": {"name": "ocelli-signing", "key": "key.pem"}}
    assert variables(job)["OCELLI_SIGNING_PUBLIC_KEYS"] == PUBLIC_KEY


def test_public_keys_without_a_key_to_sign_with_are_refused() -> None:
    with pytest.raises(SettingsError, match="set OCELLI_SIGNING_SECRET to the Secret with the private key"):
        load_settings(ChildSettings, {**SIGNING, "OCELLI_SIGNING_SECRET": ""})


def test_a_text_that_is_not_a_public_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="is not a public key of Ed25519"):
        load_settings(ChildSettings, {**SIGNING, "OCELLI_SIGNING_PUBLIC_KEYS": f"{PUBLIC_KEY},abc"})
