"""With the examples, Argo CD and Flux wait for Classifiers, and long enough."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ocelli_api.classifier import API_VERSION, KIND
from tests.gitops.health_program import CHECKOUT

GITOPS_FOLDER = CHECKOUT / "deploy" / "gitops"


def load(name: str) -> dict[str, dict[str, Any]]:
    """The manifests of a file, by kind."""
    return {item["kind"]: item for item in yaml.safe_load_all((GITOPS_FOLDER / name).read_text())}


@pytest.mark.parametrize(("name", "source"), [("flux/git.yaml", "GitRepository"), ("flux/oci.yaml", "OCIRepository")])
def test_flux_reads_the_source_of_the_example(name: str, source: str) -> None:
    manifests = load(name)
    reference = manifests["Kustomization"]["spec"]["sourceRef"]
    assert reference == {"kind": source, "name": manifests[source]["metadata"]["name"]}


def test_flux_waits_for_everything_or_for_a_classifier() -> None:
    git, oci = (load(f"flux/{name}.yaml")["Kustomization"]["spec"] for name in ("git", "oci"))
    assert git["wait"] is True
    # Flux ignores the list if `wait` is set.
    assert "healthChecks" not in git
    assert "wait" not in oci
    (check,) = oci["healthChecks"]
    assert (check["apiVersion"], check["kind"]) == (API_VERSION, KIND)


def test_argo_cd_uses_server_side_diff_with_server_side_apply() -> None:
    application = load("argocd/application.yaml")["Application"]
    assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
    assert application["metadata"]["annotations"]["argocd.argoproj.io/compare-options"] == "ServerSideDiff=true"
    assert "ignoreDifferences" not in application["spec"]
