"""Kubernetes Events about Classifiers. An Event that cannot be sent is logged and given up: it tells, it doesn't decide."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from ocelli_api.classifier import API_VERSION, KIND, Classifier, Manifest
from ocelli_cluster.client import ClusterClient, ClusterError
from ocelli_cluster.resources import EVENTS
from ocelli_operator.manifests.metadata import FIELD_MANAGER
from ocelli_operator.status import Occurrence

logger = logging.getLogger(__name__)

NOTE_LIMIT_BYTES = 1024
REPORTING_CONTROLLER = "ocelli.dev/operator"


class EventRecorder:
    """Sends Events under the name of one operator."""

    def __init__(self, client: ClusterClient, identity: str) -> None:
        self._client = client
        self._identity = identity

    async def record(self, classifier: Classifier, occurrence: Occurrence) -> None:
        """Send one Event."""
        body: Manifest = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            # Named by time, as other controllers do: kubectl shows Events of one second in the order of their names.
            "metadata": {"name": f"{classifier.name}.{time.time_ns():x}", "namespace": classifier.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": REPORTING_CONTROLLER,
            "reportingInstance": self._identity[:128],
            "action": occurrence.action,
            "reason": occurrence.reason,
            "type": occurrence.type,
            "note": occurrence.note.encode()[: NOTE_LIMIT_BYTES - 1].decode(errors="ignore"),
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": classifier.namespace,
                "name": classifier.name,
                "uid": classifier.uid,
                "resourceVersion": classifier.resource_version,
            },
        }
        try:
            await self._client.create(EVENTS, classifier.namespace, body, field_manager=FIELD_MANAGER)
        except ClusterError as error:
            logger.warning("event could not be sent", extra={"classifier": str(classifier), "error": str(error)})
