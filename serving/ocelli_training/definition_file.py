"""The definition of an attempt: what it should learn, as the operator stored it before the attempt's Job existed."""

from __future__ import annotations

from typing import Any

from ocelli_api.classifier import parse_spec
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import DEFINITION
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError
from ocelli_training.settings import TrainerSettings


class DefinitionError(Exception):
    """The definition to learn is missing or cannot be read."""


async def load_definition(settings: TrainerSettings, store: ObjectStore) -> dict[str, Any]:
    """The definition as it is now: erasure changes it.

    Raises:
        DefinitionError, StoreUnavailableError: see there.
    """
    key = settings.location.training_key(settings.revision, settings.attempt, DEFINITION)
    try:
        document = parse_document(await read_document(store, key))
        parse_spec(document)
    except ObjectNotFoundError as error:
        raise DefinitionError(f"the object store has no {key}; the operator writes it before it starts a trainer") from error
    except (ObjectTooLargeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DefinitionError(f"{key} is not a definition; use one version of Ocelli for all its parts") from error
    return document
