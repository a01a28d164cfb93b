"""Create and its example sets (sections A1, A2 and C2 of the REST contract)."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, CREATED_BY_LABEL
from ocelli_cluster.client import InvalidError, QuotaError, UnreachableError
from ocelli_cluster.resources import CLASSIFIERS
from tests.gateway_harness.images import build_zip, encode, examples, png
from tests.gateway_harness.stage import NAMESPACE, OWNER, Stage
from tests.gateway_harness.v3_client import TWO_SETS, Files, V3Client, assert_error, connect

GOOD = examples(7)


def part(name: str, data: bytes) -> tuple[str, tuple[str, bytes]]:
    return (name, (f"{name}.zip", data))


def positive(name: str, data: bytes = GOOD) -> tuple[str, tuple[str, bytes]]:
    return part(f"{name}_positive_examples", data)


NEGATIVE = part("negative_examples", examples(8))


def with_entries(entries: dict[str, bytes], usable: int = 10) -> bytes:
    return build_zip({**entries, **{f"good{index}.png": png(index, (12, 12)) for index in range(usable)}})


def encrypted() -> bytes:
    data = bytearray(GOOD)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    return bytes(data)


def overlapping(count: int) -> bytes:
    """Directory entries that all refer to the same bytes."""
    data = build_zip({"a.png": png(1, (12, 12))})
    directory, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = data[directory:end] * count
    return data[:directory] + entries + data[end : end + 8] + struct.pack("<HHLLH", count, count, len(entries), directory, 0)


def lying(count: int) -> bytes:
    """Entries that claim one byte more than they have."""
    data = bytearray(examples(1, count))
    position = data.find(b"PK\x01\x02")
    while position >= 0:
        struct.pack_into("<L", data, position + 24, struct.unpack_from("<L", data, position + 24)[0] + 1)
        position = data.find(b"PK\x01\x02", position + 4)
    return bytes(data)


def compressed(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for index in range(12):
            archive.writestr(f"{index}.png", png(index, (12, 12)))
    return buffer.getvalue()


def many_images(count: int) -> bytes:
    head = png(1, (10, 10))[:40]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index in range(count):
            archive.writestr(f"{index}.png", head)
    return buffer.getvalue()


# A1


@pytest.mark.contract_row(
    "0.1/POST /v3/classifiers",
    "0.4",
    "0.4/JSON answers carry Content-Type: application/json (a",
    "0.4/Times are UTC with milliseconds: 2018-03-17T19:01:30.536Z",
    "0.4/owner is an opaque, non-empty string, the same on every",
    "A1",
    "A1/classifier_id, name, owner, status, created, classes",
    "A1/core_ml_enabled",
    "A1/updated",
)
def test_answer_is_the_whole_object(client: V3Client) -> None:
    body = client.create(" birds ").json()
    assert re.fullmatch(r"birds_[0-9]{1,10}", body.pop("classifier_id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["created"])
    assert body.pop("created") == body.pop("updated")
    assert body == {
        "name": "birds",
        "owner": OWNER,
        "status": "training",
        "core_ml_enabled": True,
        "classes": [{"class": "heron"}, {"class": "owl"}],
    }


@pytest.mark.contract_row("A1/negative_examples", "A2/Meaning")
def test_one_positive_and_one_negative_set_make_one_class(client: V3Client) -> None:
    assert client.create("one", [positive("owl"), NEGATIVE]).json()["classes"] == [{"class": "owl"}]


def test_object_has_the_metadata_that_operator_and_rest_need(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created("Big Birds", [positive("owl"), NEGATIVE])
    manifest = stage.classifier(classifier_id)
    assert manifest["metadata"]["labels"] == {CLASSIFIER_ID_LABEL: classifier_id, CREATED_BY_LABEL: "gateway"}
    assert manifest["spec"]["displayName"] == "Big Birds"
    assert [list(item) for item in manifest["spec"]["classes"]] == [["name", "examples"]]
    assert len(manifest["spec"]["negativeExamples"]) == 1


@pytest.mark.contract_row("A1")
def test_upload_is_durable_when_the_answer_is_out(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created("durable", [positive("owl", GOOD), NEGATIVE])
    source = stage.classifier(classifier_id)["spec"]["classes"][0]["examples"][0]
    stored = stage.store_folder / f"tenants/{NAMESPACE}/uploads/{classifier_id}/{source['upload']}.zip"
    assert stored.read_bytes() == GOOD


def test_the_same_zip_in_two_classes_is_stored_once(stage: Stage, client: V3Client) -> None:
    classifier_id = client.created("same", [positive("a"), positive("b")])
    assert len([path for path in stage.stored_uploads() if classifier_id in path]) == 1


@pytest.mark.contract_row("A1")
def test_every_replica_finds_it_as_soon_as_the_answer_is_out(stage: Stage, client: V3Client) -> None:
    other = connect(stage.start_gateway(), stage)
    stage.call(lambda: setattr(stage.cluster, "watching", False))
    try:
        classifier_id = client.created("replicas")
        assert other.get(classifier_id).json()["name"] == "replicas"
    finally:
        stage.call(stage.cluster.deliver)


def test_names_need_not_be_unique(client: V3Client) -> None:
    assert client.created("twice") != client.created("twice")


@pytest.mark.contract_row("A1/name")
@pytest.mark.parametrize("name", ["n" * 128, "ö" * 128, 'a "quoted" \\ name', "日本語"])
def test_name_is_kept_as_it_is(client: V3Client, name: str) -> None:
    assert client.create(name).json()["name"] == name


@pytest.mark.contract_row("A1/{class}_positive_examples", "A2/Class names")
@pytest.mark.parametrize(
    "class_name", ["Golden Retriever", "ÜBER", "日本", "a.b,c;d=e", "x" * 128, "negative", "a_positive_examples"]
)
def test_class_name_is_kept_as_it_is(client: V3Client, class_name: str) -> None:
    body = client.create("classes", [positive(class_name), positive("other")]).json()
    assert body["classes"][0] == {"class": class_name}


# A2


@pytest.mark.contract_row(
    "A2",
    "A2/Zip contents",
    "A2/Directories are walked at any depth and mean nothing; two",
    "A2/Skipped without a word: directory entries, everything below",
    "A2/Anything else that is not a usable image (text, other",
    "A2/Entry names are never used as file-system paths: ../x.jpg",
    "A2/The size an entry claims is not trusted: inflating stops at",
)
@pytest.mark.parametrize(
    "data",
    [
        with_entries({"deep/er/still/a.jpg": png(50)}, usable=9),
        with_entries({"a/same.png": png(60), "b/same.png": png(61)}, usable=8),
        with_entries({"../../etc/passwd.png": png(70), "/abs.png": png(71)}, usable=8),
        with_entries(
            {"__MACOSX/._a.png": b"x", ".hidden": b"x", "Thumbs.db": b"x", "desktop.ini": b"x", "empty.png": b"", "d/": b""}
        ),
        with_entries({"notes.txt": b"text", "cut.png": png(1)[:7], "big.png": png(1) + bytes(11 * 1024 * 1024)}),
        with_entries({"photo.bin": png(80)}, usable=9),
        b"MZ" + bytes(1000) + with_entries({}),
        with_entries({"good.png": png(81)}).replace(b"good.png", b"go\xff\x5c.png"),
        compressed(zipfile.ZIP_BZIP2),
    ],
    ids=[
        "folders",
        "equal base names",
        "paths that climb out",
        "skipped silently",
        "unusable next to ten",
        "no image suffix",
        "behind a program",
        "a name in another encoding",
        "bzip2",
    ],
)
def test_zip_with_ten_usable_images_is_accepted(client: V3Client, data: bytes) -> None:
    assert client.create("zips", [positive("a", data), positive("b")]).status_code == 200


# C2


@dataclass(frozen=True, kw_only=True)
class Refusal:
    what: str
    parts: Callable[[], Files]
    words: tuple[str, ...]
    status: int = 400
    error_id: str | None = None
    name: str | None = "refused"


REFUSALS = [
    Refusal(what="name missing", name=None, parts=lambda: TWO_SETS, words=("name",), error_id="parameter_error"),
    Refusal(what="name blank", name="  \t", parts=lambda: TWO_SETS, words=("name",), error_id="parameter_error"),
    Refusal(what="name too long", name="n" * 129, parts=lambda: TWO_SETS, words=("name", "129", "128")),
    Refusal(what="no example set", parts=lambda: [("other", b"x")], words=("two example sets",)),
    Refusal(what="one positive alone", parts=lambda: [positive("a")], words=("two example sets",)),
    Refusal(what="negatives alone", parts=lambda: [NEGATIVE], words=("two example sets",)),
    Refusal(what="two negative sets", parts=lambda: [NEGATIVE, NEGATIVE], words=("two example sets",)),
    Refusal(what="class name empty", parts=lambda: [positive(""), positive("b")], words=("class name", "empty")),
    Refusal(what="class name blank", parts=lambda: [positive("  "), positive("b")], words=("class name", "empty")),
    Refusal(what="class name too long", parts=lambda: [positive("x" * 129), positive("b")], words=("129",)),
    *(
        Refusal(
            what=f"class name with {bad}", parts=lambda bad=bad: [positive(f"a{bad}b"), positive("b")], words=("class name",)
        )
        for bad in "$*-{}\\|/'\"`[]"
    ),
    Refusal(what="class twice", parts=lambda: [positive("twin"), positive("b"), positive("twin")], words=("twin", "twice")),
    Refusal(what="no zip", parts=lambda: [positive("a", b"text"), positive("b")], words=("a_positive_examples", "zip")),
    Refusal(what="an image", parts=lambda: [positive("a", png()), positive("b")], words=("a_positive_examples", "zip")),
    Refusal(what="empty file", parts=lambda: [positive("a", b""), positive("b")], words=("a_positive_examples", "empty")),
    Refusal(what="cut off", parts=lambda: [positive("a", GOOD[:-50]), positive("b")], words=("a_positive_examples",)),
    Refusal(
        what="damaged", parts=lambda: [positive("a", GOOD[:500] + bytes(len(GOOD) - 500)), positive("b")], words=("a_positive",)
    ),
    Refusal(what="zip of nothing", parts=lambda: [positive("a", build_zip({})), positive("b")], words=("a_positive_examples",)),
    Refusal(
        what="encrypted", parts=lambda: [positive("a", encrypted()), positive("b")], words=("a_positive_examples", "encrypted")
    ),
    Refusal(
        what="nine images",
        parts=lambda: [positive("a", examples(1, 9)), positive("b")],
        words=("a_positive_examples", "9", "10"),
    ),
    Refusal(
        what="nine images and a text",
        parts=lambda: [positive("a", with_entries({"notes.txt": b"text"}, usable=9)), positive("b")],
        words=("a_positive_examples", "notes.txt"),
    ),
    Refusal(
        what="ten GIFs",
        parts=lambda: [positive("a", build_zip({f"{i}.jpg": encode_gif() for i in range(10)})), positive("b")],
        words=("a_positive_examples",),
    ),
    Refusal(
        what="nine negatives",
        parts=lambda: [positive("a"), part("negative_examples", examples(1, 9))],
        words=("negative_examples", "9"),
    ),
    Refusal(
        what="zip bombs",
        parts=lambda: [positive("a", build_zip({f"{i}.png": png()[:8] + bytes(30 << 20) for i in range(12)})), positive("b")],
        words=("a_positive_examples",),
    ),
    Refusal(
        what="overlapping entries",
        parts=lambda: [positive("a", overlapping(300)), positive("b")],
        words=("a_positive_examples", "overlap"),
    ),
    Refusal(
        what="entries that lie about their sizes",
        parts=lambda: [positive("a", lying(12)), positive("b")],
        words=("a_positive_examples", "0 usable", "is damaged"),
    ),
    Refusal(
        what="images compressed by LZMA",
        parts=lambda: [positive("a", compressed(zipfile.ZIP_LZMA)), positive("b")],
        words=("a_positive_examples", "0 usable", "is compressed by LZMA"),
    ),
    Refusal(
        what="more than 10,000 images",
        parts=lambda: [positive("a", many_images(10_001)), positive("b")],
        words=("a_positive_examples", "10000"),
        error_id="limit_exceeded",
    ),
    Refusal(
        what="one zip above 100 MB",
        parts=lambda: [positive("a", bytes(100 * 1024 * 1024 + 1)), positive("b")],
        words=("a_positive_examples", "100 MB"),
        status=413,
        error_id="limit_exceeded",
    ),
    Refusal(
        what="501 classes",
        parts=lambda: [positive(f"c{index}") for index in range(501)],
        words=("501", "500"),
        error_id="limit_exceeded",
    ),
    Refusal(
        what="500 classes of long names",
        parts=lambda: [positive(f"{'🦉' * 124}{index:03d}") for index in range(500)],
        words=("262144",),
        error_id="limit_exceeded",
    ),
]


def encode_gif() -> bytes:
    from PIL import Image

    return encode(Image.new("P", (16, 16)), "GIF")


@pytest.mark.contract_row("A2/Zip contents", "A2/Zips inside zips are not opened. Encrypted zips are refused")
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.what)
def test_refused_create_names_the_part_and_stores_nothing(stage: Stage, client: V3Client, refusal: Refusal) -> None:
    before = (stage.stored_uploads(), len(stage.call(lambda: stage.cluster.all(CLASSIFIERS, NAMESPACE))))
    response = client.create(refusal.name, refusal.parts())
    assert_error(response, refusal.status, refusal.error_id, *refusal.words)
    after = (stage.stored_uploads(), len(stage.call(lambda: stage.cluster.all(CLASSIFIERS, NAMESPACE))))
    assert after == before
    assert list(stage.upload_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidError(422, "spec.classes: Invalid value", "Invalid"), 400),
        (QuotaError(403, "exceeded quota: tenants, used: 5, limited: 5", "Forbidden"), 429),
        (UnreachableError("no answer"), 503),
    ],
    ids=["Kubernetes refuses the object", "a ResourceQuota is used up", "Kubernetes does not answer"],
)
def test_create_that_kubernetes_refuses_stores_nothing(stage: Stage, client: V3Client, error: Exception, status: int) -> None:
    before = stage.stored_uploads()
    stage.call(lambda: setattr(stage.cluster, "create_error", error))
    assert_error(client.create("lost"), status)
    assert stage.stored_uploads() == before


def test_refusal_names_the_example_sets_and_the_unknown_parts(client: V3Client) -> None:
    response = client.create("cars", [positive("car"), part("truck_positve_examples", GOOD)])
    words = "this request has car_positive_examples. Unknown parts: truck_positve_examples; names"
    assert_error(response, 400, "parameter_error", words)


def test_missing_at_sign_of_curl_is_recognised(client: V3Client) -> None:
    response = client.create("cars", [("car_positive_examples", b"/home/anna/cars.zip"), NEGATIVE])
    words = '(it is the text "/home/anna/cars.zip"; with curl, write @ before the file\'s name)'
    assert_error(response, 400, "input_error", words)


def test_existing_object_name_causes_another_id(stage: Stage, client: V3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = client.created("Clash")
    number = int(taken.rpartition("_")[2])
    draws = iter([number - 1, 4711])
    monkeypatch.setattr("ocelli_gateway.classifiers.secrets.randbelow", lambda _: next(draws))
    # The names of objects have no upper case: `clash` and `Clash` meet.
    assert client.created("clash") == "clash_4712"


def test_existing_id_keeps_its_uploads(stage: Stage, client: V3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = client.created("Drawn", [positive("owl", examples(21)), NEGATIVE])
    before = [path for path in stage.stored_uploads() if taken in path]
    draws = iter([int(taken.rpartition("_")[2]) - 1, 4712])
    monkeypatch.setattr("ocelli_gateway.classifiers.secrets.randbelow", lambda _: next(draws))
    client.created("Drawn", [positive("owl", examples(22)), positive("heron", examples(23))])
    assert [path for path in stage.stored_uploads() if taken in path] == before
