"""Documents in the store: JSON that a tenant's Pods may have written, and that operator and gateway read for everybody.

So nothing about it is believed: neither that it is small, nor that it can be parsed. It must not know what a document means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ocelli_storage.layout import ARTIFACT_METADATA, DEFINITION, OUTCOME, PROGRESS
from ocelli_storage.object_store import ObjectStore

KIBIBYTE = 1024
LIMITS_BYTES: Mapping[str, int] = {
    # The densest definition of a Classifier that etcd takes (1.5 MiB, compact) has 2.9 MB as it is written here, with spaces.
    DEFINITION: 4096 * KIBIBYTE,
    # 25,000 classes of a pretrained classifier, whose names may take 3 MiB, or 500 learned ones with their calibrations.
    ARTIFACT_METADATA: 4096 * KIBIBYTE,
    # A few hundred bytes, and a few thousand.
    PROGRESS: 64 * KIBIBYTE,
    OUTCOME: 64 * KIBIBYTE,
}
"""By the document's name. JSON takes up to 30 times as much memory once it is parsed."""


async def read_document(store: ObjectStore, key: str) -> bytes:
    """The bytes of a document, as many as its name allows. Errors as `ObjectStore.get`."""
    return await store.get(key, limit_bytes=LIMITS_BYTES[key.rsplit("/", 1)[-1]])


def parse_document(content: bytes) -> dict[str, Any]:
    """The JSON object in a document.

    Raises:
        ValueError: it holds none.
    """
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document
