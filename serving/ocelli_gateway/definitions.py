"""Definitions of trained revisions and summaries of their artifacts, read from the store.

Class names and summaries never change, so both are cached, up to a limit. Sources change when user data is erased, so
definitions are always read again.
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
"""Cached class names in total: about 20 MB, or 60 MB if all of them have the greatest length."""

T = TypeVar("T")


class DamagedArtifactError(StoreUnavailableError):
    """The metadata or the definition of an artifact cannot be parsed."""


class _Kept(Generic[T]):
    """Values by revision; those used last, up to a total of class names."""

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[ClassifierLocation, str], tuple[T, int]] = OrderedDict()
        self._names = 0

    def find(self, key: tuple[ClassifierLocation, str]) -> T | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def keep(self, key: tuple[ClassifierLocation, str], value: T, *, names: int) -> None:
        """Keep a value; `names` is the number of class names in it."""
        self._names += names - self._values.pop(key, (value, 0))[1]
        self._values[key] = value, names
        while self._names > KEPT_NAMES_LIMIT:
            _, (_, names) = self._values.popitem(last=False)
            self._names -= names


class Definitions:
    """Definitions of trained revisions."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._class_names: _Kept[tuple[str, ...]] = _Kept()
        self._summaries: _Kept[ArtifactSummary] = _Kept()

    async def read_summary(self, location: ClassifierLocation, revision: str) -> ArtifactSummary | None:
        """Class names and exports of a trained revision, or None where it has no artifact.

        Raises:
            StoreUnavailableError: the store cannot be read.
            DamagedArtifactError: the metadata cannot be parsed.
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
        """The classes of a trained revision, or None where it has no artifact. Raises as `read`."""
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
        """The definition of a trained revision as it is stored now, or None where it has no artifact.

        Raises:
            StoreUnavailableError: the store cannot be read.
            DamagedArtifactError: the definition cannot be parsed.
        """
        stored = location.definition_key(revision)
        try:
            return parse_spec(parse_document(await read_document(self._objects, stored)))
        except ObjectNotFoundError:
            return None
        except (ObjectTooLargeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedArtifactError(f"object store: {stored!r} is not a definition; train it again") from error
