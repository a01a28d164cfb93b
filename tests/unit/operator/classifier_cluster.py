"""Stands in for the Kubernetes API of the sweep: a test sets the Classifiers, and what happens between two requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Manifest
from ocelli_cluster.client import ForbiddenError, Listing, Page
from tests.unit.operator.factories import make_spec


def make_manifest(
    name: str, namespace: str = "team-a", *, classifier_id: str | None = None, version: int = 1, **parts: Any
) -> Manifest:
    """A Classifier as the API server returns it; its id is `NAME_1` by default."""
    classifier_id = classifier_id or f"{name}_1"
    metadata = {
        "namespace": namespace,
        "name": name,
        "uid": f"uid-{name}",
        "generation": 1,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-05-04T11:00:00Z",
        "labels": {CLASSIFIER_ID_LABEL: classifier_id},
    }
    return {
        "metadata": metadata,
        "spec": {**make_spec(), **parts.get("spec", {})},
        "status": {"classifierID": classifier_id, **parts.get("status", {})},
    }


class ClassifierCluster:
    """The Classifiers that exist."""

    def __init__(self, *manifests: Manifest) -> None:
        self.manifests = list(manifests)
        self.forbidden: set[str] = set()
        self.accepting: list[bool] = []
        """The next answers to whether Classifiers can be created; afterwards they can."""
        self.after_list: Callable[[], None] | None = None
        """Called once after the next list."""

    async def accepts(self, resource: object) -> bool:
        return self.accepting.pop(0) if self.accepting else True

    async def list_pages(self, resource: object, namespace: str | None) -> AsyncIterator[Page]:
        if namespace in self.forbidden:
            raise ForbiddenError(403, f"classifiers is forbidden in the namespace {namespace}", "Forbidden")
        yield Page(items=self._in(namespace), resource_version="1", first=True)
        if self.after_list is not None:
            hook, self.after_list = self.after_list, None
            hook()

    async def list_objects(self, resource: object, namespace: str, label_selector: str) -> Listing:
        key, _, value = label_selector.partition("=")
        items = tuple(item for item in self._in(namespace) if item["metadata"]["labels"].get(key) == value)
        return Listing(items=items, resource_version="1")

    def _in(self, namespace: str | None) -> list[Manifest]:
        return [item for item in self.manifests if namespace in (None, item["metadata"]["namespace"])]
