"""What a test does and sees in its namespace."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocelli_api.classifier import API_VERSION, Manifest
from ocelli_local import SyncClusterAccess
from tests.integration.operator.sources import ExampleSources

READY_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A namespace with Classifiers in it."""

    cluster: SyncClusterAccess
    namespace: str
    sources: ExampleSources
    store_folder: Path

    def build(self, name: str = "colours", *, second: str = "blue", **spec: Any) -> Manifest:
        """A Classifier with two classes, each a colour."""
        classes = [
            {"name": colour, "examples": [{"url": f"{self.sources.address}/{colour}.zip"}]} for colour in ("red", second)
        ]
        return {
            "apiVersion": API_VERSION,
            "kind": "Classifier",
            "metadata": {"name": name},
            "spec": {"classes": classes, **spec},
        }

    def build_tested(self, name: str = "colours", *, swapped: bool = False, **spec: Any) -> Manifest:
        """Red and blue with a test set of their own; `swapped`: each learns from the other's examples."""

        def source(file: str) -> list[dict[str, str]]:
            return [{"url": f"{self.sources.address}/{file}.zip"}]

        learned = {"red": "blue", "blue": "red"} if swapped else {"red": "red", "blue": "blue"}
        manifest = self.build(name, **spec)
        manifest["spec"]["classes"] = [{"name": colour, "examples": source(file)} for colour, file in learned.items()]
        manifest["spec"]["evaluation"] = {
            "classes": [{"name": colour, "examples": source(f"{colour}-test")} for colour in learned]
        }
        return manifest

    def apply(self, manifest: Manifest) -> Manifest:
        return self.cluster.apply(manifest, namespace=self.namespace)[0]

    def patch(self, patch: str, name: str = "colours") -> None:
        self.kubectl("patch", "clf", name, "--type=merge", "-p", patch)

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        done = self.cluster.kubectl("-n", self.namespace, *arguments, check=check)
        return done.stdout

    def run(self, commands: str, **variables: str) -> None:
        """Run the commands of a page, with `NAMESPACE` and these variables."""
        paths = {"PATH": f"{self.cluster.kubectl_path.parent}:{os.environ['PATH']}", "KUBECONFIG": str(self.cluster.kubeconfig)}
        environment = {**os.environ, **paths, "NAMESPACE": self.namespace, **variables}
        subprocess.run(["bash", "-euc", commands], env=environment, check=True, timeout=60)

    def get(self, name: str = "colours") -> Manifest:
        found = self.cluster.get(API_VERSION, "Classifier", name, namespace=self.namespace)
        assert found is not None
        return found

    def status(self, name: str = "colours") -> dict[str, Any]:
        status: dict[str, Any] = self.get(name).get("status") or {}
        return status

    def condition(self, condition_type: str, name: str = "colours") -> dict[str, Any]:
        """A condition; empty if it is absent."""
        conditions = self.status(name).get("conditions") or ()
        return next((item for item in conditions if item["type"] == condition_type), {})

    def jobs(self) -> list[Manifest]:
        return self.cluster.list_objects(f"/apis/batch/v1/namespaces/{self.namespace}/jobs")

    def deployments(self) -> list[Manifest]:
        return self.cluster.list_objects(f"/apis/apps/v1/namespaces/{self.namespace}/deployments")

    def pods(self, component: str) -> list[Manifest]:
        selector = f"ocelli.dev/component={component}"
        return self.cluster.list_objects(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)

    def names(self, objects: list[Manifest]) -> list[str]:
        return sorted(item["metadata"]["name"] for item in objects)

    def stored(self) -> list[str]:
        """Paths below the namespace's part of the store."""
        folder = self.store_folder / "tenants" / self.namespace
        # Unlike `rglob`, `walk` tolerates folders that are deleted meanwhile.
        found = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
        return sorted(str(path.relative_to(folder)) for path in found)

    def wait_for_condition(
        self, condition_type: str, reason: str, name: str = "colours", timeout_seconds: float = READY_SECONDS
    ) -> dict[str, Any]:
        """Wait until a condition of the current generation has the reason, and return the condition."""

        def found() -> dict[str, Any] | None:
            # Read both together: a condition says nothing about a later generation.
            classifier = self.get(name)
            conditions = (classifier.get("status") or {}).get("conditions") or ()
            condition: dict[str, Any] = next((item for item in conditions if item["type"] == condition_type), {})
            current = condition.get("observedGeneration") == classifier["metadata"]["generation"]
            return condition if current and condition["reason"] == reason else None

        try:
            return self.cluster.wait_for(f"{condition_type}: {reason}", found, timeout_seconds=timeout_seconds)
        except TimeoutError as error:
            error.add_note(self.kubectl("describe", "clf", name))
            raise

    def wait_until_ready(self, name: str = "colours") -> dict[str, Any]:
        """Wait until the current spec is served, and return the status."""
        self.wait_for_condition("Ready", "Served", name)
        return self.status(name)
