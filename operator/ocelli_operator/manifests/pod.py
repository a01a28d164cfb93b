"""What trainers and inference servers have in common: a Pod of one program, without rights, that writes to scratch only."""

from __future__ import annotations

from collections.abc import Mapping

from ocelli_api.classifier import Manifest, Serving, Training
from ocelli_api.pods import Environment
from ocelli_operator.config import ChildSettings
from ocelli_operator.manifests.metadata import ChildOwner

SCRATCH_PATH = "/scratch"
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
TERMINATION_GRACE_SECONDS = 30


def build_pod_spec(container: Manifest, placement: Training | Serving) -> Manifest:
    """A Pod as the `restricted` Pod Security Standard asks for it, where the Classifier wants it."""
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    if placement.node_selector:
        spec["nodeSelector"] = dict(placement.node_selector)
    if placement.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in placement.tolerations]
    return spec


def build_program(name: str, package: str, image: str, image_pull_policy: str) -> Manifest:
    """The container of a program, as the `restricted` Pod Security Standard asks for it, with a read-only root file system."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": image_pull_policy,
        "command": ["python", "-m", package],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH_PATH}],
    }


def build_environment(owner: ChildOwner, settings: ChildSettings, revision: str, own: Mapping[str, str]) -> list[Manifest]:
    """The variables of a program, `own` among them; what is empty is left out."""
    values: dict[str, str] = {
        Environment.STORE_URL: settings.store_url,
        Environment.CLASSIFIER: f"{owner.namespace}/{owner.name}",
        Environment.NAMESPACE: owner.namespace,
        Environment.CLASSIFIER_ID: owner.classifier_id,
        Environment.REVISION: revision,
        **own,
        Environment.TERMINATION_MESSAGE_PATH: TERMINATION_MESSAGE_PATH,
        Environment.LOG_LEVEL: settings.log_level,
        # Libraries write caches and temporary files to these, and the root file system is read-only.
        "HOME": SCRATCH_PATH,
        "TMPDIR": SCRATCH_PATH,
    }
    return [{"name": str(name), "value": value} for name, value in values.items() if value]


def build_cpu_limit() -> Manifest:
    """The variable that tells a program how many cores it may use."""
    return {"name": str(Environment.CPU_LIMIT), "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}}
