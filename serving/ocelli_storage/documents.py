"""Documents in the store: JSON that a tenant's Pods can write, and that operator and gateway read for all tenants.

So neither its size nor its form is trusted. This module must not know what a document means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ocelli_storage.layout import ARTIFACT_METADATA, BILL_OF_MATERIALS, DEFINITION, OUTCOME, PROGRESS, SIGNATURE
from ocelli_storage.object_store import ObjectStore

KIBIBYTE = 1024
LIMITS_BYTES: Mapping[str, int] = {
    # The largest definition that etcd accepts (1.5 MiB, compact) takes 2.9 MB as written here, with spaces.
    DEFINITION: 4096 * KIBIBYTE,
    # 25,000 classes of a pretrained classifier, with names of up to 3 MiB, or 500 learned classes with their calibrations.
    ARTIFACT_METADATA: 4096 * KIBIBYTE,
    # 200 libraries and 1,000 sources take half a megabyte.
    BILL_OF_MATERIALS: 16384 * KIBIBYTE,
    # Normally hundreds of bytes, and thousands.
    SIGNATURE: 64 * KIBIBYTE,
    PROGRESS: 64 * KIBIBYTE,
    OUTCOME: 64 * KIBIBYTE,
}
"""By the document's name. Parsed JSON takes up to 30 times as much memory."""


async def read_document(store: ObjectStore, key: str) -> bytes:
    """The bytes of a document, up to the limit for its name. Errors as `ObjectStore.get`."""
    return await store.get(key, limit_bytes=LIMITS_BYTES[key.rsplit("/", 1)[-1]])


def parse_document(content: bytes) -> dict[str, Any]:
    """The JSON object in a document.

    Raises:
        ValueError: it is not one.
    """
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document
