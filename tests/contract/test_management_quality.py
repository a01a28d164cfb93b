"""The quality of revisions in the management API: what a real training stored, and what hostile files cannot do."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ocelli_api.classifier import parse_classifier
from ocelli_api.names import customer_key
from ocelli_api.revision import definition, spec_revision
from ocelli_storage.judged import JUDGED
from ocelli_storage.layout import CHECK_REPORT, REPORT, THUMBNAILS, ClassifierLocation
from ocelli_storage.thumbnail_files import build_thumbnail_file
from tests.documented_commands import bash_blocks
from tests.gateway_harness.images import build_zip, encode, plain
from tests.gateway_harness.management_client import ManagementClient
from tests.gateway_harness.stage import NAMESPACE, PASSWORD, USER, GatewayInstance, Stage
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error, connect
from tests.unit.training.conftest import Trainer

CUSTOMER = "customer@example.org"
COLORS = {"heron": (40, 60, 180), "owl": (180, 60, 40), "stork": (40, 180, 60), "nothing": (120, 120, 120)}
PAGE = b"<html><script>alert(1)</script></html>"


def zip_of(*colors: str, count: int = 10, first_seed: int = 0) -> bytes:
    """A zip of `count` noisy images of each color."""
    images = {}
    for color in colors:
        for seed in range(first_seed, first_seed + count):
            noise = np.random.default_rng([seed, *COLORS[color]]).integers(-40, 40, (48, 48, 3))
            pixels = np.clip(np.array(COLORS[color]) + noise, 0, 255).astype(np.uint8)
            images[f"{color}-{seed}.png"] = encode(Image.fromarray(pixels), "PNG")
    return build_zip(images)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A classifier whose current spec was really trained."""

    management: ManagementClient
    stage: Stage
    trainer: Trainer
    classifier_id: str

    @property
    def revision(self) -> str:
        return spec_revision(parse_classifier(self.stage.classifier(self.classifier_id)).spec)

    @property
    def report(self) -> Any:
        return json.loads((self.stage.store_folder / self.trainer.location.artifact_key(self.revision, REPORT)).read_text())

    def train(self) -> str:
        """Learn the current spec, and return its revision."""
        spec = parse_classifier(self.stage.classifier(self.classifier_id)).spec
        revision = self.trainer.revision = self.trainer.environment["OCELLI_REVISION"] = self.revision
        self.trainer.definition = definition(spec)
        outcome, _ = self.trainer.run(attempt=len(list(self.trainer.scratch.iterdir())) + 1)
        assert outcome.succeeded, outcome.message
        self.stage.finish_training(self.classifier_id)
        return revision

    def get(self, address: str, revision: str = "latest", **query: Any) -> Any:
        return self.management.call("GET", self.path(address, revision), params=query)

    def path(self, address: str, revision: str = "latest") -> str:
        return f"/classifiers/{self.classifier_id}/revisions/{revision}/{address}"


def create(management: ManagementClient, stage: Stage, folder: Any, name: str, wrong: int = 3) -> Trained:
    """A trained classifier; `wrong` images of herons are among the owls."""
    herons, owls = zip_of("heron", count=12), zip_of("owl", count=12)
    mixed = zip_of("heron", count=wrong, first_seed=100)
    files = [
        ("heron_positive_examples", ("heron.zip", herons)),
        ("owl_positive_examples", ("owl.zip", _joined(owls, mixed))),
        ("negative_examples", ("negatives.zip", zip_of("nothing", count=12))),
    ]
    classifier_id = management.v3.created(name, files)
    folder.mkdir()
    trainer = Trainer(folder, namespace=NAMESPACE, classifier_id=classifier_id, store_folder=stage.store_folder)
    trained = Trained(management=management, stage=stage, trainer=trainer, classifier_id=classifier_id)
    trained.train()
    return trained


def _joined(*zips: bytes) -> bytes:
    entries: dict[str, bytes] = {}
    for data in zips:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries |= {name: archive.read(name) for name in archive.namelist()}
    return build_zip(entries)


def ask(management: ManagementClient, address: str) -> httpx.Response:
    """The answer at an address with a query."""
    path, _, query = address.partition("?")
    return management.send("GET", path, params=httpx.QueryParams(query))


@pytest.fixture(scope="module")
def trained(management: ManagementClient, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return create(management, stage, tmp_path_factory.mktemp("trained") / "trainer", "judged")


def test_the_evaluation_is_that_of_the_trainings_report(trained: Trained) -> None:
    shown, reported = trained.get("evaluation"), trained.report["evaluation"]
    assert shown["accuracy"]["value"] == reported["accuracy"]
    assert [shown["accuracy"]["lower"], shown["accuracy"]["upper"]] == reported["accuracyInterval"]
    assert shown["confusion"] == reported["confusion"]
    assert [item["recall"] for item in shown["classes"]] == [item["recall"] for item in reported["classes"]]
    assert (shown["protocol"], shown["images"], shown["has_negatives"]) == ("CrossValidation", 39, True)


def test_each_cell_of_the_confusion_matrix_opens_its_images(trained: Trained) -> None:
    cells = trained.get("evaluation")["confusion"]
    assert len(cells) > 3
    for cell in cells:
        names = {"actual": cell["actual"] or "-", "predicted": cell["predicted"] or "-"}
        found = trained.get("images", **names)
        assert found["total"] == len(found["images"]) == cell["images"]
        assert {(image["actual"], image["predicted"]) for image in found["images"]} == {(cell["actual"], cell["predicted"])}


def test_wrong_images_come_first_with_their_names(trained: Trained) -> None:
    images = trained.get("images")["images"]
    wrong = trained.get("images", wrong="true")
    assert images[: wrong["total"]] == wrong["images"]
    assert {image["name"].rpartition("› ")[2] for image in wrong["images"]} >= {"heron-100.png", "heron-101.png"}
    assert all(image["actual"] != image["predicted"] for image in wrong["images"])


def test_pages_have_all_images_once(trained: Trained) -> None:
    pages = [trained.get("images", sort="class", limit=10, offset=offset)["images"] for offset in range(0, 50, 10)]
    digests = [image["image"] for page in pages for image in page]
    assert len(digests) == len(set(digests)) == 39
    assert list(map(len, pages)) == [10, 10, 10, 9, 0]


def test_scores_are_those_of_the_images(trained: Trained) -> None:
    scores, images = trained.get("scores"), trained.get("images", limit=500)["images"]
    by_digest = {image["image"]: image["scores"] for image in images}
    rows = dict(zip(scores["images"], scores["scores"], strict=True))
    assert {digest: dict(zip(scores["classes"], row, strict=True)) for digest, row in rows.items()} == by_digest


def test_every_judged_image_has_a_thumbnail(trained: Trained) -> None:
    images = trained.get("images", limit=60)["images"]
    assert all(image["thumbnail"] for image in images)
    digests = [image["image"] for image in images]
    found = trained.get("thumbnails", image=digests)["thumbnails"]
    assert list(found) == digests
    for text in found.values():
        with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
            assert (picture.format, max(picture.size)) == ("JPEG", 128)


def test_images_without_a_thumbnail_are_left_out(trained: Trained) -> None:
    assert trained.get("thumbnails", image=["0" * 64]) == {"thumbnails": {}}


def test_the_data_report_has_totals_and_marks(trained: Trained) -> None:
    data = trained.get("data")
    assert (data["of"], data["images"], data["corrections"]["relabelled"]) == ("training", 39, 0)
    assert [(item["class"], item["images"]) for item in data["sets"]] == [("heron", 12), ("owl", 15), (None, 12)]
    assert data["small_images_count"] == 39
    assert all(image["thumbnail"] for image in data["small_images"])


def test_served_and_latest_are_revisions(trained: Trained) -> None:
    assert {trained.get("evaluation", name)["revision"] for name in ("served", "latest", trained.revision)} == {
        trained.revision
    }


def test_a_correction_is_shown_and_the_next_revision_can_be_compared(
    management: ManagementClient, stage: Stage, tmp_path: Any
) -> None:
    trained = create(management, stage, tmp_path / "trainer", "corrected")
    before = trained.revision
    wrong = [image["image"] for image in trained.get("images", actual="owl", predicted="heron")["images"]]
    assert wrong
    manifest = stage.classifier(trained.classifier_id)
    manifest["spec"]["corrections"] = [{"image": digest, "class": "heron"} for digest in wrong]
    stage.put_classifier(manifest)
    corrected = trained.get("images", before, actual="owl", predicted="heron")["images"]
    assert {image["correction"] for image in corrected} == {"heron"}
    after = trained.train()
    compared = trained.get(f"compare/{before}", after)
    assert (compared["revision"], compared["other"], compared["images"]) == (after, before, 39)
    assert compared["only_in"] == {after: 0, before: 0}
    # The other revision was right about them.
    assert not set(wrong) & {image["image"] for image in compared["better"]}
    assert trained.get("data", after)["corrections"]["relabelled"] == len(wrong)
    assert_error(management.send("GET", trained.path(f"compare/{after}", "latest")), 400, None, "two revisions")


def test_erased_images_are_gone_at_once(management: ManagementClient, client: V3Client, stage: Stage, tmp_path: Any) -> None:
    trained = create(management, stage, tmp_path / "trainer", "erased")
    storks = [("stork_positive_examples", ("stork.zip", zip_of("stork", count=12)))]
    headers = {"X-Watson-Metadata": f"customer_id={CUSTOMER}"}
    assert client.http.post(f"/v3/classifiers/{trained.classifier_id}", files=storks, headers=headers).status_code == 200
    trained.train()
    of_customer = [image["image"] for image in trained.get("images", actual="stork")["images"]]
    assert len(trained.get("thumbnails", image=of_customer)["thumbnails"]) == 12
    key = trained.trainer.location.image_data_key(trained.revision, customer_key(CUSTOMER), THUMBNAILS)
    assert (stage.store_folder / key).exists()
    assert client.http.delete("/v3/user_data", params={**VERSION, "customer_id": CUSTOMER}).status_code == 202
    assert not (stage.store_folder / key).exists()
    assert trained.get("images", "served", actual="stork")["total"] == 0
    assert trained.get("thumbnails", "served", image=of_customer) == {"thumbnails": {}}
    shown = trained.get("evaluation", "served")
    assert (shown["images"], shown["accuracy"]["images"]) == (39, 51)


def test_a_check_has_a_data_report_with_thumbnails_and_no_evaluation(
    management: ManagementClient, stage: Stage, tmp_path: Any
) -> None:
    files = [
        ("heron_positive_examples", ("heron.zip", zip_of("heron", count=12))),
        ("owl_positive_examples", ("owl.zip", zip_of("owl", count=12))),
    ]
    classifier_id = management.v3.created("checked", files)
    trainer = Trainer(tmp_path, namespace=NAMESPACE, classifier_id=classifier_id, store_folder=stage.store_folder)
    spec = parse_classifier(stage.classifier(classifier_id)).spec
    trainer.revision = trainer.environment["OCELLI_REVISION"] = spec_revision(spec)
    trainer.definition = definition(spec)
    assert trainer.check()[0].succeeded
    trained = Trained(management=management, stage=stage, trainer=trainer, classifier_id=classifier_id)
    data = trained.get("data")
    assert (data["of"], data["faults_count"], data["images"]) == ("check", 0, 24)
    digest = data["small_images"][0]["image"]
    assert data["small_images"][0]["thumbnail"]
    assert digest in trained.get("thumbnails", image=[digest])["thumbnails"]
    assert_error(management.send("GET", trained.path("evaluation")), 404, "not_found", "not judged yet")


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def paste(block: str, trained: Trained, gateway: GatewayInstance) -> list[Any]:
    """What the commands of a page answer."""
    environment = {**os.environ, "OCELLI": gateway.address, "AUTH": f"{USER}:{PASSWORD}", "ID": trained.classifier_id}
    script = block.replace("curl ", "curl -sS -w '\\n' ")
    answers = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, check=True)
    return [json.loads(line) for line in answers.stdout.splitlines()]


@needs_curl
def test_the_commands_of_the_management_api_answer(trained: Trained, gateway: GatewayInstance) -> None:
    (read,), (change,) = bash_blocks("docs/management-api.md", ""), bash_blocks("docs/management-api.md", "Change")
    digest = trained.get("images")["images"][0]["image"]
    listed, corrected = paste(read + change.replace("9f2c…", digest), trained, gateway)
    assert trained.classifier_id in [card["classifier_id"] for card in listed["classifiers"]]
    assert (corrected["applied"], corrected["corrections"]) == (False, [{"image": digest, "class": "owl"}])


@needs_curl
def test_the_commands_of_the_page_answer(trained: Trained, gateway: GatewayInstance) -> None:
    (block,) = bash_blocks("docs/revision-quality.md", "Addresses")
    evaluation, images = paste(block, trained, gateway)
    assert evaluation["revision"] == images["revision"] == trained.revision
    assert {(image["actual"], image["predicted"]) for image in images["images"]} == {("owl", "heron")}


# What is not there


@pytest.fixture(scope="module")
def bare(management: ManagementClient, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The address of a classifier of which nothing but its definition is stored."""
    return management.v3.ready("bare")


ADDRESSES = ("evaluation", "images", "scores", "data", "compare/0123456789", f"thumbnails?image={'0' * 64}")


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_revision_without_report_is_404_with_a_sentence(management: ManagementClient, bare: str, address: str) -> None:
    response = ask(management, f"/classifiers/{bare}/revisions/served/{address}")
    assert_error(response, 404, "not_found", "no report on revision")


@pytest.mark.parametrize("address", ADDRESSES)
def test_another_tenants_revision_does_not_exist(
    trained: Trained, gateway: GatewayInstance, stage: Stage, address: str
) -> None:
    bert = connect(gateway, stage, "bert", "other")
    try:
        theirs = ManagementClient(v3=bert)
        own = ask(theirs, trained.path(address))
        unknown = ask(theirs, trained.path(address).replace(trained.classifier_id, "unknown_1"))
    finally:
        bert.http.close()
    assert (own.status_code, unknown.status_code) == (404, 404)
    expected = unknown.json()["error"].replace("unknown_1", trained.classifier_id)
    assert own.json()["error"] == expected


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("images?limit=501", 400, "limit"),
        ("images?limit=x", 400, "limit"),
        ("images?offset=-1", 400, "offset"),
        ("images?sort=best", 400, "most_wrong"),
        ("images?wrong=maybe", 400, "true or false"),
        ("images?actual=<img onerror=x>", 400, "no class"),
        ("thumbnails", 400, "image"),
        ("thumbnails?image=abc", 400, "SHA-256"),
        ("thumbnails?image=" + ",".join(f"{number:064x}" for number in range(61)), 400, "at most 60"),
    ],
)
def test_wrong_values_are_refused_in_words(trained: Trained, address: str, status: int, words: str) -> None:
    assert_error(ask(trained.management, trained.path(address)), status, None, words)


# Files that Pods of tenants write


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """Files of a revision that a test replaces."""

    trained: Trained
    location: ClassifierLocation
    revision: str

    def put(self, key: str, content: bytes) -> None:
        path = self.trained.stage.store_folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def send(self, address: str) -> httpx.Response:
        path = f"/classifiers/{self.location.classifier_id}/revisions/{self.revision}/{address}"
        response = ask(self.trained.management, path)
        assert response.headers["content-type"].partition(";")[0] == "application/json"
        return response


@pytest.fixture
def damaged(trained: Trained, bare: str) -> Iterator[Damaged]:
    """The classifier without files, with copies of those of a real training to be damaged."""
    location = ClassifierLocation(namespace=NAMESPACE, classifier_id=bare)
    revision = spec_revision(parse_classifier(trained.stage.classifier(bare)).spec)
    source = trained.trainer.location
    copied = Damaged(trained=trained, location=location, revision=revision)
    for own, other in (
        (location.artifact_key(revision, REPORT), source.artifact_key(trained.revision, REPORT)),
        (location.image_data_key(revision, None, JUDGED), source.image_data_key(trained.revision, None, JUDGED)),
        (location.image_data_key(revision, None, THUMBNAILS), source.image_data_key(trained.revision, None, THUMBNAILS)),
    ):
        copied.put(own, (trained.stage.store_folder / other).read_bytes())
    yield copied
    for path in (trained.stage.store_folder / location.revision_prefix(revision)).rglob("*"):
        if path.is_file() and path.name != "definition.json":
            path.unlink()


MANY_VALUES = b"[" + b"{}," * 700_000 + b"0]"


@pytest.mark.parametrize("content", [b"", PAGE, b"[" * 100_000, MANY_VALUES], ids=["empty", "page", "deep", "many"])
def test_a_hostile_report_is_a_sentence(damaged: Damaged, content: bytes) -> None:
    damaged.put(damaged.location.artifact_key(damaged.revision, REPORT), content)
    for address in ("evaluation", "data"):
        assert_error(damaged.send(address), 404, "not_found", "damaged")
    # Images can be shown without names.
    images = damaged.send("images").json()["images"]
    assert len(images) == 39
    assert not any("name" in image for image in images)


def test_markup_in_names_stays_text(damaged: Damaged) -> None:
    document = json.loads(json.dumps(damaged.trained.report))
    document["data"]["smallImages"][0]["image"] = "<img src=x onerror=alert(1)>"
    damaged.put(damaged.location.artifact_key(damaged.revision, REPORT), json.dumps(document).encode())
    assert damaged.send("data").json()["small_images"][0]["name"] == "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("content", [b"", PAGE, (1 << 40).to_bytes(8, "little") + b"{" * 1000], ids=["empty", "page", "header"])
def test_hostile_scores_are_a_sentence(damaged: Damaged, content: bytes) -> None:
    damaged.put(damaged.location.image_data_key(damaged.revision, None, JUDGED), content)
    for address in ("evaluation", "images", "scores", f"compare/{damaged.revision[::-1]}"):
        assert_error(damaged.send(address), 404, "not_found")


def test_hostile_thumbnails_are_a_sentence_and_everything_else_is_shown(damaged: Damaged) -> None:
    damaged.put(damaged.location.image_data_key(damaged.revision, None, THUMBNAILS), PAGE)
    assert_error(damaged.send(f"thumbnails?image={'0' * 64}"), 404, "not_found", "damaged")
    assert not any(image["thumbnail"] for image in damaged.send("images").json()["images"])


def test_a_thumbnail_that_is_no_small_image_is_left_out(damaged: Damaged) -> None:
    bomb = plain((1, 2, 3), format_name="JPEG", size=(4000, 1000))
    content = build_thumbnail_file({"1" * 64: PAGE, "2" * 64: bomb, "3" * 64: plain((1, 2, 3), format_name="JPEG")})
    damaged.put(damaged.location.image_data_key(damaged.revision, None, THUMBNAILS), content)
    found = damaged.send(f"thumbnails?image={'1' * 64},{'2' * 64},{'3' * 64}").json()["thumbnails"]
    assert list(found) == ["3" * 64]


def test_files_that_are_too_large_are_not_read(damaged: Damaged) -> None:
    folder = damaged.trained.stage.store_folder
    for key in (
        damaged.location.artifact_key(damaged.revision, REPORT),
        damaged.location.image_data_key(damaged.revision, None, JUDGED),
    ):
        with (folder / key).open("r+b") as file:
            file.truncate(10 << 30)
    assert_error(damaged.send("data"), 404, "not_found", "too large")
    assert_error(damaged.send("scores"), 404, "not_found", "too large")


def test_a_hostile_check_is_a_sentence(damaged: Damaged) -> None:
    (damaged.trained.stage.store_folder / damaged.location.artifact_key(damaged.revision, REPORT)).unlink()
    key = damaged.location.training_key(damaged.revision, 1, CHECK_REPORT)
    damaged.put(key, PAGE)
    assert_error(damaged.send("data"), 404, "not_found", "damaged")
    (damaged.trained.stage.store_folder / key).unlink()
