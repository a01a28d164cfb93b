"""Classifiers by `kubectl apply`: what a user sees at each step, editing, rolling back, deleting."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path

import httpx
import pytest

from tests.product.instance import CHECKOUT, Document, Ocelli, wait_for

pytestmark = pytest.mark.cluster


def build_classifier(name: str, classes: dict[str, str], **spec: object) -> Document:
    """A Classifier with sample zips as examples."""
    return {
        "apiVersion": "ocelli.dev/v1alpha1",
        "kind": "Classifier",
        "metadata": {"name": name},
        "spec": {
            "classes": [{"name": key, "examples": [{"url": f"file:///{file}"}]} for key, file in classes.items()],
            **spec,
        },
    }


TWO_DIGITS = {"zero": "few/zero.zip", "one": "few/one.zip"}
THREE_DIGITS = {**TWO_DIGITS, "two": "few/two.zip"}


def wait_until_ready(ocelli: Ocelli, name: str) -> Document:
    ocelli.kubectl("wait", "--for=condition=Ready", f"classifier/{name}", "--timeout=90s")
    return ocelli.get("classifier", name)


def condition(document: Document, condition_type: str) -> Document:
    # The API server's default of status has no conditions.
    conditions = document.get("status", {}).get("conditions", ())
    return next((item for item in conditions if item["type"] == condition_type), {})


@pytest.mark.parametrize("example", sorted(path.name for path in (CHECKOUT / "crds" / "examples").glob("*.yaml")))
def test_every_example_can_be_applied(ocelli: Ocelli, example: str) -> None:
    ocelli.kubectl("apply", "--dry-run=server", "-f", str(CHECKOUT / "crds" / "examples" / example))


def test_the_examples_with_sample_data_become_ready(ocelli: Ocelli) -> None:
    # Others name addresses or buckets that do not exist here.
    examples = (CHECKOUT / "crds" / "examples").glob("*.yaml")
    manifests = [path for path in examples if not re.search("(https|s3)://", path.read_text())]
    for path in manifests:
        ocelli.kubectl("apply", "-f", str(path))
    for path in manifests:
        ocelli.kubectl("wait", "--for=condition=Ready", "-f", str(path), "--timeout=120s")
    assert len(manifests) == 7


def test_the_readmes_example_becomes_ready_and_reads_well(ocelli: Ocelli) -> None:
    ocelli.kubectl("apply", "-f", str(CHECKOUT / "crds" / "examples" / "digits.yaml"))
    wait_until_ready(ocelli, "digits")
    header, line = ocelli.kubectl("get", "clf", "digits").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "PROGRESS", "ACCURACY", "AGE"]
    assert line.split()[1:3] == ["True", "Served"]


@pytest.fixture(scope="module")
def served(ocelli: Ocelli) -> Document:
    """The manifest of a served Classifier."""
    manifest = build_classifier("served", TWO_DIGITS, negativeExamples=[{"url": "file:///few/other-digits.zip"}])
    ocelli.apply(manifest)
    wait_until_ready(ocelli, "served")
    return manifest


@pytest.fixture
def identity(ocelli: Ocelli, served: Document) -> str:
    """Its id."""
    classifier_id: str = ocelli.get("classifier", served["metadata"]["name"])["status"]["classifierID"]
    return classifier_id


@pytest.mark.usefixtures("served")
def test_describe_shows_events(ocelli: Ocelli) -> None:
    described = wait_for("events", lambda: (text := ocelli.kubectl("describe", "clf", "served")).count("Normal") > 2 and text)
    assert "Events:" in described


def test_a_classifier_made_by_manifest_answers_by_rest(ocelli: Ocelli, client: httpx.Client, identity: str) -> None:
    answer = client.post(
        "/v3/classify",
        files={"images_file": (ocelli.samples / "test-zero.png").read_bytes()},
        data={"classifier_ids": identity},
    ).json()
    assert answer["images"][0]["classifiers"][0]["classes"][0]["class"] == "zero"


def test_rest_cannot_delete_a_manifest_made_classifier(client: httpx.Client, identity: str) -> None:
    assert client.delete(f"/v3/classifiers/{identity}").status_code == 409


def test_rest_can_delete_it_if_the_manifest_allows_it(ocelli: Ocelli, client: httpx.Client) -> None:
    manifest = build_classifier("shared", TWO_DIGITS)
    manifest["metadata"]["annotations"] = {"ocelli.dev/rest-writes": "Allowed"}
    ocelli.apply(manifest)
    identity = wait_for("an id", lambda: ocelli.get("classifier", "shared").get("status", {}).get("classifierID"))
    assert client.delete(f"/v3/classifiers/{identity}").status_code == 200


def test_a_spec_edited_during_training_serves_the_new_revision_and_leaves_no_job_of_the_old(ocelli: Ocelli) -> None:
    ocelli.apply(build_classifier("edited", TWO_DIGITS))
    first = wait_for("a training Job", lambda: ocelli.items("jobs", "ocelli.dev/classifier=edited"))
    ocelli.apply(build_classifier("edited", THREE_DIGITS))
    status = wait_until_settled(ocelli, "edited")
    old_revision = first[0]["metadata"]["labels"]["ocelli.dev/revision"]
    revisions = {
        job["metadata"]["labels"]["ocelli.dev/revision"] for job in ocelli.items("jobs", "ocelli.dev/classifier=edited")
    }
    assert old_revision not in revisions
    assert status["servedRevision"] != old_revision


@pytest.fixture
def first_of_two(ocelli: Ocelli) -> str:
    """The first of two trained revisions of the Classifier `rolled`; the second is served."""
    ocelli.apply(build_classifier("rolled", TWO_DIGITS))
    first: str = wait_until_settled(ocelli, "rolled")["settledRevision"]
    ocelli.apply(build_classifier("rolled", THREE_DIGITS))
    assert wait_until_settled(ocelli, "rolled")["settledRevision"] != first
    return first


def wait_until_settled(ocelli: Ocelli, name: str) -> Document:
    """The status, once the current spec is served."""

    def settled() -> Document | None:
        document = ocelli.get("classifier", name)
        ready = condition(document, "Ready")
        current = ready.get("observedGeneration") == document["metadata"]["generation"]
        return document["status"] if current and ready["status"] == "True" else None

    found = wait_for(f"{name} is settled", settled, 90)
    assert found is not None
    return found


def test_pinning_an_earlier_revision_rolls_back_without_training(ocelli: Ocelli, first_of_two: str) -> None:
    attempts = ocelli.get("classifier", "rolled")["status"]["attempt"]
    ocelli.apply(build_classifier("rolled", THREE_DIGITS, pinnedRevision=first_of_two))
    status = wait_until_settled(ocelli, "rolled")
    assert (status["settledRevision"], status["attempt"]) == (first_of_two, attempts)


def test_reverting_the_manifest_rolls_back_without_training(ocelli: Ocelli, first_of_two: str) -> None:
    attempts = ocelli.get("classifier", "rolled")["status"]["attempt"]
    ocelli.apply(build_classifier("rolled", TWO_DIGITS))
    status = wait_until_settled(ocelli, "rolled")
    assert (status["settledRevision"], status["attempt"]) == (first_of_two, attempts)


def test_deleting_a_classifier_leaves_neither_pods_nor_stored_bytes(ocelli: Ocelli, first_of_two: str) -> None:
    identity = ocelli.get("classifier", "rolled")["status"]["classifierID"]
    ocelli.kubectl("delete", "clf", "rolled")

    def leftovers() -> list[str]:
        # Unlike `rglob`, `walk` ignores folders that vanish meanwhile.
        stored = [f"{parent}/{name}" for parent, _, names in os.walk(ocelli.state_dir / "store") for name in names]
        files = [path for path in stored if identity in path]
        return files + [pod["metadata"]["name"] for pod in ocelli.items("pods", "ocelli.dev/classifier=rolled")]

    wait_for("nothing is left", lambda: not leftovers())


def test_applying_an_unchanged_manifest_again_changes_nothing(ocelli: Ocelli, served: Document) -> None:
    wait_until_settled(ocelli, "served")
    before = ocelli.get("classifier", "served")
    ocelli.apply(copy.deepcopy(served))
    assert ocelli.get("classifier", "served")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@pytest.mark.usefixtures("served")
def test_the_report_is_stored_next_to_the_artifact(ocelli: Ocelli) -> None:
    status = ocelli.get("classifier", "served")["status"]
    folder: Path = ocelli.state_dir / "store/tenants/default/artifacts" / status["classifierID"] / status["servedRevision"]
    assert json.loads((folder / "report.json").read_text())


def test_a_serving_edit_scales_without_leaving_ready(
    ocelli: Ocelli, client: httpx.Client, served: Document, identity: str
) -> None:
    ocelli.apply({**served, "spec": {**served["spec"], "serving": {"replicas": 2}}})
    statuses = set()

    def scaled() -> bool:
        statuses.add(client.get(f"/v3/classifiers/{identity}").json()["status"])
        pods = ocelli.items("pods", "ocelli.dev/classifier=served,ocelli.dev/component=inference")
        return sum(bool(pod["status"].get("containerStatuses", [{}])[0].get("ready")) for pod in pods) == 2

    wait_for("two servers", scaled)
    assert statuses == {"ready"}
