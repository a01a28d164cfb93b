"""The built-in classifiers that `make run` installs: from a condition that says how to supply weights to answers by v3."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.networks import onnx_bytes
from tests.product.instance import Document, Ocelli, connect, start_ocelli, stop_ocelli, wait_for

pytestmark = pytest.mark.cluster

NAMESPACE = "ocelli-system"
FOOD = {
    "labels.txt": "tomato\nspinach\nblueberry\n",
    "hierarchy.txt": "/food/fruit/tomato\n/food/berry/blueberry\n/food/vegetable/spinach\n",
    "translations.json": json.dumps({"de": {"tomato": "Tomate", "fruit": "Obst", "food": "Essen", "non-food": "kein Essen"}}),
}
PLAIN = {"mean": [0.4, 0.4, 0.4], "standardDeviation": [1, 1, 1]}


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built-ins") / "state"


@pytest.fixture(scope="module")
def ocelli(state_dir: Path) -> Iterator[Ocelli]:
    """An instance with `food` and `explicit`; `default` would look for its weights on the network."""
    process = start_ocelli(state_dir, state_dir.with_suffix(".log"), BUILT_INS="food explicit")
    try:
        yield connect(state_dir, process)
    finally:
        stop_ocelli(process)


def get(ocelli: Ocelli, name: str) -> Document:
    document: Document = json.loads(ocelli.kubectl("-n", NAMESPACE, "get", "clf", name, "-o", "json"))
    return document


def stalled_message(ocelli: Ocelli, name: str) -> str:
    def found() -> str:
        conditions = get(ocelli, name).get("status", {}).get("conditions", [])
        return next((item["message"] for item in conditions if item["type"] == "Stalled"), "")

    return wait_for(f"{name} is stalled", found)


def classify(client: httpx.Client, colour: tuple[int, int, int], language: str = "en") -> Document:
    """What `food` answers for an image of one colour, by class."""
    image = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(image, "PNG")
    answer = client.post(
        "/v3/classify",
        files={"images_file": ("plate.png", image.getvalue())},
        data={"classifier_ids": "food", "threshold": "0.5"},
        headers={"Accept-Language": language},
    ).json()
    (classifier,) = answer["images"][0]["classifiers"]
    return {item["class"]: item for item in classifier["classes"]}


def supply_food(ocelli: Ocelli) -> None:
    """What the condition asks for."""
    folder = ocelli.samples / "food"
    folder.mkdir(exist_ok=True)
    (folder / "network.onnx").write_bytes(onnx_bytes())
    for name, text in FOOD.items():
        (folder / name).write_text(text)
    patch = {"spec": {"retrainNonce": 1, "pretrained": {"images": PLAIN}}}
    ocelli.kubectl("-n", NAMESPACE, "patch", "clf", "food", "--type=merge", "-p", json.dumps(patch))
    ocelli.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "clf/food", "--timeout=90s")


def test_without_weights_the_condition_says_what_to_put_where(ocelli: Ocelli) -> None:
    for name in ("food", "explicit"):
        message = stalled_message(ocelli, name)
        assert message.startswith(f"Classifier {NAMESPACE}/{name}: weights file:///{name}/: there is no such folder")
        assert f"labels.txt into it: {ocelli.samples / name}, as the trainer sees it" in message
        assert message.endswith("; then raise spec.retrainNonce to have it tried again")
        assert message in ocelli.kubectl("-n", NAMESPACE, "describe", "clf", name)


def test_those_that_are_not_named_are_not_installed(ocelli: Ocelli) -> None:
    names = ocelli.kubectl("-n", NAMESPACE, "get", "clf", "-o", "name").split()
    assert sorted(names) == ["classifier.ocelli.dev/explicit", "classifier.ocelli.dev/food"]


@pytest.mark.contract_row("B4/food adds non-food when nothing edible is seen; explicit")
def test_food_answers_by_its_name_once_it_has_weights(ocelli: Ocelli) -> None:
    stalled_message(ocelli, "food")
    supply_food(ocelli)
    with ocelli.client() as client:
        wait_for("the gateway answers for food", lambda: classify(client, (250, 0, 0)))
        classes = classify(client, (250, 0, 0))
        assert set(classes) == {"tomato", "fruit", "food"}
        assert classes["tomato"]["type_hierarchy"] == "/food/fruit/tomato"
        # As much of each: none of them.
        assert set(classify(client, (120, 120, 120))) == {"non-food"}
        german = classify(client, (250, 0, 0), "de-AT,de;q=0.9")
        assert german["Tomate"]["type_hierarchy"] == "/Essen/Obst/Tomate"


def test_one_that_is_there_is_left_as_its_user_changed_it(ocelli: Ocelli, state_dir: Path) -> None:
    ocelli.kubectl("-n", NAMESPACE, "patch", "clf", "explicit", "--type=merge", "-p", '{"spec": {"displayName": "changed"}}')
    assert stop_ocelli(ocelli.process) == 0
    process = start_ocelli(state_dir, state_dir.with_suffix(".log"), BUILT_INS="food explicit")
    try:
        assert get(connect(state_dir, process), "explicit")["spec"]["displayName"] == "changed"
    finally:
        stop_ocelli(process)
