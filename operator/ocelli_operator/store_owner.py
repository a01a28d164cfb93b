"""Which installation the object store belongs to: one document in the store names it, by the UID of its Lease.

Only the owner may tell waste from what is in use: to any other installation everything in the store is waste. A store without
an owner, new or of an earlier release, gets the first installation that sweeps it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from ocelli_storage.documents import parse_document
from ocelli_storage.layout import owner_key
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoreUnavailableError

logger = logging.getLogger(__name__)

DOCUMENT_LIMIT_BYTES = 4096
UNKNOWN_OWNER = "unknown"
"""The name of an owner whose document cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """Who asks, and whom the store belongs to."""

    installation: str
    owner: str

    @property
    def is_ours(self) -> bool:
        return self.installation == self.owner


async def claim_store(store: ObjectStore, installation: str, adopted: str) -> Ownership:
    """Whose store it is, after it was claimed where nobody owns it, or where its owner is the one that is adopted.

    Raises:
        StoreUnavailableError: the store cannot be read.
    """
    owner = await _read_owner(store)
    if owner is not None and owner not in (installation, adopted):
        return Ownership(installation=installation, owner=owner)
    if owner != installation:
        document = json.dumps({"installation": installation, "adoptedFrom": owner}).encode()
        try:
            await store.put(owner_key(), document)
        except StoreUnavailableError as error:
            # A full store must be swept to have room again.
            logger.warning("the store could not be claimed", extra={"problem": str(error)})
        else:
            logger.info("the store was claimed", extra={"installation": installation, "adopted_from": owner})
    return Ownership(installation=installation, owner=installation)


async def _read_owner(store: ObjectStore) -> str | None:
    try:
        document = parse_document(await store.get(owner_key(), limit_bytes=DOCUMENT_LIMIT_BYTES))
    except ObjectNotFoundError:
        return None
    except (ObjectTooLargeError, ValueError) as error:
        logger.warning("the store's owner cannot be read", extra={"key": owner_key(), "problem": str(error)})
        return UNKNOWN_OWNER
    owner = document.get("installation")
    return owner if isinstance(owner, str) and owner else UNKNOWN_OWNER
