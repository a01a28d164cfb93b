"""Why a Classifier cannot be read or written. Only `errors` knows which HTTP answer each becomes."""

from __future__ import annotations

from ocelli_gateway import refusals
from ocelli_storage.archives import shown_name

_SHOWN_ID_CHARACTERS = 64


class ClassifierStoreError(Exception):
    """A Classifier could not be read or written."""


class ClassifierNotFoundError(refusals.NotFoundError):
    """There is no such classifier in the namespace."""

    def __init__(self, classifier_id: str) -> None:
        super().__init__(f"Cannot find the classifier {shown_name(classifier_id, _SHOWN_ID_CHARACTERS)}.")


class ClassifierChangedError(ClassifierStoreError):
    """The object was changed since it was read."""


class UnreadableClassifierError(ClassifierStoreError):
    """A Classifier holds something that this release does not know."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} cannot be read by this release; upgrade the gateway")
        self.name = name


class NameTakenError(ClassifierStoreError):
    """An object of that name exists."""


class NamespaceMissingError(ClassifierStoreError):
    """The namespace of these credentials does not exist."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"Namespace {namespace} of a credential set does not exist; create it")
        self.namespace = namespace
