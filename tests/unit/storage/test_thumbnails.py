"""Thumbnails in pages: removing them by customer, and only them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ocelli_storage.store_url import open_store
from ocelli_storage.thumbnails import (
    PAGE_LIMIT_BYTES,
    THUMBNAIL_LIMIT_BYTES,
    build_thumbnail,
    erase_thumbnails,
    remove_thumbnails,
)

ANNA, BERT = "a" * 32, "b" * 32


def build_page(*lines: str) -> bytes:
    return "\n".join(["<h1>Dogs</h1>", *lines, "<p>end</p>", ""]).encode()


def test_only_the_thumbnails_of_the_customer_are_removed() -> None:
    others = [build_thumbnail(b"without a customer", None), build_thumbnail(b"of bert", BERT)]
    page = build_page(build_thumbnail(b"of anna", ANNA), *others)
    left = remove_thumbnails(page, ANNA)
    assert left == build_page('<span class="erased">erased</span>', *others)


def test_without_a_customer_every_thumbnail_is_removed() -> None:
    page = build_page(*(build_thumbnail(b"picture", customer) for customer in (None, ANNA, BERT)))
    assert remove_thumbnails(page) == build_page(*['<span class="erased">erased</span>'] * 3)


@pytest.mark.parametrize(
    "line",
    [
        '<td>&lt;img class="thumbnail" alt="" data-customer="" src="data:image/jpeg;base64,">',
        '<td><img class="thumbnail" alt="" data-customer="" src="data:image/jpeg;base64,">',
        'name <img class="thumbnail" alt="" data-customer="" src="x"> name',
    ],
    ids=["escaped", "within a line", "with text around it"],
)
def test_what_is_not_a_line_of_its_own_stays(line: str) -> None:
    assert remove_thumbnails(build_page(line)) == build_page(line)


def test_a_file_that_is_too_large_is_no_thumbnail() -> None:
    build_thumbnail(b"x" * THUMBNAIL_LIMIT_BYTES, None)
    with pytest.raises(ValueError, match="larger than 65536"):
        build_thumbnail(b"x" * (THUMBNAIL_LIMIT_BYTES + 1), None)


@pytest.mark.parametrize("customer", ['"><script>', "a\nb", "A" * 32, "é" * 32])
def test_a_customer_that_is_no_key_is_refused(customer: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        build_thumbnail(b"x", customer)


def test_a_stored_page_is_changed_in_place(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    page = build_page(build_thumbnail(b"of anna", ANNA))
    asyncio.run(store.put("tenants/a/report.html", page))
    asyncio.run(erase_thumbnails(store, "tenants/a/report.html", ANNA))
    assert asyncio.run(store.get("tenants/a/report.html", limit_bytes=1 << 20)) == remove_thumbnails(page, ANNA)


def test_a_page_that_is_gone_is_not_an_error(tmp_path: Path) -> None:
    asyncio.run(erase_thumbnails(open_store(tmp_path.as_uri()), "tenants/a/report.html"))


def test_a_page_that_is_too_large_to_be_one_is_deleted(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    asyncio.run(store.put("tenants/a/report.html", b"x"))
    with (tmp_path / "tenants/a/report.html").open("r+b") as file:
        # Sparse: it takes no space.
        file.truncate(PAGE_LIMIT_BYTES + 1)
    asyncio.run(erase_thumbnails(store, "tenants/a/report.html"))
    assert not asyncio.run(store.exists("tenants/a/report.html"))
