"""The case of one Classifier: what was observed of it, with what every step of a plan reads from that. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ocelli_api.classifier import Classifier, ClassifierStatus
from ocelli_api.conditions import ConditionStatus, ConditionType, StalledReason
from ocelli_operator.manifests.metadata import ChildOwner
from ocelli_operator.observed import Observed
from ocelli_operator.settings import ChildSettings


@dataclass(frozen=True, kw_only=True)
class Case:
    """One Classifier at one moment."""

    observed: Observed
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
    def nonce_observed(self) -> bool:
        return self.status.observed_retrain_nonce == self.classifier.spec.retrain_nonce

    def is_stalled_by(self, reasons: frozenset[StalledReason]) -> bool:
        """Whether status says that the current revision failed, with this nonce, for one of these reasons."""
        stalled = self.status.condition(ConditionType.STALLED)
        return (
            stalled is not None
            and stalled.status is ConditionStatus.TRUE
            and stalled.reason in {str(reason) for reason in reasons}
            and self.status.failed_revision == self.current
            and self.nonce_observed
        )
