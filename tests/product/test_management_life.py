"""The management API from the first upload to the delete, over HTTP and with real trainings."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from PIL import Image

from tests.product.classifiers import wait_for_status
from tests.product.instance import Document, Ocelli, wait_for

pytestmark = pytest.mark.cluster

ROOT = "/ocelli/v1"
CLASSES = ("zero", "one")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the API says of one revision while it is served."""

    evaluation: Document
    images: Document
    scores: Document
    thumbnails: dict[str, bytes]
    served: Document
    """Every score of a new image, by v3."""

    @property
    def revision(self) -> str:
        found: str = self.evaluation["revision"]
        return found


@dataclass(frozen=True, kw_only=True)
class Life:
    """What a client saw of one classifier."""

    uploaded: int
    """Usable images of all zips."""
    cards: list[Document]
    """Of the events from the create to its end of training, in their order."""
    first: Answers
    moved: str
    """The image that was relabelled as a one."""
    correction: Document
    second: Answers
    listed: Document
    """The relabelled image in the list of the second revision."""
    comparison: Document
    pinned: Document
    """Details once the first revision was pinned and served again."""
    rolled_back: Document
    """Scores of the same new image then."""
    missing: dict[str, int]
    """Statuses of all addresses of the classifier after the delete."""


def call(client: httpx.Client, method: str, path: str, **options: object) -> Document:
    response = client.request(method, ROOT + path, **options)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    body: Document = response.json()
    return body


def upload(client: httpx.Client, ocelli: Ocelli, classifier_id: str) -> tuple[Document, int]:
    """Send a zip for each class. Returns the body that creates the classifier, and the number of images."""
    classes, images = [], 0
    for name in CLASSES:
        content = (ocelli.few_samples / f"{name}.zip").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        images += call(client, "PUT", f"/uploads/{classifier_id}/{digest}", content=content)["images"]
        classes.append({"class": name, "uploads": [digest]})
    return {"classifier_id": classifier_id, "name": "life", "classes": classes}, images


def follow_creation(ocelli: Ocelli, client: httpx.Client, body: Document) -> list[Document]:
    """Create the classifier. Returns the cards that arrive until its training has ended."""
    cards: list[Document] = []
    query = {"classifier_id": body["classifier_id"]}
    with ocelli.client() as listener, listener.stream("GET", f"{ROOT}/events", params=query) as stream:
        lines = (line for line in stream.iter_lines() if not line.startswith(":"))
        assert next(lines) == "event: ready"
        call(client, "POST", "/classifiers", json=body)
        while not cards or cards[-1]["status"] == "training":
            line = next(lines)
            if line.startswith('data: {"classifier_id"'):
                cards.append(json.loads(line.removeprefix("data: ")))
    return cards


def read_answers(client: httpx.Client, ocelli: Ocelli, classifier_id: str) -> Answers:
    address = f"/classifiers/{classifier_id}/revisions/served"
    images = call(client, "GET", f"{address}/images")
    shown = ",".join(item["image"] for item in images["images"][:3])
    thumbnails = call(client, "GET", f"{address}/thumbnails", params={"image": shown})["thumbnails"]
    return Answers(
        evaluation=call(client, "GET", f"{address}/evaluation"),
        images=images,
        scores=call(client, "GET", f"{address}/scores"),
        thumbnails={digest: base64.b64decode(text) for digest, text in thumbnails.items()},
        served=classify(client, ocelli, classifier_id),
    )


def classify(client: httpx.Client, ocelli: Ocelli, classifier_id: str) -> Document:
    files = {"images_file": ("a.png", (ocelli.few_samples / "test-one.png").read_bytes())}
    response = client.post("/v3/classify", data={"classifier_ids": classifier_id, "threshold": "0"}, files=files)
    assert response.status_code == 200, response.text
    return {item["class"]: item["score"] for item in response.json()["images"][0]["classifiers"][0]["classes"]}


def pin(client: httpx.Client, classifier_id: str, revision: str) -> Document:
    """Details once the pinned revision is served."""
    call(client, "POST", f"/classifiers/{classifier_id}/pin", json={"revision": revision})

    def reached() -> Document | None:
        details = call(client, "GET", f"/classifiers/{classifier_id}")
        return details if (details["status"], details.get("served_revision")) == ("ready", revision) else None

    found = wait_for("the pinned revision is served", reached)
    assert found is not None
    return found


def delete(client: httpx.Client, classifier_id: str, *revisions: str) -> dict[str, int]:
    """Delete it. Returns the statuses of its addresses afterwards."""
    revision, other = revisions
    assert client.delete(f"/v3/classifiers/{classifier_id}").status_code == 200
    image = "9f" * 32
    reads = ["", *(f"/revisions/{revision}/{what}" for what in ("evaluation", "images", "scores", "data", f"compare/{other}"))]
    writes = {
        **{f"/{change}": {} for change in ("unpin", "suspend", "resume", "retrain")},
        **{f"/{change}": {"revision": revision} for change in ("approve", "pin")},
        "/corrections": {"corrections": [{"image": image, "class": "one"}]},
        "/examples": {"negative_examples": [image]},
        "/remove": {"classes": ["one"]},
    }
    address = f"{ROOT}/classifiers/{classifier_id}"
    return {
        **{path: client.get(address + path).status_code for path in reads},
        "thumbnails": client.get(f"{address}/revisions/{revision}/thumbnails", params={"image": image}).status_code,
        **{path: client.post(address + path, json=body).status_code for path, body in writes.items()},
    }


@pytest.fixture(scope="module")
def life(ocelli: Ocelli) -> Iterator[Life]:
    with ocelli.client() as client:
        classifier_id: str = call(client, "POST", "/uploads", json={"name": "life"})["classifier_id"]
        body, uploaded = upload(client, ocelli, classifier_id)
        cards = follow_creation(ocelli, client, body)
        first = read_answers(client, ocelli, classifier_id)
        moved: str = next(item["image"] for item in first.images["images"] if item["actual"] == "zero")
        corrections = {"corrections": [{"image": moved, "class": "one"}]}
        correction = call(client, "POST", f"/classifiers/{classifier_id}/corrections", json=corrections)
        wait_for_status(client, classifier_id)
        second = read_answers(client, ocelli, classifier_id)
        comparison = call(client, "GET", f"/classifiers/{classifier_id}/revisions/{second.revision}/compare/{first.revision}")
        yield Life(
            uploaded=uploaded,
            cards=cards,
            first=first,
            moved=moved,
            correction=correction,
            second=second,
            listed=next(item for item in second.images["images"] if item["image"] == moved),
            comparison=comparison,
            pinned=pin(client, classifier_id, first.revision),
            rolled_back=classify(client, ocelli, classifier_id),
            missing=delete(client, classifier_id, first.revision, second.revision),
        )


def test_events_show_the_training_with_its_progress_until_it_is_ready(life: Life) -> None:
    assert [card["status"] for card in life.cards] == ["training"] * (len(life.cards) - 1) + ["ready"]
    assert any("progress" in card for card in life.cards[:-1])


def test_the_card_at_the_end_names_the_served_revision_and_its_accuracy(life: Life) -> None:
    assert life.cards[-1]["served_revision"] == life.first.revision
    # Status has three decimals.
    measured = {name: round(value, 3) for name, value in life.first.evaluation["accuracy"].items()}
    assert life.cards[-1]["accuracy"] == measured


def test_every_uploaded_image_is_judged_and_listed_with_scores(life: Life) -> None:
    first = life.first
    assert first.evaluation["images"] == first.images["total"] == len(first.scores["scores"]) == life.uploaded
    assert all(set(item["scores"]) == set(CLASSES) for item in first.images["images"])


def test_the_confusion_matrix_counts_the_listed_images(life: Life) -> None:
    listed = [(item["actual"], item["predicted"]) for item in life.first.images["images"]]
    cells = {(cell["actual"], cell["predicted"]): cell["images"] for cell in life.first.evaluation["confusion"]}
    assert cells == {cell: listed.count(cell) for cell in listed}


def test_thumbnails_are_jpegs_of_the_images_asked_for(life: Life) -> None:
    asked = [item["image"] for item in life.first.images["images"][:3]]
    assert sorted(life.first.thumbnails) == sorted(asked)
    assert {Image.open(io.BytesIO(content)).format for content in life.first.thumbnails.values()} == {"JPEG"}


def test_a_correction_trains_the_revision_that_it_announced(life: Life) -> None:
    assert (life.correction["applied"], life.correction["revision"]) == (True, life.second.revision)
    assert life.second.revision != life.first.revision


def test_the_corrected_image_is_judged_as_its_new_class(life: Life) -> None:
    assert (life.listed["actual"], life.listed["correction"]) == ("one", "one")


def test_both_revisions_are_compared_image_by_image(life: Life) -> None:
    comparison = life.comparison
    assert (comparison["revision"], comparison["other"]) == (life.second.revision, life.first.revision)
    assert comparison["images"] == life.uploaded


def test_the_pinned_revision_answers_with_its_scores_again(life: Life) -> None:
    assert life.pinned["pinned_revision"] == life.first.revision
    assert life.second.served != life.first.served
    assert life.rolled_back == life.first.served


def test_after_the_delete_every_address_is_404(life: Life) -> None:
    assert set(life.missing.values()) == {404}, life.missing
