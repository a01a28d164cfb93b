"""Thumbnails in the pages of reports. Each is a line of its own that names the customer whose image it is, so that it can be
removed when the image is erased, without knowing anything else of the page.

A page is self-contained, so the images are in it. It must not know what a report says.
"""

from __future__ import annotations

import base64
import re

from ocelli_storage.archives import MEGABYTE
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError

THUMBNAIL_LIMIT_BYTES = 64 * 1024
PAGE_LIMIT_BYTES = 64 * MEGABYTE
"""A larger page cannot be one of a report."""

_CUSTOMER = re.compile(r"[0-9a-z]{0,64}", re.ASCII)
_START = '<img class="thumbnail" alt="" data-customer="'
_ERASED = b'<span class="erased">erased</span>'


def build_thumbnail(jpeg: bytes, customer: str | None) -> str:
    """The line of HTML for a JPEG file of at most `THUMBNAIL_LIMIT_BYTES`. `customer` is a key, see `names.customer_key`.

    Raises:
        ValueError: the file is larger, or the key is not one.
    """
    if len(jpeg) > THUMBNAIL_LIMIT_BYTES:
        raise ValueError(f"a thumbnail of {len(jpeg)} bytes is larger than {THUMBNAIL_LIMIT_BYTES}")
    if not _CUSTOMER.fullmatch(customer or ""):
        raise ValueError("a thumbnail's customer is not a key")
    return f'{_START}{customer or ""}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def remove_thumbnails(page: bytes, customer: str | None = None) -> bytes:
    """The page without the thumbnails of a customer's images, or (None) without any. Everything else stays as it is."""
    owner = b"[0-9a-z]*" if customer is None else re.escape(customer.encode())
    return re.sub(rb"(?m)^[ ]*" + re.escape(_START.encode()) + owner + rb'" src="[^"\n]*">$', _ERASED, page)


async def erase_thumbnails(store: ObjectStore, key: str, customer: str | None = None) -> None:
    """Remove thumbnails from a stored page, see `remove_thumbnails`. A page that is too large is deleted.

    Raises:
        StoreUnavailableError: some thumbnails may be left.
    """
    try:
        page = await store.get(key, limit_bytes=PAGE_LIMIT_BYTES)
    except ObjectNotFoundError:
        return
    except ObjectTooLargeError:
        # No report is: a tenant's Pod wrote it.
        await store.delete(key)
        return
    changed = remove_thumbnails(page, customer)
    if changed != page:
        await store.put(key, changed)
