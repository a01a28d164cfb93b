"""What a plan may order: each action can be done again without harm. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ocelli_api.classifier import Manifest
from ocelli_operator.manifests.metadata import MANIFEST_HASH_ANNOTATION, manifest_hash
from ocelli_operator.observed import ChildIdentity, ChildKind


@dataclass(frozen=True, kw_only=True)
class RestoreLabel:
    """Set the label that holds the classifier's id."""

    classifier_id: str


@dataclass(frozen=True, kw_only=True)
class StartTraining:
    """Store the definition, then create the Job that learns it."""

    revision: str
    attempt: int
    definition: dict[str, Any]
    manifest: Manifest

    @property
    def manifest_hash(self) -> str:
        return manifest_hash(self.manifest)


@dataclass(frozen=True, kw_only=True)
class ApplyChild:
    """Make a child, or bring it to its manifest; the manifest's hash is among its annotations."""

    kind: ChildKind
    manifest: Manifest
    uid: str | None = None
    """Of the object that is changed, and no other one; None: it is made."""

    @property
    def manifest_hash(self) -> str:
        """Without what an autoscaler sets."""
        text: str = self.manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]
        return text


@dataclass(frozen=True, kw_only=True)
class DeleteChild:
    """Delete this very object."""

    kind: ChildKind
    identity: ChildIdentity
    why: str


@dataclass(frozen=True, kw_only=True)
class DropExamples:
    """Delete the examples that came by REST: they were learned from, and were not given to be kept."""

    revision: str


Action = RestoreLabel | StartTraining | ApplyChild | DeleteChild | DropExamples


def delete_child(kind: ChildKind, identity: ChildIdentity, why: str) -> tuple[Action, ...]:
    """Delete it, unless it is on its way out already."""
    return () if identity.deleting else (DeleteChild(kind=kind, identity=identity, why=why),)
