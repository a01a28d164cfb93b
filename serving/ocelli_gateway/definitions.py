"""What the store says of learned revisions: their definitions, and the summaries of their artifacts.

Class names and summaries never change, so that both are read once, as long as there is room for them. Sources change where
something is erased: whoever starts from a definition reads it anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from ocelli_api.classifier import ClassifierSpec, parse_spec
from ocelli_api.export import ArtifactSummary
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoreUnavailableError

KEPT_NAMES_LIMIT = 100_000
"""Class names in all that are kept: some 20 MB, and 60 MB where all of them are as long as they may be."""

T = TypeVar("T")


class DamagedArtifactError(StoreUnavailableError):
    """What the store holds in the place of an artifact's metadata or definition is neither."""


class _Kept(Generic[T]):
    """Values by revision; the last ones asked for, as many as there is room for."""

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[ClassifierLocation, str], tuple[T, int]] = OrderedDict()
        self._names = 0

    def find(self, key: tuple[ClassifierLocation, str]) -> T | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def keep(self, key: tuple[ClassifierLocation, str], value: T, *, names: int) -> None:
        """Keep a value that holds so many class names."""
        self._names += names - self._values.pop(key, (value, 0))[1]
        self._values[key] = value, names
        while self._names > KEPT_NAMES_LIMIT:
            _, (_, names) = self._values.popitem(last=False)
            self._names -= names


class Definitions:
    """Learned definitions by revision."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._class_names: _Kept[tuple[str, ...]] = _Kept()
        self._summaries: _Kept[ArtifactSummary] = _Kept()

    async def read_summary(self, location: ClassifierLocation, revision: str) -> ArtifactSummary | None:
        """Class names and exports of a learned revision, or None where it has no artifact.

        Raises:
            StoreUnavailableError: the store cannot be read.
            DamagedArtifactError: it holds no artifact's metadata there.
        """
        kept = self._summaries.find((location, revision))
        if kept is not None:
            return kept
        stored = location.artifact_key(revision, ARTIFACT_METADATA)
        try:
            summary = ArtifactSummary.parse(parse_document(await read_document(self._objects, stored)))
        except ObjectNotFoundError:
            return None
        except (ObjectTooLargeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedArtifactError(f"object store: {stored!r} is not an artifact's metadata; train it again") from error
        self._summaries.keep((location, revision), summary, names=len(summary.class_names))
        return summary

    async def class_names(self, location: ClassifierLocation, revision: str) -> tuple[str, ...] | None:
        """The classes of a learned revision, or None where it has no artifact. Raises as `read`."""
        kept = self._class_names.find((location, revision))
        if kept is not None:
            return kept
        spec = await self.read(location, revision)
        if spec is None:
            return None
        class_names = tuple(item.name for item in spec.classes)
        self._class_names.keep((location, revision), class_names, names=len(class_names))
        return class_names

    async def read(self, location: ClassifierLocation, revision: str) -> ClassifierSpec | None:
        """Classes, sources and recipe of a learned revision as the store has them now, or None where it has no artifact.

        Raises:
            StoreUnavailableError: the store cannot be read.
            DamagedArtifactError: it holds no definition there.
        """
        stored = location.definition_key(revision)
        try:
            return parse_spec(parse_document(await read_document(self._objects, stored)))
        except ObjectNotFoundError:
            return None
        except (ObjectTooLargeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedArtifactError(f"object store: {stored!r} is not a definition; train it again") from error
