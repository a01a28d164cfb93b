"""What becomes of images: opted out they go with their training, erased ones are learned from no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.product.instance import VERSION, Ocelli, wait_for

pytestmark = pytest.mark.cluster

CUSTOMER = {"X-Watson-Metadata": "customer_id=somebody"}


def files(ocelli: Ocelli, **sets: str) -> list[tuple[str, tuple[str, bytes]]]:
    return [(part, (name, (ocelli.few_samples / name).read_bytes())) for part, name in sets.items()]


def create(client: httpx.Client, ocelli: Ocelli, name: str, **headers: str) -> str:
    sets = files(ocelli, zero_positive_examples="zero.zip", one_positive_examples="one.zip")
    response = client.post("/v3/classifiers", data={"name": name}, files=sets, headers=headers)
    assert response.status_code == 200, response.text
    identity: str = response.json()["classifier_id"]
    return identity


def wait_until(client: httpx.Client, identity: str, status: str) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        body: dict[str, Any] = client.get(f"/v3/classifiers/{identity}").json()
        assert body["status"] != "failed" or status == "failed", body
        return body if body["status"] == status else None

    found = wait_for(f"{identity} is {status}", reached)
    assert found is not None
    return found


def uploads(ocelli: Ocelli, identity: str) -> list[Path]:
    return list((ocelli.state_dir / "store" / "tenants" / "default" / "uploads" / identity).glob("*.zip"))


def test_opted_out_images_go_when_their_training_has_ended(ocelli: Ocelli, client: httpx.Client) -> None:
    identity = create(client, ocelli, "optout", **{"X-Watson-Learning-Opt-Out": "true"})
    assert len(uploads(ocelli, identity)) == 2
    wait_until(client, identity, "ready")
    wait_for("the uploads are gone", lambda: not uploads(ocelli, identity))
    image = [("images_file", ("a.png", (ocelli.samples / "test-one.png").read_bytes()))]
    answer = client.post("/v3/classify", data={"classifier_ids": identity}, files=image).json()
    assert [item["class"] for item in answer["images"][0]["classifiers"][0]["classes"]] == ["one"]
    client.delete(f"/v3/classifiers/{identity}")


def test_erased_images_are_learned_from_no_more_and_nothing_is_retrained(ocelli: Ocelli, client: httpx.Client) -> None:
    identity = create(client, ocelli, "erasure")
    wait_until(client, identity, "ready")
    more = files(ocelli, one_positive_examples="more-ones.zip")
    assert client.post(f"/v3/classifiers/{identity}", files=more, headers=CUSTOMER).status_code == 200
    before = wait_until(client, identity, "ready")
    jobs = {item["metadata"]["name"] for item in ocelli.items("jobs", f"ocelli.dev/classifier-id={identity}")}
    response = client.delete("/v3/user_data", params={**VERSION, "customer_id": "somebody"})
    assert response.status_code == 202
    assert len(uploads(ocelli, identity)) == 2
    # The next training passes over what is gone, and nothing else had caused one.
    two = files(ocelli, two_positive_examples="two.zip")
    assert client.get(f"/v3/classifiers/{identity}").json() == before
    assert {item["metadata"]["name"] for item in ocelli.items("jobs", f"ocelli.dev/classifier-id={identity}")} <= jobs
    assert client.post(f"/v3/classifiers/{identity}", files=two).status_code == 200
    assert wait_until(client, identity, "ready")["retrained"] > before["retrained"]
    client.delete(f"/v3/classifiers/{identity}")


def test_class_whose_images_were_all_erased_fails_its_next_training_with_a_remedy(ocelli: Ocelli, client: httpx.Client) -> None:
    identity = create(client, ocelli, "emptied")
    wait_until(client, identity, "ready")
    two = files(ocelli, two_positive_examples="two.zip")
    client.post(f"/v3/classifiers/{identity}", files=two, headers=CUSTOMER)
    wait_until(client, identity, "ready")
    client.delete("/v3/user_data", params={**VERSION, "customer_id": "somebody"})
    client.post(f"/v3/classifiers/{identity}", files=files(ocelli, one_positive_examples="more-ones.zip"))
    explanation = wait_until(client, identity, "failed")["explanation"]
    assert 'class "two" has 0 different examples left after others were erased' in explanation
    assert "add at least 10" in explanation
    client.delete(f"/v3/classifiers/{identity}")
