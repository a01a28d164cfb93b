"""Classify (sections A5 and C3 of the REST contract, and the built-in ids of B4 as far as they need no model)."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_gateway import classify, classify_plan
from ocelli_storage.archives import ImageArchive
from tests.gateway_harness.images import build_zip, encode, plain, png
from tests.gateway_harness.stage import NAMESPACE, GatewayInstance, Stage, StubInferenceServer
from tests.gateway_harness.v3_client import VERSION, V3Client, assert_error, basic, connect
from tests.unit.model.tiffs import HEIGHT, WHITE_IS_ZERO, WIDTH, TiffKind, make_tiff

INVALID = "Invalid/corrupted image data. Supported: GIF, JPEG, PNG, TIFF, and ZIP."
SMALL = "Image resolution is smaller than the minimum limit"
SCORES = {"heron": 0.25, "owl": 0.871204, "stork": 0.5}
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def birds(client: V3Client) -> str:
    return client.ready("birds", SCORES)


def classes(body: Any, image: int = 0, classifier: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body["images"][image]["classifiers"][classifier]["classes"]
    return found


def assert_image_error(response: httpx.Response, status: int, error_id: str, description: str, *, count: int = 1) -> None:
    """The answer to a request if no image could be classified."""
    assert_error(response, status, error_id)
    body = response.json()
    assert body["error"].startswith(description), body["error"]
    assert [image["error"]["description"].startswith(description) for image in body["images"]] == [True] * count
    assert {(image["error"]["code"], image["error"]["error_id"], tuple(image["classifiers"])) for image in body["images"]} == {
        (status, error_id, ())
    }
    assert (body["images_processed"], body["custom_classes"]) == (count, 0)


def too_large_image() -> bytes:
    return png() + bytes(10 * MEGABYTE)


def many_pixels(width: int, height: int) -> bytes:
    """A small file of a large image, decodable."""
    return encode(Image.new("1", (width, height)), "PNG")


# A5: the answer


@pytest.mark.contract_row(
    "0.1/POST /v3/classify",
    "A5",
    "A5/images",
    "A5/images[].classifiers",
    "A5/images[].classifiers[].classifier_id, .name, .classes",
    "A5/…classes[].class, …classes[].score",
    "A5/custom_classes",
)
def test_answer_is_the_whole_object(client: V3Client, birds: str) -> None:
    response = client.classify(("barn.jpg", png()), classifier_ids=birds)
    assert (response.status_code, response.json()) == (
        200,
        {
            "images": [
                {
                    "classifiers": [
                        {
                            "classifier_id": birds,
                            "name": "birds",
                            "classes": [{"class": "owl", "score": 0.871204}, {"class": "stork", "score": 0.5}],
                        }
                    ],
                    "image": "barn.jpg",
                }
            ],
            "images_processed": 1,
            "custom_classes": 2,
        },
    )


@pytest.mark.contract_row("A5/threshold", "A5/Threshold", "D/Threshold 0. The Python SDK drops a numeric 0; users pass")
@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        ("0", ["owl", "stork", "heron"]),
        ("0.0", ["owl", "stork", "heron"]),
        (".5", ["owl", "stork"]),
        ("0.500001", ["owl"]),
        ("1", []),
        ("1e-1", ["owl", "stork", "heron"]),
        (" 0.9 ", []),
        ("", ["owl", "stork"]),
    ],
)
def test_classes_that_reach_the_threshold_are_sorted(client: V3Client, birds: str, threshold: str, expected: list[str]) -> None:
    body = client.classify(("a.png", png()), classifier_ids=birds, threshold=threshold).json()
    assert [item["class"] for item in classes(body)] == expected


def test_server_gets_the_threshold_and_can_leave_out_classes_below_it(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready("threshold", SCORES)
    body = client.classify(("a.png", png()), classifier_ids=classifier_id, threshold=".6").json()
    (server,) = (item for item in stage.servers if item.classifier_id == classifier_id)
    assert server.thresholds == ["0.6"]
    assert [item["class"] for item in classes(body)] == ["owl"]


@pytest.mark.parametrize("threshold", ["high", "nan", "inf", "-0.1", "1.0001", "0,5", "0x1", "1_0", "٠", "1e999", "0.5.5"])
def test_threshold_that_is_not_a_number_from_0_to_1_is_400(client: V3Client, birds: str, threshold: str) -> None:
    response = client.classify(("a.png", png()), classifier_ids=birds, threshold=threshold)
    assert_error(response, 400, "parameter_error", "threshold")


@pytest.mark.contract_row("A5/images_file", "A5/Image handling")
@pytest.mark.parametrize(
    ("format_name", "image"),
    [
        ("JPEG", Image.new("RGB", (32, 32), "red")),
        ("JPEG", Image.new("CMYK", (32, 32))),
        ("JPEG", Image.new("L", (32, 32))),
        ("PNG", Image.new("P", (32, 32))),
        ("PNG", Image.new("RGBA", (32, 32))),
        ("PNG", Image.new("LA", (32, 32))),
        ("PNG", Image.new("1", (32, 32))),
        ("PNG", Image.fromarray(np.full((32, 32), 40000, dtype=np.uint16))),
        ("PNG", Image.new("RGB", (10, 10))),
        ("GIF", Image.new("P", (32, 32))),
        ("TIFF", Image.new("RGB", (32, 32))),
        ("TIFF", Image.new("F", (32, 32), 0.5)),
        ("TIFF", Image.new("CMYK", (32, 32))),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_images_of_every_kind_and_mode_are_fine(client: V3Client, birds: str, format_name: str, image: Image.Image) -> None:
    response = client.classify(("a.bin", encode(image, format_name)), classifier_ids=f"{birds},default")
    assert response.status_code == 200, response.text


@pytest.mark.contract_row("A5/images_file", "D/Media types are unreliable: application/octet-stream")
def test_file_name_and_declared_type_are_ignored(client: V3Client, birds: str) -> None:
    files = [("images_file", ("notes.txt", png(), "application/zip"))]
    body = client.http.post("/v3/classify", data={"classifier_ids": birds}, files=files).json()
    assert (body["images"][0]["image"], len(classes(body))) == ("notes.txt", 2)


def test_fields_are_read_from_the_query(client: V3Client, birds: str) -> None:
    body = client.classify(("a.png", png()), params={"classifier_ids": birds, "threshold": "0.6"}).json()
    assert [item["class"] for item in classes(body)] == ["owl"]


def test_form_takes_precedence_over_the_query(client: V3Client, birds: str) -> None:
    params = {"classifier_ids": "default", "threshold": "0.9"}
    body = client.classify(("a.png", png()), params=params, classifier_ids=birds, threshold="0").json()
    assert [item["class"] for item in classes(body)] == ["owl", "stork", "heron"]


def test_empty_form_part_counts_as_absent(client: V3Client, birds: str) -> None:
    body = client.classify(("a.png", png()), params={"classifier_ids": birds}, classifier_ids=" ", owners="", url="").json()
    assert body["images"][0]["classifiers"][0]["classifier_id"] == birds


@pytest.mark.contract_row("A5/classifier_ids")
def test_lists_are_trimmed_without_duplicates_and_keep_their_order(client: V3Client, birds: str) -> None:
    body = client.classify(("a.png", png()), classifier_ids=f" default , {birds},, default,{birds} ").json()
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == ["default", birds]


@pytest.mark.contract_row("D/Lists. classifier_ids arrives as one comma-joined text part")
def test_list_can_be_in_several_parts(client: V3Client, birds: str) -> None:
    files = [
        ("images_file", ("a.png", png())),
        ("classifier_ids", (None, birds.encode())),
        ("classifier_ids", (None, b"food,default")),
    ]
    body = client.http.post("/v3/classify", files=files).json()
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == [birds, "food", "default"]


@pytest.mark.contract_row("A5/Repeatable")
def test_same_bytes_give_the_same_scores_alone_and_in_a_zip(client: V3Client, birds: str) -> None:
    image = plain((120, 130, 20))
    alone = client.classify(("a.png", image), classifier_ids=f"{birds},default", threshold="0").json()
    zipped = client.classify(("z.zip", build_zip({"a.png": image})), classifier_ids=f"{birds},default", threshold="0").json()
    assert zipped["images"][0]["classifiers"] == alone["images"][0]["classifiers"]


# A5: owners


def test_without_ids_and_owners_default_answers(client: V3Client) -> None:
    body = client.classify(("a.png", png())).json()
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == ["default"]


def test_last_value_of_a_repeated_key_in_parameters_counts(client: V3Client) -> None:
    document = '{"threshold": 2, "classifier_ids": ["default"], "threshold": 0.99, "threshold": 1.0}'
    assert client.classify(("a.png", png()), parameters=document).status_code == 200


def test_image_larger_than_a_zip_may_be_is_an_image_that_is_too_large(client: V3Client) -> None:
    huge = png() + bytes(101 * MEGABYTE)
    response = client.classify(("huge.png", huge), classifier_ids="default")
    assert_error(response, 413, "limit_exceeded")
    body = response.json()
    assert [(item["image"], item["error"]["code"]) for item in body["images"]] == [("huge.png", 413)]
    assert body["images_processed"] == 1


def test_image_larger_than_a_zip_may_be_does_not_affect_others(client: V3Client) -> None:
    files = [("huge.png", b"no image" + bytes(101 * MEGABYTE)), ("small.png", png())]
    body = client.classify(*files, classifier_ids="default").json()
    assert ["error" in item for item in body["images"]] == [True, False]


@pytest.mark.contract_row("A5/owners")
def test_owner_me_means_all_that_can_answer_oldest_first(stage: Stage, tmp_path: Any) -> None:
    own = Stage(folder=tmp_path / "own")
    try:
        mine = connect(own.start_gateway(), own)
        first = mine.ready("first", {"heron": 0.9, "owl": 0.1})
        mine.created("training")
        second = mine.ready("second", {"heron": 0.9, "owl": 0.1})
        own.put_classifier(
            {
                **own.classifier(first),
                "metadata": {**own.classifier(first)["metadata"], "creationTimestamp": "2018-01-01T00:00:00Z"},
            }
        )
        body = mine.classify(("a.png", png()), owners="Me,ibm").json()
        assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == [first, second, "default"]
        assert body["custom_classes"] == 2
    finally:
        own.close()


def test_more_classifiers_than_answer_one_request_are_warned_of(
    stage: Stage, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify_plan, "CLASSIFIERS_LIMIT", 1)
    own = Stage(folder=tmp_path / "own")
    try:
        mine = connect(own.start_gateway(), own)
        ids = [mine.ready(name, {"heron": 0.9, "owl": 0.1}) for name in ("first", "second")]
        for asked in ({"owners": "me"}, {"classifier_ids": ",".join(ids)}):
            body = mine.classify(("a.png", png()), **asked).json()
            assert len(body["images"][0]["classifiers"]) == 1
            assert [warning["warning_id"] for warning in body["warnings"]] == ["limit_reached"]
            assert "for 2 classifiers; the first 1 answered" in body["warnings"][0]["description"]
    finally:
        own.close()


def test_ids_override_owners(client: V3Client, birds: str) -> None:
    body = client.classify(("a.png", png()), owners="me", classifier_ids="food").json()
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == ["food"]


def test_owner_me_without_a_ready_classifier_is_404(stage: Stage, gateway: GatewayInstance) -> None:
    other = connect(gateway, stage, "bert", "other")
    assert_image_error(other.classify(("a.png", png()), owners="me"), 404, "not_found", "No classifiers found")


def test_other_owners_are_400(client: V3Client) -> None:
    assert_error(client.classify(("a.png", png()), owners="me,you"), 400, "parameter_error", "owners", "you")


# A5: several images


@pytest.mark.contract_row("A5/images[].image", "A5/images_processed", "A5/Zips")
def test_zip_gives_one_item_for_each_image_in_its_order(client: V3Client, birds: str) -> None:
    archive = build_zip(
        {
            "b/two.png": png(2),
            "__MACOSX/b/._two.png": b"x",
            "a/one.jpg": plain((9, 9, 9), format_name="JPEG"),
            ".DS_Store": b"x",
            "empty.png": b"",
            "a/one.gif": plain((3,), mode="P", format_name="GIF"),
        }
    )
    body = client.classify(("birds.zip", archive), classifier_ids=birds).json()
    assert [image["image"] for image in body["images"]] == ["birds.zip/b/two.png", "birds.zip/a/one.jpg", "birds.zip/a/one.gif"]
    assert (body["images_processed"], body["custom_classes"]) == (3, 2)


@pytest.mark.contract_row("A5/images[].error", "A5/One image failed, others did not")
def test_bad_images_of_a_zip_have_separate_errors(client: V3Client, birds: str) -> None:
    archive = build_zip(
        {
            "good.png": png(),
            "notes.txt": b"some text",
            "cut.png": png()[:-100],
            "small.png": png(1, (9, 40)),
            "large.png": too_large_image(),
            "inner.zip": build_zip({"a.png": png()}),
        }
    )
    response = client.classify(("z.zip", archive), classifier_ids=birds)
    body = response.json()
    errors = [(image.get("error") or {}).get("code") for image in body["images"]]
    assert (response.status_code, errors, body["images_processed"]) == (200, [None, 400, 400, 400, 413, 400], 6)
    assert [bool(image["classifiers"]) for image in body["images"]] == [True, False, False, False, False, False]
    assert body["images"][3]["error"]["description"] == SMALL


@pytest.mark.contract_row("A5/warnings", "A5/Zips", "D/Old demos send cars.zip, 50 pictures plus a __MACOSX")
def test_only_the_first_20_images_are_classified(client: V3Client, birds: str) -> None:
    archive = build_zip({f"{index:02d}.png": png(index) for index in range(50)} | {"__MACOSX/._a": b"x"})
    body = client.classify(("cars.zip", archive), classifier_ids=birds).json()
    assert [image["image"] for image in body["images"]] == [f"cars.zip/{index:02d}.png" for index in range(20)]
    assert (body["images_processed"], [item["warning_id"] for item in body["warnings"]]) == (20, ["limit_reached"])


@pytest.mark.parametrize("part", ["images_file", "images_file[]"])
def test_several_files_are_all_classified_20_in_total(client: V3Client, birds: str, part: str) -> None:
    archive = build_zip({f"{index:02d}.png": png(index) for index in range(19)})
    body = client.classify(("a.png", png()), ("z.zip", archive), ("b.png", png()), part=part, classifier_ids=birds).json()
    assert (body["images"][0]["image"], body["images"][19]["image"]) == ("a.png", "z.zip/18.png")
    assert [item["warning_id"] for item in body["warnings"]] == ["limit_reached"]


def test_damaged_zip_next_to_a_good_image_is_a_warning(client: V3Client, birds: str) -> None:
    body = client.classify(("z.zip", b"PK\x03\x04garbage"), ("a.png", png()), classifier_ids=birds).json()
    assert ([image["image"] for image in body["images"]], body["warnings"][0]["warning_id"]) == (["a.png"], "invalid_zip")


@pytest.mark.contract_row("A5/custom_classes")
def test_custom_classes_counts_distinct_pairs(client: V3Client, birds: str) -> None:
    other = client.ready("other", {"heron": 0.9, "owl": 0.2})
    body = client.classify(("a.png", png()), ("b.png", png()), classifier_ids=f"{birds},{other},default").json()
    assert body["custom_classes"] == 3


# C3: images


@dataclass(frozen=True, kw_only=True)
class BadImage:
    what: str
    data: bytes
    status: int = 400
    error_id: str = "input_error"
    description: str = INVALID
    by_the_server: bool = True
    """The inference server refuses it, too: the stub has fewer rules than a real one."""


def bad_images() -> list[BadImage]:
    def encoded(format_name: str) -> bytes:
        return encode(Image.new("RGB", (40, 40), "red"), format_name)

    jpeg = encode(Image.fromarray(np.random.default_rng(5).integers(0, 256, (80, 80, 3), dtype=np.uint8)), "JPEG")
    return [
        BadImage(what="text", data=b"just some words"),
        BadImage(what="one byte", data=b"\xff"),
        BadImage(what="BMP", data=encoded("BMP")),
        BadImage(what="WebP", data=encoded("WEBP")),
        BadImage(what="SVG", data=b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"/>'),
        BadImage(what="PDF", data=b"%PDF-1.4\n%%EOF"),
        BadImage(what="JPEG cut off", data=jpeg[: len(jpeg) // 2]),
        BadImage(what="PNG cut off", data=png()[:-200]),
        BadImage(what="signature alone", data=b"\x89PNG\r\n\x1a\n"),
        BadImage(what="GIF of nothing", data=b"GIF89a" + bytes(20)),
        BadImage(what="TIFF of nothing", data=b"II*\0" + bytes(20)),
        BadImage(what="9 pixels wide", data=png(1, (9, 50)), description=SMALL),
        BadImage(what="9 pixels high", data=png(1, (50, 9)), description=SMALL),
        BadImage(
            what="more than 100 megapixels",
            data=many_pixels(10001, 10000),
            error_id="limit_exceeded",
            description="The image has more than 100 megapixels",
            by_the_server=False,
        ),
        BadImage(
            what="400 megapixels",
            data=many_pixels(20000, 20000),
            error_id="limit_exceeded",
            description="The image has more than 100 megapixels",
            by_the_server=False,
        ),
        BadImage(
            what="above 10 MB",
            data=too_large_image(),
            status=413,
            error_id="limit_exceeded",
            description="The image is larger than 10 MB",
        ),
    ]


BAD_IMAGES = bad_images()


@pytest.mark.parametrize("bad", BAD_IMAGES, ids=lambda bad: bad.what)
@pytest.mark.parametrize("classifier_id", ["default", "food"])
def test_bad_image_is_refused_by_built_in_classifiers(client: V3Client, bad: BadImage, classifier_id: str) -> None:
    response = client.classify(("bad.jpg", bad.data), classifier_ids=classifier_id)
    assert_image_error(response, bad.status, bad.error_id, bad.description)
    assert response.json()["images"][0]["image"] == "bad.jpg"


@pytest.mark.parametrize("bad", [bad for bad in BAD_IMAGES if bad.by_the_server], ids=lambda bad: bad.what)
def test_bad_image_is_refused_by_custom_classifiers(client: V3Client, birds: str, bad: BadImage) -> None:
    response = client.classify(("bad.jpg", bad.data), classifier_ids=birds)
    assert_image_error(response, bad.status, bad.error_id, bad.description)


def test_large_and_bad_images_together_are_400(client: V3Client) -> None:
    response = client.classify(("large.png", too_large_image()), ("notes.txt", b"text"))
    assert (response.status_code, [image["error"]["code"] for image in response.json()["images"]]) == (400, [413, 400])


@pytest.mark.parametrize(
    ("files", "data"),
    [([], {}), ([], {"threshold": "0.5"}), ([("images_file", ("empty.png", b""))], {}), ([("other", ("a.png", b"x"))], {})],
    ids=["nothing", "no image", "empty file", "another part"],
)
def test_without_an_image_it_is_400(client: V3Client, files: list[Any], data: dict[str, str]) -> None:
    response = client.http.post("/v3/classify", files=files, data=data)
    assert_error(response, 400, "parameter_error")
    assert response.json()["error"] == "No images were specified."


def test_urlencoded_body_is_read(client: V3Client) -> None:
    response = client.http.post("/v3/classify", data={"threshold": "high"})
    assert_error(response, 400, "parameter_error", "threshold")


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04garbage", build_zip({"a.png": png()})[:-30], build_zip({}), build_zip({"__MACOSX/._a.png": b"x"})],
    ids=["damaged", "cut off", "empty", "without any image"],
)
def test_useless_zip_alone_is_400(client: V3Client, birds: str, data: bytes) -> None:
    response = client.classify(("z.zip", data), classifier_ids=birds)
    assert_error(response, 400, "input_error")
    assert response.json()["images"][0]["image"] == "z.zip"


def test_single_image_does_not_wait_for_zips(client: V3Client, birds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, held, real = threading.Event(), threading.Event(), classify.ImageFiles

    def open_files(files: Any) -> Any:
        if any(file.filename == "a.zip" for file in files):
            begun.set()
            assert held.wait(30)
        return real(files)

    monkeypatch.setattr(classify, "ImageFiles", open_files)
    with ThreadPoolExecutor(4) as pool:
        zips = [pool.submit(client.classify, ("a.zip", build_zip({"a.png": png()})), classifier_ids=birds) for _ in range(3)]
        try:
            assert begun.wait(30)
            lone = pool.submit(client.classify, ("a.png", png()), classifier_ids=birds).result(timeout=10)
        finally:
            held.set()

    assert lone.status_code == 200
    assert [task.result().status_code for task in zips] == [200] * 3


def test_images_of_a_refused_request_are_named_without_being_read(client: V3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageArchive, "__iter__", lambda _: pytest.fail("it was read"))

    response = client.classify(("a.zip", build_zip({"a.png": png(), "b.png": png()})), classifier_ids="none_1")

    assert (response.status_code, [image["image"] for image in response.json()["images"]]) == (
        404,
        ["a.zip/a.png", "a.zip/b.png"],
    )


def test_self_extracting_zip_is_a_zip(client: V3Client, birds: str) -> None:
    body = client.classify(("a.exe", b"MZ" + bytes(1000) + build_zip({"a.png": png()})), classifier_ids=birds).json()

    assert [image["image"] for image in body["images"]] == ["a.exe/a.png"]


def test_zip_of_more_than_2000_entries_is_400(client: V3Client, birds: str) -> None:
    response = client.classify(("a.zip", build_zip({f"{index}.png": b"x" for index in range(2001)})), classifier_ids=birds)

    assert_image_error(response, 400, "limit_exceeded", INVALID)
    assert "more than 2000 entries" in response.json()["error"]


def test_error_of_an_entry_names_its_unknown_compression(client: V3Client, birds: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", png())

    response = client.classify(("a.zip", buffer.getvalue()), classifier_ids=birds)

    assert "compressed by LZMA" in response.json()["images"][0]["error"]["description"]


def test_invalid_utf8_in_a_name_does_not_break_the_zip(client: V3Client, birds: str) -> None:
    data = build_zip({"\u00e4.png": png(), "b.png": png()}).replace("\u00e4".encode(), b"\xff\xfe")

    assert client.classify(("a.zip", data), classifier_ids=birds).json()["images_processed"] == 2


def test_zip_of_texts_is_400_with_an_error_for_each(client: V3Client, birds: str) -> None:
    response = client.classify(("z.zip", build_zip({"a.txt": b"a", "b.txt": b"b"})), classifier_ids=birds)
    assert_image_error(response, 400, "input_error", INVALID, count=2)


def test_zip_above_100_mb_is_413(client: V3Client) -> None:
    response = client.classify(("z.zip", b"PK\x03\x04" + bytes(100 * MEGABYTE)))
    assert_error(response, 413, "limit_exceeded", "100 MB")


# C3: classifiers


@pytest.mark.contract_row("A5/Unknown classifier IDs")
def test_unknown_ids_alone_are_404_for_every_image(client: V3Client) -> None:
    response = client.classify(("a.png", png()), ("z.zip", build_zip({"b.png": png()})), classifier_ids="dogs_1,..%2F,ü")
    assert_image_error(response, 404, "not_found", "None of the requested classifier ids were found: dogs_1", count=2)


@pytest.mark.contract_row("A5/Unknown classifier IDs")
def test_unknown_ids_next_to_known_ones_are_a_warning(client: V3Client) -> None:
    # The tutorial's own command misspells its id.
    response = client.classify(("dogs.jpg", png()), classifier_ids="dogs__1941945966,default")
    body = response.json()
    assert (response.status_code, [item["classifier_id"] for item in body["images"][0]["classifiers"]]) == (200, ["default"])
    unknown = next(item for item in body["warnings"] if item["warning_id"] == "unknown_classifier_ids")
    assert "dogs__1941945966" in unknown["description"]


def test_object_of_another_name_than_its_id_is_found_among_many(stage: Stage, client: V3Client, birds: str) -> None:
    manifest = stage.classifier(birds)
    manifest["metadata"] = {"name": "by-manifest", "labels": {CLASSIFIER_ID_LABEL: "manifest_9"}}
    manifest["status"]["classifierID"] = "manifest_9"
    stage.start_server("manifest_9", manifest["status"]["servedRevision"], SCORES)
    stage.put_classifier(manifest)
    asked = [*(f"dogs_{number}" for number in range(1, 20)), "manifest_9", birds]
    body = client.classify(("a.png", png()), classifier_ids=",".join(asked)).json()
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == ["manifest_9", birds]


def test_thousands_of_unknown_ids_are_not_read_one_by_one(stage: Stage, client: V3Client) -> None:
    reads = stage.cluster.reads_by_id
    response = client.classify(("a.png", png()), classifier_ids=",".join(f"dogs_{number}" for number in range(1, 5000)))
    assert (response.status_code, stage.cluster.reads_by_id - reads) == (404, 0)


@pytest.mark.parametrize("state", ["training", "failed"])
def test_classifier_that_never_served_is_400(stage: Stage, client: V3Client, state: str) -> None:
    classifier_id = client.created("young")
    if state == "failed":
        stage.fail_training(classifier_id, "too few")
    response = client.classify(("a.png", png()), classifier_ids=classifier_id)
    assert_error(response, 400, "classifier_not_ready", classifier_id)
    assert response.json()["images"][0]["error"]["error_id"] == "classifier_not_ready"


def test_waiting_for_a_failed_classifier_is_not_advised(stage: Stage, client: V3Client) -> None:
    young, failed = client.created("young"), client.created("failed")
    stage.fail_training(failed, "too few")
    response = client.classify(("a.png", png()), classifier_ids=f"{young},{failed}")
    refused = f"the training failed or its revision was refused, see explanation in the details: {failed}"
    assert_error(response, 400, "classifier_not_ready", f"no training has succeeded yet: {young}; because {refused}")


def test_a_classifier_that_waits_for_approval_says_so(stage: Stage, client: V3Client) -> None:
    waiting = client.created("waiting")
    stage.await_approval(waiting, "it waits for approval")
    response = client.classify(("a.png", png()), classifier_ids=waiting)
    facts = f"the trained revision waits for approval, see explanation in the details: {waiting}"
    assert_error(response, 400, "classifier_not_ready", facts)


def test_classifier_that_never_served_is_a_warning_next_to_others(client: V3Client, birds: str) -> None:
    young = client.created("young")
    body = client.classify(("a.png", png()), classifier_ids=f"{young},{birds}").json()
    assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == [birds]
    assert (body["warnings"][0]["warning_id"], young in body["warnings"][0]["description"]) == ("classifier_not_ready", True)


def test_old_definition_answers_after_a_failed_retraining(stage: Stage, client: V3Client) -> None:
    classifier_id = client.ready("old", {"heron": 0.9, "owl": 0.1})
    client.retrain(classifier_id, [("stork_positive_examples", ("s.zip", build_zip({f"{i}.png": png(i) for i in range(10)})))])
    stage.fail_training(classifier_id, "bad data")
    assert classes(client.classify(("a.png", png()), classifier_ids=classifier_id).json()) == [{"class": "heron", "score": 0.9}]


# C3: servers


def served(stage: Stage, client: V3Client, replicas: int = 1) -> tuple[str, list[StubInferenceServer]]:
    classifier_id = client.created("served")
    return classifier_id, stage.finish_training(classifier_id, {"heron": 0.9, "owl": 0.1}, replicas=replicas)


def test_no_server_is_503_with_retry_after(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client)
    stage.kill_server(servers[0])
    response = client.classify(("a.png", png()), classifier_ids=classifier_id)
    assert_error(response, 503, "unavailable", classifier_id)
    assert response.headers["retry-after"].isdigit()


def test_full_queue_is_429_with_the_servers_retry_after(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client)
    servers[0].refusal = (429, "QueueFull")
    response = client.classify(("a.png", png()), classifier_ids=classifier_id)
    assert_error(response, 429)
    assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    "refusal", [(429, "QueueFull"), (503, "QueueFull"), (503, "NotReady"), (421, "OtherRevision"), (500, "?")]
)
def test_another_server_answers_if_one_refuses(stage: Stage, client: V3Client, refusal: tuple[int, str]) -> None:
    classifier_id, servers = served(stage, client, replicas=2)
    servers[0].refusal = refusal
    statuses = {client.classify(("a.png", png()), classifier_ids=classifier_id).status_code for _ in range(6)}
    assert statuses == {200}


def test_dead_server_fails_no_request(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client, replicas=2)
    stage.kill_server(servers[1])
    statuses = {client.classify(("a.png", png()), classifier_ids=classifier_id).status_code for _ in range(6)}
    assert statuses == {200}


def test_server_that_hangs_ends_in_503(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client)
    servers[0].delay_seconds = 60
    impatient = connect(stage.start_gateway(prediction_timeout_seconds=0.4), stage)
    archive = build_zip({f"{index}.png": png(index) for index in range(20)})
    started = time.monotonic()
    assert_error(impatient.classify(("z.zip", archive), classifier_ids=classifier_id), 503, "unavailable")
    assert time.monotonic() - started < 10


def test_server_that_hangs_is_replaced_by_another_one(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client, replicas=2)
    servers[0].delay_seconds = 60
    impatient = connect(stage.start_gateway(prediction_timeout_seconds=1.0), stage)
    statuses = {impatient.classify(("a.png", png()), classifier_ids=classifier_id).status_code for _ in range(3)}
    assert statuses == {200}


def test_pods_that_are_not_ready_are_not_asked(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client, replicas=2)
    stage.put_pod(servers[0], ready=False)
    client.classify(("z.zip", build_zip({f"{index}.png": png(index) for index in range(8)})), classifier_ids=classifier_id)
    assert [server.asked for server in servers] == [0, 8]


def test_pods_that_only_carry_the_labels_are_not_asked(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client, replicas=2)
    stage.put_pod(servers[0], made_by_us=False)
    client.classify(("z.zip", build_zip({f"{index}.png": png(index) for index in range(8)})), classifier_ids=classifier_id)
    assert [server.asked for server in servers] == [0, 8]


def test_concurrent_images_are_spread_over_the_servers(stage: Stage, client: V3Client) -> None:
    classifier_id, servers = served(stage, client, replicas=2)
    archive = build_zip({f"{index}.png": png(index, (400, 400)) for index in range(20)})
    assert client.classify(("z.zip", archive), classifier_ids=classifier_id).status_code == 200
    assert min(server.asked for server in servers) > 0


def test_switch_of_the_revision_has_no_gap_although_the_watch_lags(stage: Stage, client: V3Client) -> None:
    classifier_id, old = served(stage, client)
    client.classify(("a.png", png()), classifier_ids=classifier_id)
    stage.call(lambda: setattr(stage.cluster, "watching", False))
    try:
        stage.finish_training(classifier_id, {"heron": 0.2, "owl": 0.6})
        old[0].refusal = (503, "NotReady")
        body = client.classify(("a.png", png()), classifier_ids=classifier_id).json()
    finally:
        stage.call(stage.cluster.deliver)
    assert classes(body) == [{"class": "owl", "score": 0.6}]


def test_unresponsive_classifier_selected_by_owner_is_left_out_with_a_warning(stage: Stage, tmp_path: Any) -> None:
    own = Stage(folder=tmp_path / "own")
    try:
        mine = connect(own.start_gateway(), own)
        answering = mine.ready("answering", {"heron": 0.9, "owl": 0.1})
        silent = mine.created("silent")
        own.kill_server(own.finish_training(silent)[0])
        body = mine.classify(("a.png", png()), owners="me").json()
        assert [item["classifier_id"] for item in body["images"][0]["classifiers"]] == [answering]
        assert (body["warnings"][0]["warning_id"], silent in body["warnings"][0]["description"]) == (
            "classifier_unavailable",
            True,
        )
    finally:
        own.close()


def test_definition_of_another_tenant_is_never_asked(stage: Stage, gateway: GatewayInstance, client: V3Client) -> None:
    classifier_id, servers = served(stage, client)
    headers = {"Authorization": basic("bert", "other")}
    httpx.post(
        f"{gateway.address}/v3/classify",
        params=VERSION,
        headers=headers,
        data={"classifier_ids": f"{classifier_id},default", "namespace": NAMESPACE},
        files={"images_file": png()},
    )
    assert servers[0].asked == 0


# B4: built-in classifiers without a model


@pytest.mark.contract_row("B4/default also returns colour classes whose name ends in")
@pytest.mark.parametrize(
    ("color", "name"),
    [
        ((255, 0, 0), "red color"),
        ((110, 117, 14), "olive color"),
        ((173, 129, 80), "light brown color"),
        ((0, 0, 0), "black color"),
        ((255, 255, 255), "white color"),
        ((3, 67, 223), "blue color"),
    ],
)
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF"])
def test_plain_color_is_named(client: V3Client, color: tuple[int, int, int], name: str, format_name: str) -> None:
    body = client.classify(("a", plain(color, format_name=format_name))).json()
    assert name in [item["class"] for item in classes(body)]
    assert all(
        item["class"].endswith(" color") and item["score"] >= 0.5 and "type_hierarchy" not in item for item in classes(body)
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_plain_color_gets_a_name_despite_noise(client: V3Client, seed: int) -> None:
    generator = np.random.default_rng(seed)
    base = generator.integers(0, 256, 3)
    pixels = np.clip(base + generator.normal(0, 4, (120, 160, 3)), 0, 255).astype(np.uint8)
    body = client.classify(("a.jpg", encode(Image.fromarray(pixels), "JPEG", quality=60))).json()
    assert len(classes(body)) >= 1


def test_a_jpeg_without_its_end_marker_is_fine(client: V3Client) -> None:
    body = client.classify(("a.jpg", plain((255, 0, 0), format_name="JPEG")[:-2]))

    assert body.status_code == 200


def test_a_png_with_a_large_text_is_fine(client: V3Client) -> None:
    texts = PngInfo()
    texts.add_text("Comment", "x" * 5_000_000, zip=True)
    response = client.classify(("a.png", encode(Image.new("RGB", (40, 40), "red"), "PNG", pnginfo=texts)))

    assert response.status_code == 200


def test_a_grey_tiff_whose_zero_is_white_is_not_its_negative(client: V3Client) -> None:
    kind = TiffKind(photometric=WHITE_IS_ZERO, bits=16)
    response = client.classify(("a.tif", make_tiff(kind, np.zeros((HEIGHT, WIDTH, 1), dtype=np.int64))))

    assert [item["class"] for item in classes(response.json())] == ["white color"]


def test_transparent_parts_count_as_white(client: V3Client) -> None:
    body = client.classify(("a.png", encode(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG"))).json()
    assert [item["class"] for item in classes(body)] == ["white color"]


def test_first_frame_of_a_gif_counts(client: V3Client) -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (40, 40), color) for color in ("#e50000", "#15b01a")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    body = client.classify(("a.gif", buffer.getvalue())).json()
    assert [item["class"] for item in classes(body)] == ["red color"]


@pytest.mark.parametrize("classifier_id", ["default", "food", "explicit"])
def test_built_in_id_is_valid_and_says_that_it_has_no_model(client: V3Client, classifier_id: str) -> None:
    response = client.classify(("a.png", plain((229, 0, 0))), classifier_ids=classifier_id)
    body = response.json()
    answer = body["images"][0]["classifiers"][0]
    assert (response.status_code, answer["classifier_id"], answer["name"]) == (200, classifier_id, classifier_id)
    assert bool(answer["classes"]) == (classifier_id != "explicit")
    assert ([item["warning_id"] for item in body["warnings"]], body["custom_classes"]) == (["classifier_unavailable"], 0)
