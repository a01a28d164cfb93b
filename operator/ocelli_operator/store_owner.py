"""Which installation the object store belongs to: a document in the store names it, by the UID of its Lease.

Only the owner can tell orphans from data in use: to any other installation, everything in the store looks like an orphan. A
store without an owner, because it is new or of an earlier release, belongs to the first installation that sweeps it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from ocelli_operator.installation_documents import load_document
from ocelli_storage.layout import owner_key
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError

logger = logging.getLogger(__name__)

DOCUMENT_LIMIT_BYTES = 4096
UNKNOWN_OWNER = "unknown"
"""The name of the owner if its document cannot be parsed."""


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """The installation that asks, and the one that owns the store."""

    installation: str
    owner: str

    @property
    def is_ours(self) -> bool:
        return self.installation == self.owner


async def claim_store(store: ObjectStore, installation: str, adopted: str) -> Ownership:
    """Claim the store if it has no owner, or if its owner is the adopted installation; return the ownership afterwards.

    Raises:
        StoreUnavailableError: the store cannot be read.
    """
    owner = await load_document(
        store, owner_key(), _parse_owner, absent=None, unreadable=UNKNOWN_OWNER, limit_bytes=DOCUMENT_LIMIT_BYTES
    )
    if owner is not None and owner not in (installation, adopted):
        return Ownership(installation=installation, owner=owner)
    if owner != installation:
        document = json.dumps({"installation": installation, "adoptedFrom": owner}).encode()
        try:
            await store.put(owner_key(), document)
        except StoreUnavailableError as error:
            # A full store has to be swept before anything can be written.
            logger.warning("store could not be claimed", extra={"error": str(error)})
        else:
            logger.info("store claimed", extra={"installation": installation, "adopted_from": owner})
    return Ownership(installation=installation, owner=installation)


def _parse_owner(document: dict[str, Any]) -> str | None:
    owner = document.get("installation")
    return owner if isinstance(owner, str) and owner else UNKNOWN_OWNER
