"""Kubernetes Events. Sending one never fails: an error is only logged, because an Event informs and decides nothing."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from ocelli_api.classifier import Classifier, Manifest
from ocelli_api.times import format_time
from ocelli_cluster.client import ClusterClient, ClusterError
from ocelli_cluster.resources import CLASSIFIERS, EVENTS, ObjectKey, ObjectReference
from ocelli_operator.manifests.metadata import FIELD_MANAGER
from ocelli_operator.status import Occurrence

logger = logging.getLogger(__name__)

NOTE_LIMIT_BYTES = 1024
REPORTING_CONTROLLER = "ocelli.dev/operator"


class EventRecorder:
    """Sends Events in the name of one operator process."""

    def __init__(self, client: ClusterClient, identity: str) -> None:
        self._client = client
        self._identity = identity

    async def record(self, classifier: Classifier, occurrence: Occurrence) -> None:
        """Send one Event about a Classifier."""
        subject = ObjectReference(
            resource=CLASSIFIERS,
            key=ObjectKey(classifier.namespace, classifier.name),
            uid=classifier.uid,
            resource_version=classifier.resource_version,
        )
        await self.record_about(subject, occurrence)

    async def record_about(self, subject: ObjectReference, occurrence: Occurrence) -> None:
        """Send one Event about an object that has a namespace."""
        key = subject.key
        body: Manifest = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            # Named by time, as in other controllers: kubectl sorts Events of the same second by name.
            "metadata": {"name": f"{key.name}.{time.time_ns():x}", "namespace": key.namespace},
            "eventTime": format_time(datetime.now(UTC), timespec="microseconds"),
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": self._identity[:128],
            "action": occurrence.action,
            "reason": occurrence.reason,
            "type": occurrence.type,
            "note": occurrence.note.encode(errors="replace")[: NOTE_LIMIT_BYTES - 1].decode(errors="ignore"),
            "regarding": {
                "apiVersion": subject.resource.api_version,
                "kind": subject.resource.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": subject.uid,
                "resourceVersion": subject.resource_version,
            },
        }
        try:
            await self._client.create(EVENTS, key.namespace, body, field_manager=FIELD_MANAGER)
        except ClusterError as error:
            logger.warning("event could not be sent", extra={"object": str(key), "error": str(error)})
