"""Definitions as they were learned: what classes a revision has, where the spec is ahead of it.

They lie beside the artifacts, change only where something is erased, and are read once.
"""

from __future__ import annotations

import json
from collections import OrderedDict

from ocelli_api.classifier import ClassifierSpec, parse_spec
from ocelli_storage.layout import ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, StoreUnavailableError

KEPT_LIMIT = 256


class Definitions:
    """Learned definitions by revision; the last ones asked for are kept."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._kept: OrderedDict[tuple[ClassifierLocation, str], ClassifierSpec] = OrderedDict()

    async def read(self, location: ClassifierLocation, revision: str) -> ClassifierSpec | None:
        """Classes, sources and recipe of a learned revision, or None where it has no artifact.

        Raises:
            StoreUnavailableError: the store cannot be read, or holds no definition there.
        """
        key = (location, revision)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        stored = location.definition_key(revision)
        try:
            definition = parse_spec(json.loads(await self._objects.get(stored)))
        except ObjectNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreUnavailableError(f"object store: {stored!r} is no definition: {error!r}") from error
        self._kept[key] = definition
        while len(self._kept) > KEPT_LIMIT:
            self._kept.popitem(last=False)
        return definition
