"""What trainers and inference servers share: a Pod of one program, without permissions, that writes only to its scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ocelli_api.classifier import Accelerator, Manifest
from ocelli_api.pods import SIGNING_SECRET_KEY, STORE_TOKEN_FILE, Environment
from ocelli_operator.manifests.metadata import ChildOwner
from ocelli_operator.manifests.placement import Placement
from ocelli_operator.settings import ChildSettings, GpuSettings, Resources

SCRATCH_PATH = "/scratch"
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
STORE_TOKEN_FOLDER, _, STORE_TOKEN_NAME = STORE_TOKEN_FILE.rpartition("/")
STORE_TOKEN_SECONDS = 3600
_EMBEDDED_STORE_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class PodNeeds:
    """How the Pods of the programs differ."""

    store_audience: str
    """Audience of the token for the embedded store."""
    scratch_size: str
    """A Pod that writes more to its scratch volume is evicted, so that it does not fill the disk of its node."""
    grace_seconds: int = 30
    """How long the Pod may take to terminate."""


def build_pod_spec(container: Manifest, placement: Placement, settings: ChildSettings, needs: PodNeeds) -> Manifest:
    """The spec of a Pod that meets the `restricted` Pod Security Standard.

    Its ServiceAccount has no permissions in the cluster.
    """
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": needs.grace_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": needs.scratch_size}}],
    }
    if settings.workload_service_account:
        spec["serviceAccountName"] = settings.workload_service_account
    if _is_embedded_store(settings):
        token = {"audience": needs.store_audience, "expirationSeconds": STORE_TOKEN_SECONDS, "path": STORE_TOKEN_NAME}
        spec["volumes"].append({"name": "store-token", "projected": {"sources": [{"serviceAccountToken": token}]}})
    if placement.node_selector:
        spec["nodeSelector"] = dict(placement.node_selector)
    if placement.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in placement.tolerations]
    if placement.runtime_class_name:
        spec["runtimeClassName"] = placement.runtime_class_name
    return spec


def build_program(name: str, package: str, image: str, settings: ChildSettings) -> Manifest:
    """The container of a program that meets the `restricted` Pod Security Standard, with a read-only root file system."""
    container: Manifest = {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", package],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH_PATH}],
    }
    if settings.store_secret:
        container["envFrom"] = [{"secretRef": {"name": settings.store_secret}}]
    if _is_embedded_store(settings):
        container["volumeMounts"].append({"name": "store-token", "mountPath": STORE_TOKEN_FOLDER, "readOnly": True})
    return container


def build_environment(owner: ChildOwner, settings: ChildSettings, revision: str, own: Mapping[str, str]) -> list[Manifest]:
    """The environment variables of a program, including `own`, without empty ones."""
    values: dict[str, str] = {
        Environment.STORE_URL: settings.store_url,
        Environment.STORE_TOKEN_FILE: STORE_TOKEN_FILE if _is_embedded_store(settings) else "",
        Environment.CLASSIFIER: f"{owner.namespace}/{owner.name}",
        Environment.NAMESPACE: owner.namespace,
        Environment.CLASSIFIER_ID: owner.classifier_id,
        Environment.REVISION: revision,
        **own,
        Environment.SIGNING_PUBLIC_KEYS: ",".join(map(str, settings.signing_public_keys)),
        Environment.TERMINATION_MESSAGE_PATH: TERMINATION_MESSAGE_PATH,
        Environment.LOG_LEVEL: settings.log_level,
        # Libraries write caches and temporary files to these, and the root file system is read-only.
        "HOME": SCRATCH_PATH,
        "TMPDIR": SCRATCH_PATH,
    }
    return [{"name": str(name), "value": value} for name, value in values.items() if value]


def build_resources(resources: Resources, gpu: GpuSettings, accelerator: Accelerator) -> Manifest:
    """Requests and limits of a program, with one GPU added if it gets one and the Classifier names none."""
    built: Manifest = {kind: dict(quantities) for kind, quantities in resources.items()}
    # Such resources cannot be overcommitted: the API server copies a limit to the request, and rejects requests without limits.
    named = {name: amount for name, amount in built.get("requests", {}).items() if gpu.is_gpu(name)}
    if named:
        built["limits"] = {**named, **built.get("limits", {})}
    if accelerator is Accelerator.GPU and not any(gpu.is_gpu(name) for name in built.get("limits", {})):
        built.setdefault("limits", {})[gpu.resource] = "1"
    return built


def without_gpus(resources: Resources, gpu: GpuSettings) -> Resources:
    """The same requests and limits without GPUs."""
    return {
        kind: {name: amount for name, amount in quantities.items() if not gpu.is_gpu(name)}
        for kind, quantities in resources.items()
    }


def build_cpu_limit() -> Manifest:
    """The variable with the number of cores that a program may use."""
    return {"name": str(Environment.CPU_LIMIT), "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}}


def build_signing_key(settings: ChildSettings) -> list[Manifest]:
    """The variable with the key that a trainer signs artifacts with, if there is one."""
    if not settings.signing_secret:
        return []
    # Not a volume: for a Secret that is missing, Kubernetes then names it in the Pod's status.
    reference = {"name": settings.signing_secret, "key": SIGNING_SECRET_KEY}
    return [{"name": str(Environment.SIGNING_KEY), "valueFrom": {"secretKeyRef": reference}}]


def _is_embedded_store(settings: ChildSettings) -> bool:
    return settings.store_url.startswith(_EMBEDDED_STORE_SCHEMES)
