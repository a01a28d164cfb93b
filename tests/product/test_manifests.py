"""The same life by `kubectl apply`: what a user sees at each step, editing, rolling back, deleting."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import httpx
import pytest

from tests.product.instance import CHECKOUT, Document, Ocelli, wait_for

pytestmark = pytest.mark.cluster


def build_classifier(name: str, classes: dict[str, str], **spec: object) -> Document:
    """A Classifier whose classes learn from sample zips."""
    return {
        "apiVersion": "ocelli.dev/v1alpha1",
        "kind": "Classifier",
        "metadata": {"name": name},
        "spec": {
            "classes": [{"name": key, "examples": [{"url": f"file:///{file}"}]} for key, file in classes.items()],
            **spec,
        },
    }


TWO_DIGITS = {"zero": "zero.zip", "one": "one.zip"}
THREE_DIGITS = {**TWO_DIGITS, "two": "two.zip"}


def wait_until_ready(ocelli: Ocelli, name: str) -> Document:
    ocelli.kubectl("wait", "--for=condition=Ready", f"classifier/{name}", "--timeout=90s")
    return ocelli.get("classifier", name)


def condition(document: Document, condition_type: str) -> Document:
    return next((item for item in document["status"]["conditions"] if item["type"] == condition_type), {})


@pytest.mark.parametrize("example", sorted(path.name for path in (CHECKOUT / "crds" / "examples").glob("*.yaml")))
def test_every_example_can_be_applied(ocelli: Ocelli, example: str) -> None:
    ocelli.kubectl("apply", "--dry-run=server", "-f", str(CHECKOUT / "crds" / "examples" / example))


def test_the_examples_that_learn_from_samples_become_ready(ocelli: Ocelli) -> None:
    # The pinned one names addresses that only its readers have.
    manifests = [path for path in (CHECKOUT / "crds" / "examples").glob("*.yaml") if "https://" not in path.read_text()]
    for path in manifests:
        ocelli.kubectl("apply", "-f", str(path))
    for path in manifests:
        ocelli.kubectl("wait", "--for=condition=Ready", "-f", str(path), "--timeout=120s")
    assert len(manifests) == 6


def test_the_readmes_example_becomes_ready_and_reads_well(ocelli: Ocelli) -> None:
    ocelli.kubectl("apply", "-f", str(CHECKOUT / "crds" / "examples" / "digits.yaml"))
    wait_until_ready(ocelli, "digits")
    header, line = ocelli.kubectl("get", "clf", "digits").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "AVAILABLE", "PROGRESS", "ACCURACY", "REVISION", "AGE"]
    assert line.split()[1:4] == ["True", "Served", "True"]


def test_describe_tells_the_story_in_events(ocelli: Ocelli) -> None:
    ocelli.apply(build_classifier("story", TWO_DIGITS))
    wait_until_ready(ocelli, "story")
    described = wait_for("events", lambda: (text := ocelli.kubectl("describe", "clf", "story")).count("Normal") > 2 and text)
    assert "Events:" in described


def test_a_classifier_made_by_manifest_answers_by_rest(ocelli: Ocelli, client: httpx.Client) -> None:
    ocelli.apply(build_classifier("by-manifest", TWO_DIGITS, negativeExamples=[{"url": "file:///other-digits.zip"}]))
    identity = wait_until_ready(ocelli, "by-manifest")["status"]["classifierID"]
    answer = client.post(
        "/v3/classify",
        files={"images_file": (ocelli.samples / "test-zero.png").read_bytes()},
        data={"classifier_ids": identity},
    ).json()
    assert answer["images"][0]["classifiers"][0]["classes"][0]["class"] == "zero"


def test_rest_may_not_delete_what_a_manifest_made(ocelli: Ocelli, client: httpx.Client) -> None:
    ocelli.apply(build_classifier("guarded", TWO_DIGITS))
    identity = wait_until_ready(ocelli, "guarded")["status"]["classifierID"]
    assert client.delete(f"/v3/classifiers/{identity}").status_code == 409


def test_rest_may_delete_it_where_its_author_allows_that(ocelli: Ocelli, client: httpx.Client) -> None:
    manifest = build_classifier("shared", TWO_DIGITS)
    manifest["metadata"]["annotations"] = {"ocelli.dev/rest-writes": "Allowed"}
    ocelli.apply(manifest)
    identity = wait_until_ready(ocelli, "shared")["status"]["classifierID"]
    assert client.delete(f"/v3/classifiers/{identity}").status_code == 200


def test_a_spec_edited_while_its_job_runs_serves_the_new_revision_and_no_job_of_the_old_is_left(ocelli: Ocelli) -> None:
    ocelli.apply(build_classifier("edited", TWO_DIGITS))
    first = wait_for("a training Job", lambda: ocelli.items("jobs", "ocelli.dev/classifier=edited"))
    ocelli.apply(build_classifier("edited", THREE_DIGITS))
    settled = wait_for(
        "the new revision is served",
        lambda: (
            (document := ocelli.get("classifier", "edited"))
            and document["status"].get("observedGeneration") == document["metadata"]["generation"]
            and condition(document, "Ready").get("status") == "True"
            and document
        ),
        90,
    )
    old_revision = first[0]["metadata"]["labels"]["ocelli.dev/revision"]
    revisions = {
        job["metadata"]["labels"]["ocelli.dev/revision"] for job in ocelli.items("jobs", "ocelli.dev/classifier=edited")
    }
    assert old_revision not in revisions
    assert settled["status"]["servedRevision"] != old_revision


def test_pinning_an_earlier_revision_rolls_back_without_training(ocelli: Ocelli) -> None:
    ocelli.apply(build_classifier("pinned", TWO_DIGITS))
    first = wait_until_ready(ocelli, "pinned")["status"]["servedRevision"]
    ocelli.apply(build_classifier("pinned", THREE_DIGITS))
    wait_for("the second revision", lambda: ocelli.get("classifier", "pinned")["status"].get("settledRevision") != first, 90)
    attempts = ocelli.get("classifier", "pinned")["status"]["attempt"]
    ocelli.apply(build_classifier("pinned", THREE_DIGITS, pinnedRevision=first))
    wait_for("the first revision", lambda: ocelli.get("classifier", "pinned")["status"].get("settledRevision") == first, 60)
    assert ocelli.get("classifier", "pinned")["status"]["attempt"] == attempts


def test_reverting_the_manifest_rolls_back_without_training(ocelli: Ocelli) -> None:
    two, three = build_classifier("reverted", TWO_DIGITS), build_classifier("reverted", THREE_DIGITS)
    ocelli.apply(two)
    first = wait_until_ready(ocelli, "reverted")["status"]["servedRevision"]
    ocelli.apply(three)
    wait_for("the second revision", lambda: ocelli.get("classifier", "reverted")["status"].get("settledRevision") != first, 90)
    attempts = ocelli.get("classifier", "reverted")["status"]["attempt"]
    ocelli.apply(two)
    wait_for("the first revision", lambda: ocelli.get("classifier", "reverted")["status"].get("settledRevision") == first, 60)
    assert ocelli.get("classifier", "reverted")["status"]["attempt"] == attempts


def test_deleting_a_classifier_leaves_neither_pods_nor_stored_bytes(ocelli: Ocelli) -> None:
    ocelli.apply(build_classifier("gone", TWO_DIGITS))
    identity = wait_until_ready(ocelli, "gone")["status"]["classifierID"]
    ocelli.kubectl("delete", "clf", "gone")

    def leftovers() -> list[str]:
        # Unlike `rglob`, `walk` does not mind folders that go while it looks.
        stored = [f"{parent}/{name}" for parent, _, names in os.walk(ocelli.state_dir / "store") for name in names]
        files = [path for path in stored if identity in path]
        return files + [pod["metadata"]["name"] for pod in ocelli.items("pods", "ocelli.dev/classifier=gone")]

    wait_for("nothing is left", lambda: not leftovers())


def test_a_serving_edit_scales_without_leaving_ready(ocelli: Ocelli, client: httpx.Client) -> None:
    ocelli.apply(build_classifier("scaled", TWO_DIGITS))
    identity = wait_until_ready(ocelli, "scaled")["status"]["classifierID"]
    ocelli.apply(build_classifier("scaled", TWO_DIGITS, serving={"replicas": 2}))
    statuses = set()

    def scaled() -> bool:
        statuses.add(client.get(f"/v3/classifiers/{identity}").json()["status"])
        pods = ocelli.items("pods", "ocelli.dev/classifier=scaled,ocelli.dev/component=inference")
        return sum(bool(pod["status"].get("containerStatuses", [{}])[0].get("ready")) for pod in pods) == 2

    wait_for("two servers", scaled)
    assert statuses == {"ready"}


def test_applying_an_unchanged_manifest_again_changes_nothing(ocelli: Ocelli) -> None:
    manifest = build_classifier("same", TWO_DIGITS)
    ocelli.apply(manifest)
    before = wait_until_ready(ocelli, "same")
    ocelli.apply(copy.deepcopy(manifest))
    assert ocelli.get("classifier", "same")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_the_report_of_a_training_lies_beside_its_artifact(ocelli: Ocelli) -> None:
    ocelli.apply(build_classifier("reported", TWO_DIGITS))
    status = wait_until_ready(ocelli, "reported")["status"]
    folder: Path = ocelli.state_dir / "store/tenants/default/artifacts" / status["classifierID"] / status["servedRevision"]
    assert json.loads((folder / "report.json").read_text())
