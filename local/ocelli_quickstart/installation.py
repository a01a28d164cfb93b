"""Installing Ocelli into a local cluster: the shipped manifests, adapted to one machine.

Operator and gateway run as Pods with the chart's ServiceAccounts and Roles, as on any cluster.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocelli_api.classifier import API_VERSION, GROUP, PLURAL, VERSION
from ocelli_gateway.credential_sets import CredentialSet, build_credentials_secret
from ocelli_local import LocalCluster
from ocelli_local.access import load_manifests
from ocelli_local.api_client import ApiError
from ocelli_local.manifest import Manifest
from ocelli_model.backbones.families import DEFAULT_BACKBONE
from ocelli_model.publish import publish_backbone
from ocelli_storage.store_url import open_store

CHECKOUT = Path(__file__).resolve().parents[2]
CRDS = CHECKOUT / "crds" / "classifier.yaml"
NAMESPACE_FILE = CHECKOUT / "deploy" / "namespace.yaml"
MANIFESTS = CHECKOUT / "deploy" / "local" / "ocelli.yaml"
BUILT_INS = CHECKOUT / "charts" / "ocelli" / "built-in"
SYSTEM_NAMESPACE = "ocelli-system"
CREDENTIALS_ANNOTATION = f"{GROUP}/credentials"

# Requests limit how many Pods the scheduler puts on the node. They are small, so that dozens of classifiers fit a laptop, where
# they share the cores.
TRAINER_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "4Gi"}}
INFERENCE_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "2Gi"}}


@dataclass(frozen=True, kw_only=True)
class InstallationOptions:
    """The differences from the shipped manifests."""

    store_url: str
    file_sources_folder: Path
    gateway_port: int
    gateway_internal_port: int
    """For probes and metrics."""
    credential_set: CredentialSet
    gateway_settings: Mapping[str, str] = field(default_factory=dict)
    """Other variables of the gateway."""
    backbones: tuple[str, ...] = ()
    """torchvision backbones to install in addition to the default one."""
    weights: str | None = None
    """Where their weights are: a folder, a file or a URL; None: torch hub's cache."""
    gpus: bool = False
    """Whether the node offers GPUs."""
    built_ins: tuple[str, ...] = ()
    """Built-in classifiers to create if they do not exist: names of files in `charts/ocelli/built-in`."""


async def install(cluster: LocalCluster, options: InstallationOptions) -> None:
    """Apply everything. Returns before operator and gateway are ready.

    Raises:
        BackboneUnavailableError: the weights of a backbone are missing.
    """
    store = open_store(options.store_url)
    backbones = [await publish_backbone(store, DEFAULT_BACKBONE)]
    others = [name for name in options.backbones if name != DEFAULT_BACKBONE]
    backbones += [await publish_backbone(store, name, weights=options.weights) for name in others]
    operator = {
        "OCELLI_STORE_URL": options.store_url,
        "OCELLI_BACKBONES": ",".join(str(backbone) for backbone in backbones),
        "OCELLI_BACKBONES_FOLDER": "",
        "OCELLI_FILE_SOURCES_FOLDER": str(options.file_sources_folder),
        # Users of this cluster have the network access of this machine anyway.
        "OCELLI_SOURCES_ALLOWED_NETWORKS": "0.0.0.0/0,::/0",
        "OCELLI_TRAINER_RESOURCES": json.dumps(TRAINER_RESOURCES),
        "OCELLI_INFERENCE_RESOURCES": json.dumps(INFERENCE_RESOURCES),
    }
    if not options.gpus:
        # The process node ignores images, but a GPU image in the settings is what offers GPUs to Classifiers.
        operator |= {"OCELLI_TRAINER_GPU_IMAGE": "", "OCELLI_INFERENCE_GPU_IMAGE": ""}
    gateway = {
        **options.gateway_settings,
        "OCELLI_STORE_URL": options.store_url,
        "OCELLI_GATEWAY_HOST": "127.0.0.1",
        "OCELLI_GATEWAY_PORT": str(options.gateway_port),
        "OCELLI_GATEWAY_INTERNAL_PORT": str(options.gateway_internal_port),
        # With one replica, there is no other watch to wait for.
        "OCELLI_GATEWAY_REPLICA_DELAY_SECONDS": "0",
        "OCELLI_GATEWAY_DRAIN_SECONDS": "0",
    }
    await cluster.access.apply(CRDS)
    # For a moment after its creation, a CRD answers 429, which clients report as an error.
    await cluster.access.wait_for("the API server serves Classifiers", lambda: _serves_classifiers(cluster))
    secret = build_credentials_secret([options.credential_set])
    digest = hashlib.sha256(json.dumps(secret, sort_keys=True).encode()).hexdigest()
    manifests = [
        # Before the gateway: if a Secret is created after its Pod, the node mounts it a minute later.
        secret,
        *load_manifests([NAMESPACE_FILE, MANIFESTS]),
    ]
    environments = {"ocelli-operator": operator, "ocelli-gateway": gateway}
    localised = [_localise(manifest, environments, digest) for manifest in manifests]
    await _delete_deployments_of_before(cluster, localised)
    await cluster.access.apply(localised, namespace=SYSTEM_NAMESPACE)
    await _create_built_ins(cluster, options.built_ins)


def known_built_ins() -> tuple[str, ...]:
    """The names of the built-in classifiers that are shipped."""
    return tuple(sorted(path.stem for path in BUILT_INS.glob("*.yaml")))


async def _delete_deployments_of_before(cluster: LocalCluster, manifests: Sequence[Manifest]) -> None:
    """An earlier release selected Pods by other labels, and a Deployment's selector cannot be changed."""
    for manifest in manifests:
        if manifest["kind"] != "Deployment":
            continue
        found = await cluster.access.get("apps/v1", "Deployment", manifest["metadata"]["name"], namespace=SYSTEM_NAMESPACE)
        if found is not None and found["spec"]["selector"] != manifest["spec"]["selector"]:
            await cluster.access.delete([found], namespace=SYSTEM_NAMESPACE)


async def _create_built_ins(cluster: LocalCluster, names: Sequence[str]) -> None:
    """Existing ones are not changed: their user may have set other weights."""
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
        # For Pod Security, the gateway's use of the host network (see below) is a privilege.
        localised["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"
    if manifest["kind"] != "Deployment" or name not in environments:
        return localised
    pod = localised["spec"]["template"]["spec"]
    if name == "ocelli-operator":
        # Its init containers publish backbones, which `install` has done, and its volumes serve them: a process here has the
        # machine's own /tmp, and gets its token by default.
        for field_name in ("initContainers", "volumes", "automountServiceAccountToken"):
            del pod[field_name]
        del pod["containers"][0]["volumeMounts"]
    if name == "ocelli-gateway":
        # Users expect localhost and a port of their choice, not the Pod's own loopback address.
        pod["hostNetwork"] = True
        # Two Pods can't use one port.
        localised["spec"]["strategy"] = {"type": "Recreate"}
        # Changed credentials replace the Pod: the node updates a mounted Secret only once a minute.
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
