"""Kubernetes Events about Classifiers and the installation. One that cannot be sent is logged and given up: it tells, it
doesn't decide."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from ocelli_cluster.client import ClusterClient, ClusterError
from ocelli_cluster.resources import CLASSIFIERS, EVENTS, ObjectKey, Resource

from ocelli_api.classifier import Classifier, Manifest
from ocelli_api.times import format_time
from ocelli_operator.manifests.metadata import FIELD_MANAGER
from ocelli_operator.status import Occurrence

logger = logging.getLogger(__name__)

NOTE_LIMIT_BYTES = 1024
REPORTING_CONTROLLER = "ocelli.dev/operator"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The object that an Event is about."""

    resource: Resource
    key: ObjectKey
    uid: str
    resource_version: str


class EventRecorder:
    """Sends Events under the name of one operator."""

    def __init__(self, client: ClusterClient, identity: str) -> None:
        self._client = client
        self._identity = identity

    async def record(self, classifier: Classifier, occurrence: Occurrence) -> None:
        """Send one Event about a Classifier."""
        subject = Subject(
            resource=CLASSIFIERS,
            key=ObjectKey(classifier.namespace, classifier.name),
            uid=classifier.uid,
            resource_version=classifier.resource_version,
        )
        await self.record_about(subject, occurrence)

    async def record_about(self, subject: Subject, occurrence: Occurrence) -> None:
        """Send one Event about any object that lies in a namespace."""
        key = subject.key
        body: Manifest = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            # Named by time, as other controllers do: kubectl shows Events of one second in the order of their names.
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
