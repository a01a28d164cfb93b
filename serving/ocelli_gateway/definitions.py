"""What the store says of learned revisions: their definitions, and the summaries of their artifacts.

Definitions change only where something is erased, which moves no class; summaries never. Both are read once, unless somebody
starts from a definition.
"""

from __future__ import annotations

import json
from collections import OrderedDict

from ocelli_api.classifier import ClassifierSpec, parse_spec
from ocelli_api.export import ArtifactSummary
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, StoreUnavailableError

KEPT_LIMIT = 4096


class Definitions:
    """Learned definitions by revision; the last ones asked for are kept."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._kept: OrderedDict[tuple[ClassifierLocation, str], ClassifierSpec] = OrderedDict()
        self._summaries: OrderedDict[tuple[ClassifierLocation, str], ArtifactSummary] = OrderedDict()

    async def read_summary(self, location: ClassifierLocation, revision: str) -> ArtifactSummary | None:
        """Class names and exports of a learned revision, or None where it has no artifact.

        Raises:
            StoreUnavailableError: the store cannot be read, or holds no artifact's metadata there.
        """
        key = (location, revision)
        if key in self._summaries:
            self._summaries.move_to_end(key)
            return self._summaries[key]
        stored = location.artifact_key(revision, ARTIFACT_METADATA)
        try:
            summary = ArtifactSummary.parse(json.loads(await self._objects.get(stored)))
        except ObjectNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreUnavailableError(f"object store: {stored!r} is no artifact's metadata: {error!r}") from error
        self._summaries[key] = summary
        while len(self._summaries) > KEPT_LIMIT:
            self._summaries.popitem(last=False)
        return summary

    async def read(self, location: ClassifierLocation, revision: str, *, fresh: bool = False) -> ClassifierSpec | None:
        """Classes, sources and recipe of a learned revision, or None where it has no artifact.

        `fresh` ones have no source that another replica has erased.

        Raises:
            StoreUnavailableError: the store cannot be read, or holds no definition there.
        """
        key = (location, revision)
        if key in self._kept and not fresh:
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
