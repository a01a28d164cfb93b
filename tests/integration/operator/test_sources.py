"""Sources with credentials, polls and corrections on a real control plane.

Only the trainer can read the Secret.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocelli_api.classifier import Manifest
from tests.documented_commands import bash_blocks
from tests.integration.operator.scene import Scene
from tests.integration.operator.sources import LOGIN

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

SECRET = "reads-examples"


@pytest.fixture(autouse=True)
def forgotten(scene: Scene) -> None:
    """The server of the sources serves all tests of this process."""
    scene.sources.authorizations.clear()


def build_private(scene: Scene, *, secret: str | None = SECRET) -> Manifest:
    manifest = scene.build()
    for item in manifest["spec"]["classes"]:
        (source,) = item["examples"]
        source["url"] = source["url"].replace(scene.sources.address, f"{scene.sources.address}/private")
        if secret is not None:
            source["secretRef"] = {"name": secret}
    return manifest


def create_secret(scene: Scene, hosts: str, name: str = SECRET, **values: str) -> None:
    keys = {"username": LOGIN[0], "password": LOGIN[1], **values, "hosts": hosts}
    metadata = {"name": name}
    scene.apply({"apiVersion": "v1", "kind": "Secret", "type": "ocelli.dev/source", "metadata": metadata, "stringData": keys})


def wait_for_failure(scene: Scene) -> str:
    condition: dict[str, Any] = scene.wait_for_condition("Stalled", "SourceUnreadable")
    return str(condition["message"])


def test_private_examples_are_read_with_a_secret_that_the_documented_command_makes(scene: Scene) -> None:
    (command,) = bash_blocks("docs/sources.md", "Credentials")
    scene.run(command, DATA_HOST=scene.sources.address, DATA_USER=LOGIN[0], DATA_PASSWORD=LOGIN[1])
    scene.apply(build_private(scene, secret="data-login"))
    scene.wait_until_ready()
    assert len(scene.sources.authorizations) == 1
    status = str(scene.get())
    assert LOGIN[1] not in status


def test_a_secret_for_another_host_is_not_sent(scene: Scene) -> None:
    create_secret(scene, "https://data.example.com")
    scene.apply(build_private(scene))
    message = wait_for_failure(scene)
    assert f'Secret "{SECRET}" does not list its host in the key hosts' in message
    assert scene.sources.authorizations == set()


def test_a_missing_secret_is_named_and_a_later_one_is_used(scene: Scene) -> None:
    scene.apply(build_private(scene))
    message = wait_for_failure(scene)
    assert f'Secret "{SECRET}" does not exist in namespace {scene.namespace}' in message
    create_secret(scene, scene.sources.address)
    scene.patch('{"spec": {"retrainNonce": 1}}')
    scene.wait_until_ready()


def test_a_secret_of_another_purpose_is_not_mounted(scene: Scene) -> None:
    scene.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}, "stringData": {"api-key": "of-something-else"}}
    )
    scene.apply(build_private(scene, secret="other"))
    assert "has none of the keys for sources" in wait_for_failure(scene)


def test_what_the_first_poll_sees_is_in_the_revision_that_is_trained(scene: Scene) -> None:
    scene.apply(scene.build(pollInterval="1h"))
    status = scene.wait_until_ready()
    assert status["observedSources"]["digest"]
    assert "fault" not in status["observedSources"]
    assert len(scene.jobs()) == 1
    # The images are the same without polls.
    scene.apply(scene.build())
    assert scene.wait_until_ready()["servedRevision"] == status["servedRevision"]
    assert len(scene.jobs()) == 1


# --- corrections


def build_mixed(scene: Scene, **spec: Any) -> Manifest:
    """Its blue examples contain a red and a green image."""
    manifest = scene.build(**spec)
    manifest["spec"]["classes"][1]["examples"] = [{"url": f"{scene.sources.address}/mixed.zip"}]
    return manifest


def load_report(scene: Scene, revision: str) -> dict[str, Any]:
    (path,) = [path for path in scene.stored() if path.endswith(f"/{revision}/report.json")]
    report: dict[str, Any] = json.loads((scene.store_folder / "tenants" / scene.namespace / path).read_bytes())
    return report


def describe_data(scene: Scene, revision: str) -> dict[str, Any]:
    """What the report says about the examples of each class, and about corrections."""
    data = load_report(scene, revision)["data"]
    return {"images": {item["class"]: item["distinct"] for item in data["sets"]}, **data["corrections"]}


def test_corrections_change_single_images_and_outlast_a_retrain(scene: Scene) -> None:
    scene.apply(build_mixed(scene))
    revisions = [scene.wait_until_ready()["servedRevision"]]
    unknown = "0" * 64
    corrections = [
        {"image": scene.sources.red_digest, "class": "red"},
        {"image": scene.sources.green_digest, "class": ""},
        {"image": unknown, "class": "blue"},
    ]
    scene.patch(json.dumps({"spec": {"corrections": corrections}}))
    revisions.append(scene.wait_until_ready()["servedRevision"])
    scene.patch('{"spec": {"retrainNonce": 1}}')
    revisions.append(scene.wait_until_ready()["servedRevision"])
    assert len(set(revisions)) == 3
    none = {"relabelled": 0, "dropped": 0, "unchanged": 0, "unknownCount": 0, "unknown": []}
    corrected = {"relabelled": 1, "dropped": 1, "unchanged": 0, "unknownCount": 1, "unknown": [unknown]}
    assert [describe_data(scene, revision) for revision in revisions] == [
        {"images": {"red": 12, "blue": 14}, **none},
        {"images": {"red": 13, "blue": 12}, **corrected},
        {"images": {"red": 13, "blue": 12}, **corrected},
    ]


def test_the_report_names_images_to_correct_by_their_digests(scene: Scene) -> None:
    scene.apply(build_mixed(scene))
    data = load_report(scene, scene.wait_until_ready()["servedRevision"])["data"]
    suspects = {item["sha256"]: item["suggestedClass"] for item in data["suspectedLabelErrors"]}
    assert suspects.get(scene.sources.red_digest) == "red"
