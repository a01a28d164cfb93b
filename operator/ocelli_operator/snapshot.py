"""One Classifier at one moment: what was observed of it, and what every step of a plan derives from that. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ocelli_api.classifier import Classifier
from ocelli_api.classifier_status import ClassifierStatus
from ocelli_operator.failure import LastFailure, find_last_failure
from ocelli_operator.manifests.metadata import ChildOwner
from ocelli_operator.observed import ChildKind, Observed
from ocelli_operator.settings import ChildSettings


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a plan is made from."""

    observed: Observed
    """Without objects that are not the Classifier's own."""
    name_conflicts: Mapping[tuple[ChildKind, str], str]
    """By kind and name: why a child cannot have its name, with the remedy."""
    settings: ChildSettings
    owner: ChildOwner
    current: str
    """The revision that the spec asks for."""

    @property
    def classifier(self) -> Classifier:
        return self.observed.classifier

    @property
    def status(self) -> ClassifierStatus:
        return self.observed.classifier.status

    @property
    def last_failure(self) -> LastFailure | None:
        """The last failure; None where it was about another revision or nonce, which is a reason to try again."""
        last = find_last_failure(self.status)
        asked = (self.current, self.classifier.spec.retrain_nonce)
        return last if last is not None and (last.revision, last.retrain_nonce) == asked else None
