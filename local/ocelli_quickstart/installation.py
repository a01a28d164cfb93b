"""Installing Ocelli into a local cluster: the shipped manifests, with what differs on one machine put in.

Operator and gateway run as Pods under the ServiceAccounts and Roles of `deploy/`, as they do on any cluster.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocelli_api.classifier import API_VERSION, GROUP, PLURAL, VERSION, Manifest
from ocelli_gateway.credentials import CredentialSet, build_credentials_secret
from ocelli_local import LocalCluster
from ocelli_local.access import load_manifests
from ocelli_local.api_client import ApiError
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_model.publish import publish_backbone
from ocelli_storage.store_url import open_store

CHECKOUT = Path(__file__).resolve().parents[2]
CRDS = CHECKOUT / "crds" / "classifier.yaml"
MANIFESTS = CHECKOUT / "deploy"
BUILT_INS = MANIFESTS / "built-in"
SYSTEM_NAMESPACE = "ocelli-system"
CREDENTIALS_ANNOTATION = f"{GROUP}/credentials"

# Requests decide how many Pods the scheduler puts on the node. Here they are kept small, so that a laptop holds dozens of
# classifiers: they share its cores anyway.
TRAINER_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "4Gi"}}
INFERENCE_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "2Gi"}}


@dataclass(frozen=True, kw_only=True)
class InstallationOptions:
    """What differs from the shipped manifests."""

    store_url: str
    file_sources_folder: Path
    gateway_port: int
    gateway_internal_port: int
    """Of its probes and metrics."""
    credential_set: CredentialSet
    gateway_settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the gateway beside those that are set here."""
    backbones: tuple[str, ...] = ()
    """torchvision backbones to install next to the default one."""
    weights: str | None = None
    """Where their weights are: a folder, a file or a URL; None: torch hub's cache."""
    gpus: bool = False
    """Whether the node offers GPUs."""
    built_ins: tuple[str, ...] = ()
    """Built-in classifiers to make where they are not there yet: names of files in `deploy/built-in`."""


async def install(cluster: LocalCluster, options: InstallationOptions) -> None:
    """Apply everything; returns when the API server has taken it, before operator and gateway are up.

    Raises:
        BackboneUnavailableError: a backbone has no weights here.
    """
    store = open_store(options.store_url)
    backbones = [await publish_backbone(store, DEFAULT_BACKBONE)]
    others = [name for name in options.backbones if name != DEFAULT_BACKBONE]
    backbones += [await publish_backbone(store, name, weights=options.weights) for name in others]
    operator = {
        "OCELLI_STORE_URL": options.store_url,
        "OCELLI_BACKBONES": ",".join(str(backbone) for backbone in backbones),
        "OCELLI_FILE_SOURCES_FOLDER": str(options.file_sources_folder),
        # Whoever uses this cluster may reach from this machine what trainers may.
        "OCELLI_SOURCES_ALLOWED_NETWORKS": "0.0.0.0/0,::/0",
        "OCELLI_TRAINER_RESOURCES": json.dumps(TRAINER_RESOURCES),
        "OCELLI_INFERENCE_RESOURCES": json.dumps(INFERENCE_RESOURCES),
    }
    if options.gpus:
        # Images are nothing to the process node. That they are named is what opens GPUs to Classifiers.
        operator |= {"OCELLI_TRAINER_GPU_IMAGE": "ocelli-trainer", "OCELLI_INFERENCE_GPU_IMAGE": "ocelli-inference"}
    gateway = {
        **options.gateway_settings,
        "OCELLI_STORE_URL": options.store_url,
        "OCELLI_GATEWAY_HOST": "127.0.0.1",
        "OCELLI_GATEWAY_PORT": str(options.gateway_port),
        "OCELLI_GATEWAY_INTERNAL_PORT": str(options.gateway_internal_port),
        # There is one replica: nobody else's watch has to be waited for.
        "OCELLI_GATEWAY_REPLICA_DELAY_SECONDS": "0",
        "OCELLI_GATEWAY_DRAIN_SECONDS": "0",
    }
    await cluster.apply(CRDS)
    # A CRD that was just made answers 429 for a moment, which clients report as an error.
    await cluster.wait_for("the API server serves Classifiers", lambda: _serves_classifiers(cluster))
    secret = build_credentials_secret([options.credential_set])
    digest = hashlib.sha256(json.dumps(secret, sort_keys=True).encode()).hexdigest()
    manifests = [
        # Before the gateway: a Secret that comes after its Pod is mounted only when the node looks again, a minute later.
        secret,
        *load_manifests([path for path in sorted(MANIFESTS.glob("*.yaml")) if path.name != "kustomization.yaml"]),
    ]
    environments = {"ocelli-operator": operator, "ocelli-gateway": gateway}
    localised = [_localise(manifest, environments, digest) for manifest in manifests]
    await cluster.apply(localised, namespace=SYSTEM_NAMESPACE)
    await _make_built_ins(cluster, options.built_ins)


def known_built_ins() -> tuple[str, ...]:
    """The names of the built-in classifiers that are shipped."""
    return tuple(sorted(path.stem for path in BUILT_INS.glob("*.yaml") if path.name != "kustomization.yaml"))


async def _make_built_ins(cluster: LocalCluster, names: Sequence[str]) -> None:
    """One that is there already stays as it is: its user may have given it other weights. So do those of earlier releases."""
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{SYSTEM_NAMESPACE}/{PLURAL}"
    there = {item["metadata"]["name"] for item in (await cluster.access.client.get(path))["items"]}
    for manifest in load_manifests([BUILT_INS / f"{name}.yaml" for name in names if name not in there]):
        await cluster.access.client.create(path, manifest)


async def _serves_classifiers(cluster: LocalCluster) -> bool:
    try:
        await cluster.access.client.get(f"/apis/{API_VERSION}/{PLURAL}")
    except ApiError:
        return False
    return True


def _localise(manifest: Manifest, environments: Mapping[str, Mapping[str, str]], credentials_digest: str) -> Manifest:
    name = manifest["metadata"]["name"]
    localised = copy.deepcopy(manifest)
    if manifest["kind"] == "Namespace":
        # Pod Security counts the node's network as a privilege, which the gateway has here, see below.
        localised["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"
    if manifest["kind"] != "Deployment" or name not in environments:
        return localised
    pod = localised["spec"]["template"]["spec"]
    if name == "ocelli-gateway":
        # A Pod's own loopback address would do, but users expect localhost and a port of their choice.
        pod["hostNetwork"] = True
        # Two Pods cannot have the one port.
        localised["spec"]["strategy"] = {"type": "Recreate"}
        # Other credentials, another Pod: the node renews a mounted Secret only once a minute.
        localised["spec"]["template"]["metadata"]["annotations"] = {CREDENTIALS_ANNOTATION: credentials_digest}
    for container in pod["containers"]:
        values = environments[name]
        if name == "ocelli-gateway":
            container["ports"] = [
                {"name": name, "containerPort": int(values[variable])}
                for name, variable in (("http", "OCELLI_GATEWAY_PORT"), ("internal", "OCELLI_GATEWAY_INTERNAL_PORT"))
            ]
        kept = [item for item in container.get("env", []) if item["name"] not in values]
        container["env"] = kept + [{"name": key, "value": value} for key, value in values.items()]
    return localised
