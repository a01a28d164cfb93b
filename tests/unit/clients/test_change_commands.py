"""`ocelli relabel`, `rollback`, `approve`, `retrain`, `suspend` and `resume`, over the gateway."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from tests.gateway_harness.stage import NAMESPACE, Stage
from tests.gateway_harness.v3_client import V3Client
from tests.unit.clients.command_line import CommandLine
from tests.unit.clients.photographs import write_images

OLD, NEW = "b" * 10, "a" * 10


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    return write_images(tmp_path, range(1)) / "000.jpg"


def served(stage: Stage, client: V3Client, name: str) -> str:
    """A classifier with an earlier revision in its history, whose artifact is stored."""
    classifier_id = client.created(name)
    history = [{"revision": one, "trainedAt": "2026-05-04T11:50:00.000Z"} for one in (NEW, OLD)]
    stage.finish_training(classifier_id, figures={"history": history})
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=classifier_id)
    stage.run(stage.objects.put(location.artifact_key(OLD, ARTIFACT_METADATA), b"{}"))
    return classifier_id


def read_spec(stage: Stage, classifier_id: str) -> dict[str, object]:
    spec: dict[str, object] = stage.classifier(classifier_id)["spec"]
    return spec


def put_under_manifest(stage: Stage, classifier_id: str) -> None:
    manifest = stage.classifier(classifier_id)
    del manifest["metadata"]["labels"]["ocelli.dev/created-by"]
    stage.put_classifier(manifest)


def test_relabel_writes_corrections_and_nothing_else(
    anna: CommandLine, stage: Stage, client: V3Client, photograph: Path
) -> None:
    classifier_id = client.ready("wrong")
    before = read_spec(stage, classifier_id)
    digest = hashlib.sha256(photograph.read_bytes()).hexdigest()
    run = anna.succeed("relabel", "wrong", str(photograph), "--to", "owl", "--yes", "-o", "json")
    assert run.document["corrections"] == [{"image": digest, "class": "owl"}]
    assert read_spec(stage, classifier_id) == before | {"corrections": [{"image": digest, "class": "owl"}]}


def test_relabel_says_what_will_happen_and_asks(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready("asked")
    run = anna.run("relabel", "asked", "0" * 64, "--drop")
    assert (run.code, run.out) == (2, "")
    assert "repeat the command with --yes" in run.err
    assert "corrections" not in read_spec(stage, classifier_id)


def test_a_dry_run_shows_effect_and_yaml(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready("tried")
    run = anna.succeed("relabel", "tried", "0" * 64, "--drop", "--dry-run")
    effect, _, manifest = run.out.partition("\n\n")
    assert effect
    assert yaml.safe_load(manifest)["spec"]["corrections"] == [{"image": "0" * 64, "class": ""}]
    assert "corrections" not in read_spec(stage, classifier_id)


def test_a_correction_can_be_taken_back(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready("undone")
    anna.succeed("relabel", "undone", "0" * 64, "--drop", "--yes")
    assert anna.succeed("relabel", "undone", "0" * 64, "--undo", "--yes", "-o", "json").document["corrections"] == []
    assert not read_spec(stage, classifier_id).get("corrections")


def test_an_unknown_class_is_refused(anna: CommandLine, client: V3Client) -> None:
    client.ready("strict")
    run = anna.run("relabel", "strict", "0" * 64, "--to", "eagle", "--yes")
    assert (run.code, run.out) == (1, "")
    assert "eagle" in run.err


@pytest.mark.parametrize("options", [(), ("--drop", "--undo"), ("--to", "owl", "--drop")])
def test_relabel_needs_one_thing_to_do(anna: CommandLine, options: tuple[str, ...]) -> None:
    run = anna.run("relabel", "any", "0" * 64, *options)
    assert (run.code, run.out) == (2, "")


def test_an_image_that_is_none_exits_with_2(anna: CommandLine) -> None:
    run = anna.run("relabel", "any", "gone.jpg", "--drop")
    assert (run.code, run.out) == (2, "")
    assert "gone.jpg is neither a SHA-256 nor a file that can be read" in run.err


def test_one_of_a_manifest_gets_the_yaml_to_commit(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    put_under_manifest(stage, client.ready("committed"))
    run = anna.run("relabel", "committed", "0" * 64, "--drop")
    assert (run.code, run.out) == (7, "")
    manifest = run.err.partition("Commit this instead:\n\n")[2]
    assert yaml.safe_load(manifest)["spec"]["corrections"] == [{"image": "0" * 64, "class": ""}]


def test_rollback_serves_the_revision_before(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    classifier_id = served(stage, client, "rolled")
    run = anna.succeed("rollback", "rolled", "--yes")
    assert run.out == f"Revision {OLD} of rolled ({classifier_id}) will serve\n"
    assert read_spec(stage, classifier_id)["pinnedRevision"] == OLD
    assert anna.succeed("rollback", "rolled", "--latest", "-o", "name").out.strip() == classifier_id
    assert "pinnedRevision" not in read_spec(stage, classifier_id)


def test_a_revision_that_is_not_stored_exits_with_3(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    served(stage, client, "lost")
    run = anna.run("rollback", "lost", NEW, "--yes")
    assert (run.code, run.out) == (3, "")
    assert f"has no stored revision {NEW}" in run.err


def test_without_an_earlier_revision_rollback_exits_with_1(anna: CommandLine, client: V3Client) -> None:
    client.ready("first")
    run = anna.run("rollback", "first", "--yes")
    assert (run.code, run.out) == (1, "")
    assert "has no earlier revision that is stored" in run.err


def test_waiting_for_a_rollback_ends_with_the_timeout(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    served(stage, client, "awaited")
    run = anna.run("rollback", "awaited", "--yes", "--wait", "--timeout", "0.3")
    assert (run.code, run.out) == (6, "")


def test_approve_names_the_revision(anna: CommandLine, stage: Stage, client: V3Client) -> None:
    classifier_id = served(stage, client, "gated")
    anna.succeed("approve", "gated", NEW)
    assert read_spec(stage, classifier_id)["approvedRevision"] == NEW
    run = anna.run("approve", "gated", "c" * 10)
    assert (run.code, run.out) == (1, "")


def test_retrain_trains_again(anna: CommandLine, client: V3Client) -> None:
    client.ready("again")
    assert anna.succeed("retrain", "again", "-o", "json").document["status"] == "retraining"
    run = anna.run("retrain", "again")
    assert (run.code, run.out) == (1, "")
    assert "is being trained already" in run.err


def test_suspend_and_resume(anna: CommandLine, client: V3Client) -> None:
    classifier_id = client.ready("paused")
    assert "is suspended" in anna.succeed("suspend", "paused").out
    assert client.get(classifier_id).json()["suspended"] is True
    assert anna.succeed("resume", "paused", "-o", "name").out.strip() == classifier_id
    assert "suspended" not in client.get(classifier_id).json()
