"""Importing a project of Azure Custom Vision, from a stand-in of its training API.

The stand-in is written by hand from Microsoft's OpenAPI document. It is not a recording of the service.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocelli_import.custom_vision import CountMismatchError, ProjectImages, check_counts, fetch_original, read_project
from ocelli_import.custom_vision_api import CustomVisionError, TrainingApi, TrainingKey
from ocelli_import.downloads import DownloadError, DownloadFolder, Failure, Fetcher, download_all, open_client
from ocelli_import.listing import RemoteImage
from tests.unit.clients.custom_vision_stand_in import (
    KEY,
    OBJECT_DETECTION,
    SIGNATURE,
    StandIn,
    StandInImage,
    identifier,
    running_stand_in,
)
from tests.unit.clients.photographs import image_bytes


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with running_stand_in() as running:
        running.add("husky", range(12))
        running.add("beagle", range(20, 31))
        running.add("Negative", range(40, 50))
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def api(stand_in: StandIn, pauses: list[float]) -> Iterator[TrainingApi]:
    with TrainingApi(stand_in.address, TrainingKey(KEY), sleep=pauses.append) as api:
        yield api


def counts(read: ProjectImages) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for image in read.listing.images:
        found[image.class_name] = found.get(image.class_name, 0) + 1
    return found


def download(api: TrainingApi, read: ProjectImages, folder: Path) -> list[Failure]:
    with open_client() as client:
        fetcher = Fetcher(client=client, sleep=lambda seconds: None)
        downloads = DownloadFolder(folder, read.project.project_id)
        return download_all(read.listing.remote, downloads, lambda image: fetch_original(read, fetcher, api, image))


def test_tags_become_classes_and_the_negative_tag_negative_examples(api: TrainingApi) -> None:
    assert counts(read_project(api, "Dogs")) == {"beagle": 11, "husky": 12, None: 10}


def test_a_project_is_found_by_its_id_too(api: TrainingApi) -> None:
    assert read_project(api, identifier("project")).project.name == "Dogs"


def test_an_unknown_project_is_refused_with_the_names_of_the_others(api: TrainingApi) -> None:
    with pytest.raises(CustomVisionError, match='has no project "Cats"; its projects: "Dogs"'):
        read_project(api, "Cats")


def test_a_regular_tag_named_negative_is_a_class(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.negative_tags.clear()
    assert counts(read_project(api, "Dogs"))["Negative"] == 10


def test_all_pages_are_read(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.add("mutt", range(100, 100 + 600))
    assert counts(read_project(api, "Dogs"))["mutt"] == 600
    assert [request.split("skip=")[1] for request in stand_in.requests if "skip=" in request] == ["0", "256", "512"]


def test_images_with_several_tags_are_left_out_counted_and_named(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.classification_type = "Multilabel"
    stand_in.images.append(StandInImage(60, ("husky", "beagle")))
    read = read_project(api, "Dogs")
    assert counts(read) == {"beagle": 11, "husky": 12, None: 10}
    assert read.listing.notices == (
        "The project is multilabel. Left out, because Ocelli learns one class for each image: 1 image with several tags: "
        f"{identifier('image 60')} (husky, beagle)",
    )


def test_untagged_images_and_empty_tags_are_counted(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.untagged = 4
    stand_in.extra_tags = ("poodle",)
    assert read_project(api, "Dogs").listing.notices == (
        "Left out: 4 images without a tag",
        "Left out: 1 tag without images: poodle",
    )


def test_a_project_that_finds_objects_is_refused_before_anything_is_read(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.domain = OBJECT_DETECTION
    with pytest.raises(CustomVisionError, match=r"finds objects: its tags belong to regions.*nothing was imported"):
        read_project(api, "Dogs")
    assert not [request for request in stand_in.requests if "/images" in request]


def test_images_with_regions_are_left_out_and_counted(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.images.append(StandInImage(60, ("husky",), regions=True))
    read = read_project(api, "Dogs")
    assert counts(read)["husky"] == 12
    assert read.listing.notices == ("Left out: 1 image with regions, which Ocelli does not learn from",)


def test_a_tag_that_the_service_counts_otherwise_is_an_error_with_the_numbers(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.miscounted = {"husky": 14}
    with pytest.raises(CountMismatchError, match='the service counts 14 images with the tag "husky", and 12 were listed'):
        read_project(api, "Dogs")


def test_an_image_that_is_added_during_the_import_is_found_by_the_last_count(api: TrainingApi, stand_in: StandIn) -> None:
    read = read_project(api, "Dogs")
    stand_in.add("husky", range(12, 13))
    with pytest.raises(CountMismatchError, match=r'13 images with the tag "husky", and 12 .*; 34 tagged images, and 33 were'):
        check_counts(api, read)


def test_originals_are_downloaded_and_the_key_goes_only_to_the_api(api: TrainingApi, stand_in: StandIn, tmp_path: Path) -> None:
    read = read_project(api, "Dogs")
    assert download(api, read, tmp_path) == []
    downloads = DownloadFolder(tmp_path, read.project.project_id)
    first = RemoteImage(key=identifier("image 0"), url="", name="")
    assert downloads.path_of(first).read_bytes() == image_bytes(0)
    assert set(stand_in.keys_at_images) == {""}


def test_images_of_a_resource_in_a_virtual_network_are_artifacts(api: TrainingApi, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.in_network = True
    read = read_project(api, "Dogs")
    assert download(api, read, tmp_path) == []
    assert stand_in.keys_at_images == []
    assert stand_in.downloads == 33


def test_an_interrupted_import_goes_on_where_it_was(api: TrainingApi, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.images_until_outage = 20
    assert len(download(api, read_project(api, "Dogs"), tmp_path)) == 13
    stand_in.images_until_outage = None
    stand_in.requests.clear()
    assert download(api, read_project(api, "Dogs"), tmp_path) == []
    assert stand_in.downloads == 13


def test_an_image_that_is_missing_is_named_without_its_signature(api: TrainingApi, stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.broken_images = {3}
    (failure,) = download(api, read_project(api, "Dogs"), tmp_path)
    assert failure.image.key == identifier("image 3")
    assert failure.reason == f"{stand_in.address}/blobs/3 answered 404"


def test_a_busy_service_is_asked_again_after_the_time_it_names(
    api: TrainingApi, stand_in: StandIn, pauses: list[float]
) -> None:
    stand_in.busy_requests = 2
    read_project(api, "Dogs")
    assert pauses == [7.0, 7.0]


def test_a_service_that_stays_busy_is_an_error(api: TrainingApi, stand_in: StandIn) -> None:
    stand_in.busy_requests = 100
    with pytest.raises(CustomVisionError, match=r"answered 429: Rate limit is exceeded\. \(TooManyRequests\)"):
        read_project(api, "Dogs")


def test_a_wrong_key_says_where_the_right_one_is(stand_in: StandIn) -> None:
    with pytest.raises(
        CustomVisionError, match="does not accept the training key; take key and endpoint of the training resource"
    ):
        read_project(TrainingApi(stand_in.address, TrainingKey("f" * 32)), "Dogs")


def test_an_address_that_is_not_reachable_is_an_error(pauses: list[float]) -> None:
    with pytest.raises(CustomVisionError, match=r"http://127\.0\.0\.1:1 is not reachable .*; check the endpoint"):
        read_project(TrainingApi("http://127.0.0.1:1", TrainingKey(KEY), sleep=pauses.append), "Dogs")


def test_another_service_at_the_endpoint_is_noticed(
    stand_in: StandIn, api: TrainingApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "answer", lambda path, query: (200, [{"hello": "world"}]))
    with pytest.raises(CustomVisionError, match=r"did not answer /projects as Custom Vision v3\.3 does; check the endpoint"):
        read_project(api, "Dogs")


def test_the_key_is_not_sent_in_clear_text() -> None:
    with pytest.raises(CustomVisionError, match="would send the training key in clear text; use its https address"):
        TrainingApi("http://example.com", TrainingKey(KEY))


@pytest.mark.parametrize("key", ["", " ", "sécret", "secret\r\nX: y", "{secret}"])
def test_a_key_that_cannot_be_one_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(CustomVisionError) as refused:
        TrainingKey(key)
    assert str(refused.value) == "The training key has other characters than letters and digits; copy it again"


def test_neither_key_nor_signatures_are_logged_or_kept(
    api: TrainingApi, stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stand_in.broken_images = {3}
    download(api, read_project(api, "Dogs"), tmp_path)
    written = caplog.text + repr(TrainingKey(KEY)) + repr(vars(api))
    written += "".join(path.read_text() for path in tmp_path.iterdir() if path.suffix == ".jsonl")
    assert KEY not in written
    assert SIGNATURE not in "".join(path.read_text() for path in tmp_path.iterdir() if path.suffix == ".jsonl")


def test_a_folder_of_another_project_is_refused(tmp_path: Path) -> None:
    DownloadFolder(tmp_path, "project 1")
    with pytest.raises(DownloadError, match="has downloads of project 1, not of project 2; choose another folder"):
        DownloadFolder(tmp_path, "project 2")


def test_a_manifest_that_was_cut_off_is_repaired(tmp_path: Path) -> None:
    image, other = (RemoteImage(key=str(number), url="", name="") for number in range(2))
    folder = DownloadFolder(tmp_path, "project")
    folder.save(image, image_bytes(1))
    manifest = tmp_path / "downloads.jsonl"
    manifest.write_text(manifest.read_text() + '{"key": "1", "fi')
    again = DownloadFolder(tmp_path, "project")
    again.save(other, image_bytes(2))
    last = DownloadFolder(tmp_path, "project")
    assert (last.find(image) is not None, last.find(other) is not None) == (True, True)
