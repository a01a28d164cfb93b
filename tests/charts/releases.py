"""Calling Helm with the charts of this checkout."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ocelli_local import SyncClusterAccess
from tests.go_programs import GoProgram

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts" / "ocelli"
CRD_CHART = CHECKOUT / "charts" / "ocelli-crds"
NAMESPACE = "ocelli-system"
KUBERNETES = "1.37.2"
HELM = GoProgram(
    name="helm",
    module_folder=Path(__file__).with_name("helm"),
    package="helm.sh/helm/v3/cmd/helm",
    # As in Helm's own releases; without them, Helm assumes a very old version for a cluster that it cannot reach.
    link_flags="-s -w -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37",
)

API_VERSIONS = (
    "ocelli.dev/v1alpha1/Classifier",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "monitoring.coreos.com/v1/ServiceMonitor",
)
"""Objects that a cluster needs for an installation of the whole chart."""

PREFER_SYSTEM = {"weight": 1, "preference": {"matchExpressions": [{"key": "system", "operator": "Exists"}]}}
PUBLIC_KEY = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
"""Of the first test vector of RFC 8032."""
FULL_VALUES: Mapping[str, Any] = {
    "namespaces": ["team-a", "team-b"],
    "sources": {
        "allowedNetworks": ["10.20.0.0/16", "fd12::/48"],
        "deniedNetworks": ["10.20.3.0/24"],
        "proxy": "http://proxy.example.com:3128",
        "caConfigMap": "company-ca",
        "cache": True,
        "identityBuckets": ["s3://training", "gs://images"],
    },
    "signing": {"secretName": "ocelli-signing", "publicKeys": [PUBLIC_KEY]},
    "images": {"prefix": "registry.example.com/ocelli-", "tag": "1.2.3", "pullSecrets": ["registry"]},
    "operator": {
        "replicas": 2,
        "settings": {"OCELLI_WORKERS": "16"},
        "nodeSelector": {"pool": "system"},
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [PREFER_SYSTEM]}},
    },
    "gateway": {
        "autoscaling": {"enabled": True},
        "settings": {"OCELLI_QUOTA_CLASSIFIERS": "100"},
        "ingress": {"enabled": True, "className": "nginx", "host": "vision.example.com", "tlsSecretName": "vision-tls"},
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "web", "namespace": "gateways"}],
            "hostnames": ["vision.example.com"],
        },
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "priorityClassName": "important",
    },
    "credentials": {"existingSecret": "who-may-log-in"},
    "store": {
        "mode": "bucket",
        "bucket": {"url": "s3://models/production", "secretName": "bucket", "tenantSecretName": "bucket-tenant"},
        "adopt": "0b7d3a2e-6c1f-4e43-9d0a-4f3d5e6a7b8c",
    },
    "gpu": {
        "enabled": True,
        "watchNodes": True,
        "runtimeClassName": "nvidia",
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu"}],
    },
    "kueue": {"enabled": True},
    "serviceAccounts": {"annotations": {"iam.example.com/role": "ocelli"}, "workload": "vision"},
    "backbones": [{"name": "mobilenet_v3_large", "weights": "https://models.example.com/m.pth", "sha256": "a" * 64}],
    "builtIns": [
        {"name": "default"},
        {
            "name": "food",
            "pretrained": {
                "weights": {"url": "https://models.example.com/food.pth", "sha256": "b" * 64, "architecture": "resnet18"},
                "labels": {"url": "https://models.example.com/food.txt"},
            },
        },
        {
            "name": "explicit",
            "pretrained": {
                "weights": {"url": "https://models.example.com/explicit.onnx"},
                "labels": {"url": "https://models.example.com/explicit.txt"},
                "activation": "Sigmoid",
            },
        },
    ],
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True},
        "dashboard": {"enabled": True},
        "runbookURL": "https://docs.example.com/runbooks",
    },
    "test": {"apiKeySecret": {"name": "tester"}},
}
"""Everything that is off by default is on, and nothing is random."""

NOWHERE = {"operator": {"replicas": 0}, "gateway": {"replicas": 0}}
"""No Pods: other tests cover them."""
STORAGE = {"store": {"embedded": {"storageClassName": "charts-test"}}}


class Release:
    """Helm with one cluster and one namespace, as the cluster's administrator unless a kubeconfig is given."""

    def __init__(self, helm: Path, cluster: SyncClusterAccess, namespace: str, kubeconfig: Path | None = None) -> None:
        self.helm, self.cluster, self.namespace = helm, cluster, namespace
        self.kubeconfig = kubeconfig or cluster.kubeconfig

    def call(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Helm's output; the exit code is the last line."""
        place = ("--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace)
        file = () if values is None else ("--values", "-")
        done = call(self.helm, *arguments, *place, *file, input_text=None if values is None else json.dumps(values))
        return f"{done.stdout}{done.stderr}\nexit {done.returncode}"

    def apply(self, values: Mapping[str, Any], *options: str) -> str:
        return self.call("upgrade", "--install", "ocelli", str(CHART), *options, values={**NOWHERE, **STORAGE, **values})

    def api_key(self) -> str:
        secret = self.cluster.get("v1", "Secret", "ocelli-initial-credentials", namespace=self.namespace)
        assert secret is not None
        return base64.b64decode(secret["data"]["apiKey"]).decode()

    def initial_user(self) -> dict[str, str]:
        secret = self.cluster.get("v1", "Secret", "ocelli-credentials", namespace=self.namespace)
        assert secret is not None
        user: dict[str, str] = json.loads(base64.b64decode(secret["data"]["initial.json"]))
        return user


def render(helm: Path, values: Mapping[str, Any], *options: str, api_versions: Iterable[str] = API_VERSIONS) -> str:
    """The output of `helm template` for the chart; a failure is an AssertionError with Helm's output."""
    done = call(
        helm,
        *("template", "ocelli", str(CHART), "--namespace", NAMESPACE, "--kube-version", KUBERNETES),
        *("--api-versions", ",".join(api_versions), "--values", "-", *options),
        input_text=json.dumps(values),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def render_resources(helm: Path) -> str:
    """The output of `helm template` for the chart with the resources."""
    done = call(helm, "template", "crds", str(CRD_CHART), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parse(text: str) -> list[dict[str, Any]]:
    """The objects of a rendering."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def pod_specs(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The Pods, by the name of the object that creates them."""
    specs = {
        item["metadata"]["name"]: item["spec"] if item["kind"] == "Pod" else item["spec"]["template"]["spec"]
        for item in documents
        if item["kind"] in ("Pod", "Deployment", "StatefulSet", "DaemonSet", "Job")
    }
    assert len(specs) > 1
    return specs


def call(helm: Path, *arguments: str, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Helm's exit code and output."""
    return subprocess.run([helm, *arguments], input=input_text, capture_output=True, text=True, timeout=120, check=False)
