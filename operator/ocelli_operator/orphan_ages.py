"""Since when an installation has seen that an object in the store is an orphan, that is, that nothing refers to it.

The age of the object itself does not say this: in a rebuilt cluster every object is old, and nothing refers to any of them yet.
The times are stored in one document per installation, so that they survive the operator.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from ocelli_operator.installation_documents import load_document
from ocelli_storage.layout import orphans_key
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError

logger = logging.getLogger(__name__)

PLACES_LIMIT = 20_000
"""At most this many places are recorded, which takes about 3 MB. Others wait until some of these are deleted."""


class OrphanAges:
    """The times of one installation, for as long as this operator leads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._unsaved: Mapping[str, datetime] | None = None
        """The latest times, if the store was too full to save them."""

    async def note(self, installation: str, places: Collection[str], now: datetime) -> Mapping[str, datetime]:
        """Record that these places, and no others, are orphans. Returns since when each of them is one. Places that are missing
        from the answer have to wait.

        Raises:
            StoreUnavailableError: the earlier times cannot be read.
        """
        before = await self._load(installation) if self._unsaved is None else self._unsaved
        known = {place: min(before[place], now) for place in places if place in before}
        room = max(PLACES_LIMIT - len(known), 0)
        after = known | dict.fromkeys(sorted(set(places) - known.keys())[:room], now)
        if after != before:
            await self._save(installation, after)
        return after

    async def _load(self, installation: str) -> Mapping[str, datetime]:
        # Without earlier times all ages start again, which delays deletions and loses nothing.
        return await load_document(self._store, orphans_key(installation), _parse_times, absent={}, unreadable={})

    async def _save(self, installation: str, times: Mapping[str, datetime]) -> None:
        document = json.dumps({"unusedSince": {place: since.isoformat() for place, since in times.items()}})
        try:
            await self._store.put(orphans_key(installation), document.encode())
        except StoreUnavailableError as error:
            # A full store has to be swept before anything can be written.
            logger.warning("ages of orphans could not be saved", extra={"error": str(error)})
            self._unsaved = times
        else:
            self._unsaved = None


def _parse_times(document: dict[str, Any]) -> Mapping[str, datetime]:
    return {place: datetime.fromisoformat(since).astimezone(UTC) for place, since in document["unusedSince"].items()}
