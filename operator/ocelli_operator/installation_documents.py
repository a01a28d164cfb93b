"""Documents that an installation keeps for itself in the object store, next to the data of tenants."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from ocelli_storage.documents import parse_document
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError

logger = logging.getLogger(__name__)

T = TypeVar("T")

DOCUMENT_LIMIT_BYTES = 32 * 1024 * 1024
"""Enough for the longest list of orphans with the longest keys."""


async def load_document(
    store: ObjectStore,
    key: str,
    parse: Callable[[dict[str, Any]], T],
    *,
    absent: T,
    unreadable: T,
    limit_bytes: int = DOCUMENT_LIMIT_BYTES,
) -> T:
    """What `parse` makes of a document; `absent` or `unreadable` if there is nothing to parse.

    Raises:
        StoreUnavailableError: the store cannot be read.
    """
    try:
        return parse(parse_document(await store.get(key, limit_bytes=limit_bytes)))
    except ObjectNotFoundError:
        return absent
    except (ObjectTooLargeError, KeyError, ValueError, TypeError, AttributeError) as error:
        logger.warning("stored document cannot be parsed", extra={"key": key, "error": str(error)})
        return unreadable
