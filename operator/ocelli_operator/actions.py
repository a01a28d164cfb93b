"""What a plan can order. Every action is idempotent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ocelli_api.classifier import Manifest
from ocelli_api.pods import TrainingStep
from ocelli_operator.manifests.metadata import hash_annotation, manifest_hash
from ocelli_operator.observed import ChildIdentity, ChildKind


@dataclass(frozen=True, kw_only=True)
class RestoreLabel:
    """Set the label with the Classifier's id."""

    classifier_id: str


@dataclass(frozen=True, kw_only=True)
class StartTraining:
    """Store the definition, then create the Job that checks its data or trains it."""

    revision: str
    attempt: int
    step: TrainingStep
    definition: dict[str, Any]
    manifest: Manifest

    @property
    def manifest_hash(self) -> str:
        return manifest_hash(self.manifest)


@dataclass(frozen=True, kw_only=True)
class ApplyChild:
    """Create a child, or bring it to its manifest, whose hash is among its annotations."""

    kind: ChildKind
    manifest: Manifest
    uid: str | None = None
    """Of the object to change, so that no other object of the name is; None: create it."""

    @property
    def manifest_hash(self) -> str:
        """Without the fields that an autoscaler sets."""
        return hash_annotation(self.manifest)


@dataclass(frozen=True, kw_only=True)
class DeleteChild:
    """Delete this object, and no later one of the name."""

    kind: ChildKind
    identity: ChildIdentity
    why: str


@dataclass(frozen=True, kw_only=True)
class DropExamples:
    """Delete the examples that were uploaded by REST: their training has ended, and they must not be kept."""

    revision: str


Action = RestoreLabel | StartTraining | ApplyChild | DeleteChild | DropExamples


def delete_child(kind: ChildKind, identity: ChildIdentity, why: str) -> tuple[Action, ...]:
    """Delete it, unless it is already being deleted."""
    return () if identity.deleting else (DeleteChild(kind=kind, identity=identity, why=why),)
