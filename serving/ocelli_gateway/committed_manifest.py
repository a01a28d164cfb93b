"""The manifest of a Classifier as a person would commit it: YAML without status, defaults, and what the API server adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ocelli_api.classifier import (
    API_VERSION,
    CREATED_AT_ANNOTATION,
    CREATED_BY_LABEL,
    CUSTOMER_LABEL,
    KIND,
    Classifier,
    ClassifierSpec,
)
from ocelli_api.documents import build_document

_WIDTH = 128
_OF_PROGRAMS = (
    "kubectl.kubernetes.io/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "helm.sh/",
    "app.kubernetes.io/managed-by",
    CREATED_BY_LABEL,
    CREATED_AT_ANNOTATION,
    CUSTOMER_LABEL,
)
"""Beginnings of labels and annotations that programs write when a manifest is applied, or a classifier created by REST."""


def build_committed_manifest(classifier: Classifier, spec: ClassifierSpec | None = None) -> str:
    """The manifest of a Classifier, with this spec or its own."""
    document = build_document(classifier.spec if spec is None else spec, omit_defaults=True)
    # What a person looks for first.
    name = {"displayName": document.pop("displayName")} if "displayName" in document else {}
    manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": classifier.name,
            "namespace": classifier.namespace,
            **_keep_own("labels", classifier.labels),
            **_keep_own("annotations", classifier.annotations),
        },
        "spec": {**name, **document},
    }
    return yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=_WIDTH)


def _keep_own(name: str, marks: Mapping[str, str]) -> dict[str, Any]:
    """Without those of programs: to apply the manifest must not take away what its author wrote."""
    own = {key: value for key, value in marks.items() if not key.startswith(_OF_PROGRAMS)}
    return {name: own} if own else {}
