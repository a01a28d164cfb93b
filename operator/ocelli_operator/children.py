"""Children that are applied: whether one is as desired. Pure."""

from __future__ import annotations

from ocelli_api.classifier import Manifest
from ocelli_operator.manifests.metadata import MANIFEST_HASH_ANNOTATION, hash_annotation, manifest_hash
from ocelli_operator.observed import ObservedChild
from ocelli_operator.snapshot import Snapshot


def is_as_desired(snapshot: Snapshot, manifest: Manifest, child: ObservedChild) -> bool:
    """Whether the child was applied from this manifest and is unchanged since, except by a webhook during that apply."""
    if child.manifest_hash != hash_annotation(manifest):
        return False
    autoscaled = snapshot.classifier.spec.serving.autoscaling is not None
    rewritten = (child.applied_as, snapshot.observed.memory.applied.get(child.identity.uid))
    return child.matches(manifest) or child.applied_hash(manifest, autoscaled=autoscaled) in rewritten


def with_hash(manifest: Manifest) -> Manifest:
    """The manifest with the annotation that has its hash."""
    return annotate(manifest, MANIFEST_HASH_ANNOTATION, manifest_hash(manifest))


def annotate(manifest: Manifest, name: str, value: str) -> Manifest:
    """The manifest with one more annotation."""
    annotations = {**manifest["metadata"].get("annotations", {}), name: value}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}
