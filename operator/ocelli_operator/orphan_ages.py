"""Since when an installation has seen that nothing refers to something in the store.

An object's own age says nothing about that: in a cluster built anew everything is old, and nothing is referred to yet. The
times are kept in the store, in one document per installation, so that they outlive the operator.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from ocelli_storage.documents import parse_document
from ocelli_storage.layout import UPLOADS, orphans_key
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoreUnavailableError

logger = logging.getLogger(__name__)

PLACES_LIMIT = 20_000
"""So many places are noted at most, which takes about 3 MB. The others wait until these are gone."""
DOCUMENT_LIMIT_BYTES = 32 * 1024 * 1024
"""Of as many places as are noted, with the longest keys that a store takes."""


def find_place(key: str) -> str:
    """What an object is noted by: an upload by its key, anything else by its folder, so that few are noted."""
    return key if key.split("/")[2] == UPLOADS else key.rsplit("/", 1)[0]


class OrphanAges:
    """The notes of one operator, for as long as it leads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._unsaved: Mapping[str, datetime] | None = None
        """The last notes, where the store had no room for them."""

    async def note(self, installation: str, places: Collection[str], now: datetime) -> Mapping[str, datetime]:
        """Note that nothing refers to these places, and to no others; says since when. A place that is not in the answer has
        to wait.

        Raises:
            StoreUnavailableError: the notes of before cannot be read.
        """
        before = await self._load(installation) if self._unsaved is None else self._unsaved
        known = {place: min(before[place], now) for place in places if place in before}
        room = max(PLACES_LIMIT - len(known), 0)
        after = known | dict.fromkeys(sorted(set(places) - known.keys())[:room], now)
        if after != before:
            await self._save(installation, after)
        return after

    async def _load(self, installation: str) -> Mapping[str, datetime]:
        key = orphans_key(installation)
        try:
            document = parse_document(await self._store.get(key, limit_bytes=DOCUMENT_LIMIT_BYTES))
            return {place: datetime.fromisoformat(since).astimezone(UTC) for place, since in document["unusedSince"].items()}
        except ObjectNotFoundError:
            return {}
        except (ObjectTooLargeError, KeyError, ValueError, TypeError, AttributeError) as error:
            # All ages begin anew, which delays deletions and loses nothing.
            logger.warning("notes about unused objects cannot be read", extra={"key": key, "problem": str(error)})
            return {}

    async def _save(self, installation: str, notes: Mapping[str, datetime]) -> None:
        document = json.dumps({"unusedSince": {place: since.isoformat() for place, since in notes.items()}})
        try:
            await self._store.put(orphans_key(installation), document.encode())
        except StoreUnavailableError as error:
            # A full store must be swept to have room again.
            logger.warning("notes about unused objects could not be stored", extra={"problem": str(error)})
            self._unsaved = notes
        else:
            self._unsaved = None
