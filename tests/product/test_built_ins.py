"""The built-in classifiers of `make run`: they need no download, and can be given other weights."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import sklearn
from PIL import Image

from tests.documented_commands import bash_blocks
from tests.networks import onnx_bytes
from tests.product.instance import Document, Ocelli, connect, start_ocelli, stop_ocelli, wait_for
from tests.product.shell import Shell

pytestmark = pytest.mark.cluster

NAMESPACE = "ocelli-system"
BUILT_INS = "default food explicit"
PHOTOGRAPHS = Path(sklearn.__file__).parent / "datasets" / "images"
OTHER_FOOD = {
    "labels.txt": "tomato\nspinach\nblueberry\n",
    "hierarchy.txt": "/food/fruit/tomato\n/food/berry/blueberry\n/food/vegetable/spinach\n",
    "translations.json": json.dumps({"de": {"tomato": "Tomate", "fruit": "Obst", "food": "Essen", "non-food": "kein Essen"}}),
}
OTHER_WEIGHTS = {
    "weights": {"url": "file:///food/"},
    "otherwise": "non-food",
    "images": {"mean": [0.4, 0.4, 0.4], "standardDeviation": [1, 1, 1]},
}


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built-ins") / "state"


@pytest.fixture(scope="module")
def ocelli(state_dir: Path) -> Iterator[Ocelli]:
    """An instance with all three built-in classifiers, ready."""
    process = start_ocelli(state_dir, state_dir.with_suffix(".log"), BUILT_INS=BUILT_INS)
    try:
        started = connect(state_dir, process)
        for name in BUILT_INS.split():
            started.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", f"clf/{name}", "--timeout=90s")
        yield started
    finally:
        stop_ocelli(process)


def get(ocelli: Ocelli, name: str) -> Document:
    document: Document = json.loads(ocelli.kubectl("-n", NAMESPACE, "get", "clf", name, "-o", "json"))
    return document


def replace_pretrained(ocelli: Ocelli, name: str, pretrained: Document) -> None:
    patch = [{"op": "replace", "path": "/spec/pretrained", "value": pretrained}]
    ocelli.kubectl("-n", NAMESPACE, "patch", "clf", name, "--type=json", "-p", json.dumps(patch))


def stalled_message(ocelli: Ocelli, name: str) -> str:
    def found() -> str:
        conditions = get(ocelli, name).get("status", {}).get("conditions", [])
        return next((item["message"] for item in conditions if item["type"] == "Stalled"), "")

    return wait_for(f"{name} is stalled", found)


def classify(client: httpx.Client, image: bytes, names: str, language: str = "en") -> dict[str, Document]:
    """The answer for an image: by classifier, then by class."""
    answer = client.post(
        "/v3/classify",
        files={"images_file": ("image", image)},
        data={"classifier_ids": names, "threshold": "0.5"},
        headers={"Accept-Language": language},
    ).json()
    assert "warnings" not in answer, answer
    classifiers = answer["images"][0]["classifiers"]
    return {item["classifier_id"]: {seen["class"]: seen for seen in item["classes"]} for item in classifiers}


def plain(colour: tuple[int, int, int]) -> bytes:
    image = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(image, "PNG")
    return image.getvalue()


@pytest.mark.contract_row("B4/food adds non-food when nothing edible is seen, so that its")
def test_all_three_answer_for_photographs_without_a_download(ocelli: Ocelli) -> None:
    with ocelli.client() as client:
        flower = classify(client, (PHOTOGRAPHS / "flower.jpg").read_bytes(), "default,food,explicit")
        china = classify(client, (PHOTOGRAPHS / "china.jpg").read_bytes(), "default,food,explicit")
    assert flower["default"]["daisy"]["type_hierarchy"] == "/plant/flower/daisy"
    assert {"plant", "flower"} < flower["default"].keys()
    assert {"palace", "structure"} < china["default"].keys()
    assert all(any(name.endswith(" color") for name in seen["default"]) for seen in (flower, china))
    for seen in (flower, china):
        assert (seen["food"].keys(), seen["explicit"].keys()) == ({"non-food"}, {"not explicit"})


def test_built_ins_answer_in_the_language_of_the_client(ocelli: Ocelli) -> None:
    with ocelli.client() as client:
        seen = classify(client, (PHOTOGRAPHS / "china.jpg").read_bytes(), "default,food", "de-AT,de;q=0.9")
    assert seen["default"]["palace"]["type_hierarchy"] == "/structure/dwelling/Haus/palace"
    assert seen["food"].keys() == {"kein Essen"}


def test_explicit_stays_available_when_its_new_weights_are_missing_and_reports_where_to_put_them(ocelli: Ocelli) -> None:
    replace_pretrained(ocelli, "explicit", {"weights": {"url": "file:///explicit/"}})
    message = stalled_message(ocelli, "explicit")
    assert message.startswith(f"Classifier {NAMESPACE}/explicit: weights file:///explicit/: there is no such folder")
    assert f"labels.txt into it: {ocelli.samples / 'explicit'}, as the trainer sees it" in message
    assert message.endswith("; then raise spec.retrainNonce to have it tried again")
    with ocelli.client() as client:
        assert classify(client, plain((120, 120, 120)), "explicit")["explicit"]


def test_food_answers_with_other_weights(ocelli: Ocelli) -> None:
    folder = ocelli.samples / "food"
    folder.mkdir(exist_ok=True)
    (folder / "network.onnx").write_bytes(onnx_bytes())
    for name, text in OTHER_FOOD.items():
        (folder / name).write_text(text)
    replace_pretrained(ocelli, "food", OTHER_WEIGHTS)
    with ocelli.client() as client:

        def tomato() -> Document:
            return classify(client, plain((250, 0, 0)), "food")["food"].get("tomato") or {}

        assert wait_for("the new weights answer", tomato)["type_hierarchy"] == "/food/fruit/tomato"
        assert classify(client, plain((250, 0, 0)), "food")["food"].keys() == {"tomato", "fruit", "food"}
        # Equal parts of red, green and blue: none of the classes.
        assert classify(client, plain((120, 120, 120)), "food")["food"].keys() == {"non-food"}
        german = classify(client, plain((250, 0, 0)), "food", "de-AT,de;q=0.9")["food"]
        assert german["Tomate"]["type_hierarchy"] == "/Essen/Obst/Tomate"


def test_the_pages_command_gives_food_other_weights(ocelli: Ocelli, tmp_path: Path) -> None:
    _, other_weights, _ = bash_blocks("docs/pretrained.md", "The built-in classifiers")
    Shell(ocelli, tmp_path).run(other_weights.replace("mkdir", "mkdir -p"))
    defaults = {"activation": "Softmax", "images": {}}
    spec = get(ocelli, "food")["spec"]["pretrained"]
    assert spec == {"weights": {"url": "file:///food/"}, "otherwise": "non-food", **defaults}


def test_a_restart_keeps_what_the_user_changed_until_it_is_deleted(ocelli: Ocelli, state_dir: Path, tmp_path: Path) -> None:
    for name in ("food", "explicit"):
        ocelli.kubectl("-n", NAMESPACE, "patch", "clf", name, "--type=merge", "-p", '{"spec": {"displayName": "changed"}}')
    delete, *_ = bash_blocks("docs/pretrained.md", "The built-in classifiers")
    Shell(ocelli, tmp_path).run(delete.replace(" food", ""))
    assert stop_ocelli(ocelli.process) == 0
    process = start_ocelli(state_dir, state_dir.with_suffix(".log"), BUILT_INS="food explicit")
    try:
        restarted = connect(state_dir, process)
        assert get(restarted, "food")["spec"]["displayName"] == "changed"
        assert get(restarted, "explicit")["spec"].get("displayName") != "changed"
    finally:
        stop_ocelli(process)
