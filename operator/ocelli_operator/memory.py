"""What one operator process remembers of a Classifier between reconciles.

A successor starts without it, and at most repeats a few requests. Everything that must survive is in status or on the children.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

REMEMBERED_LIMIT = 50
"""Entries of each kind for one Classifier: those of earlier revisions are forgotten first."""
WAIT_FIRST_SECONDS = 1.0
WAIT_LIMIT_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a manifest was not accepted when it was last sent."""

    message: str
    invalid: bool
    """The API server called it invalid, so sending it again is pointless. Otherwise a quota, admission or another object blocks
    it: the message completes a sentence that begins with the object, which is sent again until it is accepted."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Immutable: each change makes another, so that what a plan rests on does not change while the plan is applied."""

    progress_written_at: datetime | None = None
    """When this process last wrote progress to status."""
    dropped_revision: str | None = None
    """The revision whose examples this process has deleted, where they are not kept."""
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """By hash of the manifest."""
    applied: Mapping[str, str] = field(default_factory=dict)
    """By UID of a child that a webhook rewrote: `ObservedChild.applied_hash` after the last apply, so that the child is not
    applied again at every reconcile."""
    network_policy_blocked: bool = False
    """According to the last plan."""
    wait_seconds: float = WAIT_FIRST_SECONDS
    """How long to wait before something that is blocked is tried again."""

    def with_refusal(self, manifest_hash: str, refusal: Refusal) -> Memory:
        return replace(self, refusals=_remember(self.refusals, manifest_hash, refusal))

    def without_refusal(self, manifest_hash: str) -> Memory:
        return replace(self, refusals={key: value for key, value in self.refusals.items() if key != manifest_hash})

    def with_applied(self, uid: str, applied_hash: str) -> Memory:
        return replace(self, applied=_remember(self.applied, uid, applied_hash))

    def after_wait(self) -> Memory:
        """The next wait is twice as long."""
        return replace(self, wait_seconds=min(self.wait_seconds * 2, WAIT_LIMIT_SECONDS))


def _remember(entries: Mapping[str, T], key: str, value: T) -> Mapping[str, T]:
    others = [(other, kept) for other, kept in entries.items() if other != key]
    return dict([*others, (key, value)][-REMEMBERED_LIMIT:])
