"""The manifest of a Classifier as a person would commit it: YAML without status, defaults, and what the API server adds."""

from __future__ import annotations

import yaml

from ocelli_api.classifier import API_VERSION, KIND, Classifier, ClassifierSpec
from ocelli_api.documents import build_document

_WIDTH = 128


def build_committed_manifest(classifier: Classifier, spec: ClassifierSpec | None = None) -> str:
    """The manifest of a Classifier, with this spec or its own.

    Labels and annotations are left out: those in the object are partly written by other programs.
    """
    document = build_document(classifier.spec if spec is None else spec, omit_defaults=True)
    # What a person looks for first.
    name = {"displayName": document.pop("displayName")} if "displayName" in document else {}
    manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": classifier.name, "namespace": classifier.namespace},
        "spec": {**name, **document},
    }
    return yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=_WIDTH)
