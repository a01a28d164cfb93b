"""Retention of images: with the learning opt-out they are deleted after training; erased ones are not trained on again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.product.classifiers import create, sample_files, wait_for_status
from tests.product.instance import VERSION, Document, Ocelli, wait_for

pytestmark = pytest.mark.cluster

CUSTOMER = {"X-Watson-Metadata": "customer_id=jane"}


def uploads(ocelli: Ocelli, identity: str) -> list[Path]:
    return list((ocelli.state_dir / "store" / "tenants" / "default" / "uploads" / identity).glob("*.zip"))


def test_opted_out_images_are_deleted_after_their_training(ocelli: Ocelli, client: httpx.Client) -> None:
    identity = create(client, ocelli, headers={"X-Watson-Learning-Opt-Out": "true"})
    assert len(uploads(ocelli, identity)) == 2
    wait_for_status(client, identity)
    wait_for("the uploads are gone", lambda: not uploads(ocelli, identity))
    image = [("images_file", ("a.png", (ocelli.samples / "test-one.png").read_bytes()))]
    answer = client.post("/v3/classify", data={"classifier_ids": identity}, files=image).json()
    assert [item["class"] for item in answer["images"][0]["classifiers"][0]["classes"]] == ["one"]
    client.delete(f"/v3/classifiers/{identity}")


@dataclass(frozen=True, kw_only=True)
class Erasures:
    """What a client sees of a classifier from which the images of a customer are erased twice."""

    uploads: int
    """Stored zips after the first erasure."""
    before: Document
    after: Document
    """Its details around the first erasure."""
    new_jobs: set[str]
    """Training Jobs that the first erasure started."""
    retrained: Document
    """Its details after the next retrain."""
    failed: Document
    """Its details after a retrain that follows the second erasure, which left a class without images."""


@pytest.fixture(scope="module")
def erasures(ocelli: Ocelli) -> Iterator[Erasures]:
    with ocelli.client() as client:
        identity = create(client, ocelli)
        wait_for_status(client, identity)

        def retrain(status: str = "ready", headers: dict[str, str] | None = None, **sets: str) -> Document:
            answer = client.post(f"/v3/classifiers/{identity}", files=sample_files(ocelli, sets), headers=headers)
            assert answer.status_code == 200, answer.text
            return wait_for_status(client, identity, status)

        def erase() -> None:
            assert client.delete("/v3/user_data", params={**VERSION, "customer_id": "jane"}).status_code == 202

        def jobs() -> set[str]:
            return {item["metadata"]["name"] for item in ocelli.items("jobs", f"ocelli.dev/classifier-id={identity}")}

        before = retrain(headers=CUSTOMER, one_positive_examples="more-ones.zip")
        jobs_before = jobs()
        erase()
        uploaded, after, new_jobs = (
            uploads(ocelli, identity),
            client.get(f"/v3/classifiers/{identity}").json(),
            jobs() - jobs_before,
        )
        retrained = retrain(headers=CUSTOMER, two_positive_examples="two.zip")
        erase()
        yield Erasures(
            uploads=len(uploaded),
            before=before,
            after=after,
            new_jobs=new_jobs,
            retrained=retrained,
            failed=retrain("failed", zero_positive_examples="other-digits.zip"),
        )
        client.delete(f"/v3/classifiers/{identity}")


def test_erasing_images_deletes_them_and_retrains_nothing(erasures: Erasures) -> None:
    assert (erasures.uploads, erasures.after, erasures.new_jobs) == (2, erasures.before, set())


def test_a_retrain_after_an_erasure_trains_without_the_erased_images(erasures: Erasures) -> None:
    assert erasures.retrained["retrained"] > erasures.before["retrained"]


def test_a_class_whose_images_were_all_erased_fails_the_next_training_with_a_remedy(erasures: Erasures) -> None:
    explanation = erasures.failed["explanation"]
    assert 'class "two" has 0 different examples left after others were erased on request' in explanation
    assert "add at least 10" in explanation
