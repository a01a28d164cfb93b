"""Lists of addresses: what they may contain, and how the images behind them are fetched."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ocelli_api.classifier import Source
from ocelli_api.outcome import OutcomeReason
from ocelli_storage.archives import ArchiveImage, ArchiveLimits, EntryFault, SkippedEntry
from ocelli_training.address_list import is_address_list, parse_address_list
from ocelli_training.sources import SourceError, SourceLimits
from tests.unit.training.conftest import Reading

BASE = "https://data.example/pictures/list.csv"


def parse(text: str, *, base: str = BASE, all_pinned: bool = False) -> list[str]:
    found = parse_address_list(base, text.encode(), images_limit=5, all_pinned=all_pinned)
    return [item.url for item in found]


def serve(web_server: Any, make_image: Any, count: int = 3) -> list[str]:
    return [web_server.answer(f"/{seed}.png", body=make_image(seed)) for seed in range(count)]


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.jsonl", "a.ndjson", "a.csv?signature=x"])
def test_a_list_is_known_by_the_end_of_its_address(name: str) -> None:
    assert is_address_list(f"https://data.example/{name}")


@pytest.mark.parametrize("name", ["a.zip", "csv", "a.csv/", "a.zip?b.csv"])
def test_other_addresses_are_no_lists(name: str) -> None:
    assert not is_address_list(f"https://data.example/{name}")


def test_a_csv_names_one_address_a_line() -> None:
    assert parse("url,sha256\nhttps://a/1.jpg,\n\nhttps://a/2.jpg," + "a" * 64 + "\n") == ["https://a/1.jpg", "https://a/2.jpg"]


def test_an_address_with_a_comma_is_quoted() -> None:
    assert parse('\ufeffurl\r\n"https://a/1,2.jpg"\r\n') == ["https://a/1,2.jpg"]


def test_json_lines_name_one_address_each() -> None:
    lines = "\n".join(json.dumps({"url": f"s3://bucket/{number}.jpg"}) for number in range(2))
    assert parse(lines, base="s3://bucket/list.jsonl") == ["s3://bucket/0.jpg", "s3://bucket/1.jpg"]


def test_a_path_is_next_to_its_list() -> None:
    assert parse("url\ncats/1.jpg\n") == ["https://data.example/pictures/cats/1.jpg"]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "its first line is ''"),
        ("https://a/1.jpg\n", "instead of the header url"),
        ("url,label\nhttps://a/1.jpg,cat\n", "its first line is 'url,label'"),
        ("url\nhttps://a/1.jpg,cat\n", "line 2 has 2 columns instead of 1"),
        ("url\n", "it has no addresses"),
        ("url\nftp://a/1.jpg\n", "of the kind ftp://"),
        ("url\nfile:///1.jpg\n", "only lists that are files themselves"),
        ("url\n../1.jpg\n", "leads out of the folder of the list"),
        ("url\n/1.jpg\n", "leads out of the folder of the list"),
        ("url\nhttps://a/\n", "is the address of a folder"),
        ("url\nhttps://[a/1.jpg\n", "is not a valid address"),
        ("url,sha256\nhttps://a/1.jpg,ABC\n", "its sha256 is not 64 lower-case hex digits"),
        ("url\n" + "https://a/1.jpg\n" * 6, "more than 5 addresses"),
        ('url\n"https://a/1.jpg\n', "is not CSV"),
    ],
)
def test_a_wrong_list_is_refused_with_its_line(text: str, fact: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(text)
    assert fact in str(caught.value)
    assert caught.value.reason is OutcomeReason.INVALID_DATA
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("[1]", "line 1 is not a JSON object"),
        ("{", "line 1 is not a JSON object"),
        ('{"url": 3}', "line 1 has no address"),
        ('{"url": "https://a/1.jpg", "label": "cat"}', "line 1 has the key 'label'"),
        pytest.param("[" * 100_000, "line 1 is not a JSON object", id="nested"),
    ],
)
def test_a_wrong_line_of_json_is_refused(line: str, fact: str) -> None:
    with pytest.raises(SourceError, match=fact.replace("[", r"\[")):
        parse(line, base="https://a/list.jsonl")


def test_a_list_that_is_not_text_is_refused() -> None:
    with pytest.raises(SourceError, match="not a text in UTF-8"):
        parse_address_list(BASE, b"\xff\xfe", images_limit=5, all_pinned=False)


def test_a_pinned_list_pins_each_image() -> None:
    with pytest.raises(SourceError, match="line 2 has no sha256, although the list is pinned"):
        parse("url\nhttps://a/1.jpg\n", all_pinned=True)


def test_the_images_of_a_list_are_fetched_in_its_order(reading: Reading, web_server: Any, make_image: Any) -> None:
    urls = serve(web_server, make_image)
    text = "url\n" + "".join(f"{url}\n" for url in reversed(urls))
    found = reading.read(Source(url=web_server.answer("/list.csv", body=text.encode())))
    assert [item.name for item in found] == urls[::-1]
    assert [item.data for item in found if isinstance(item, ArchiveImage)] == [make_image(seed) for seed in (2, 1, 0)]
    assert list(reading.scratch.iterdir()) == []


def test_a_list_in_the_folder_of_file_sources_names_files_next_to_it(reading: Reading, make_image: Any) -> None:
    (reading.jail / "cats").mkdir()
    (reading.jail / "cats" / "a.png").write_bytes(make_image())
    (reading.jail / "list.jsonl").write_text('{"url": "cats/a.png"}\n{"url": "file:///cats/a.png"}\n')
    found = reading.read(Source(url="file:///list.jsonl"))
    assert [isinstance(item, ArchiveImage) for item in found] == [True, True]


def test_a_file_outside_of_the_folder_of_file_sources_is_refused(reading: Reading, make_image: Any) -> None:
    (reading.scratch / "a.png").write_bytes(make_image())
    (reading.jail / "link.png").symlink_to(reading.scratch / "a.png")
    (reading.jail / "list.csv").write_text("url\nlink.png\n")
    assert "leads out of the folder of file sources" in str(reading.refusal(Source(url="file:///list.csv")))


def test_a_private_address_in_a_list_is_refused(reading: Reading, make_image: Any) -> None:
    (reading.jail / "list.csv").write_text("url\nhttp://169.254.169.254/latest/meta-data/a.png\n")
    error = reading.refusal(Source(url="file:///list.csv"))
    assert "file:///list.csv: line 2, http://169.254.169.254/latest/meta-data/a.png: the address" in str(error)
    assert "is in a private or denied network" in str(error)


def test_an_address_that_is_not_found_fails_the_source(reading: Reading, web_server: Any, make_image: Any) -> None:
    (url, *_) = serve(web_server, make_image)
    body = f"url\n{url}\n{web_server.url}/none.png\n".encode()
    error = reading.refusal(Source(url=web_server.answer("/list.csv", body=body)))
    assert f"line 3, {web_server.url}/none.png: the server answered 404" in str(error)
    assert not error.transient


def test_a_transient_error_of_one_address_is_retried_alone(reading: Reading, web_server: Any, make_image: Any) -> None:
    url = web_server.answer("/a.png", status=503)
    web_server.answer("/a.png", body=make_image())
    reading.read(Source(url=web_server.answer("/list.csv", body=f"url\n{url}\n".encode())))
    assert web_server.requests == ["/list.csv", "/a.png", "/a.png"]


def test_a_pinned_image_with_other_bytes_is_refused(reading: Reading, web_server: Any, make_image: Any) -> None:
    url = web_server.answer("/a.png", body=make_image())
    body = f"url,sha256\n{url},{'0' * 64}\n".encode()
    pin = hashlib.sha256(body).hexdigest()
    error = reading.refusal(Source(url=web_server.answer("/list.csv", body=body), sha256=pin))
    assert f"its SHA-256 is {hashlib.sha256(make_image()).hexdigest()}, not {'0' * 64}" in str(error)


def test_what_is_no_image_or_too_large_is_skipped_without_reading_it_all(
    reading: Reading, web_server: Any, make_image: Any
) -> None:
    urls = [
        web_server.answer("/page.html", body=b"<html>" + bytes(20)),
        web_server.answer("/large.png", body=make_image() + bytes(5000)),
    ]
    reading.limits = SourceLimits(archive=ArchiveLimits(image_bytes=4000))
    text = "url\n" + "".join(f"{url}\n" for url in urls)
    found = reading.read(Source(url=web_server.answer("/list.csv", body=text.encode())))
    assert [item.fault for item in found if isinstance(item, SkippedEntry)] == [EntryFault.NOT_AN_IMAGE, EntryFault.TOO_LARGE]


def test_the_images_of_a_list_have_a_limit_in_total(reading: Reading, web_server: Any, make_image: Any) -> None:
    urls = serve(web_server, make_image)
    reading.limits = SourceLimits(archive=ArchiveLimits(inflated_bytes=len(make_image(0)) + 1))
    text = "url\n" + "".join(f"{url}\n" for url in urls)
    error = reading.refusal(Source(url=web_server.answer("/list.csv", body=text.encode())))
    assert "split it into several sources" in str(error)
