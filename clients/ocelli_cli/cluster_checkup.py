"""What `ocelli doctor` checks in a cluster, by kubectl and with the rights of the user: CRD, chart, store, GPUs and so on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ocelli_cli.findings import Finding, ok, problem, warning
from ocelli_client import OcelliError
from ocelli_client.texts import count, shorten

CRD = "classifiers.ocelli.dev"
PART_OF = "app.kubernetes.io/part-of=ocelli"
COMPONENTS = ("operator", "gateway")
LEAST_KUBERNETES = (1, 31)
GPU = "nvidia.com/gpu"
_TIMEOUT_SECONDS = 30.0
Document = Mapping[str, Any]


class KubectlError(OcelliError):
    """kubectl failed."""


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """kubectl with one context of the user's configuration."""

    program: str
    context: str
    timeout_seconds: float = _TIMEOUT_SECONDS

    def get(self, *arguments: str) -> Document:
        """The answer of a command that prints JSON.

        Raises:
            KubectlError: it failed; the text is kubectl's last line.
        """
        command = [self.program, f"--context={self.context}", *arguments, "-o", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout_seconds, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KubectlError(f"kubectl did not answer ({error})") from error
        if done.returncode != 0:
            raise KubectlError((done.stderr.strip().splitlines() or ["kubectl failed without a message"])[-1])
        try:
            document: Document = json.loads(done.stdout)
        except ValueError as error:
            raise KubectlError("kubectl printed something else than JSON") from error
        return document

    def items(self, *arguments: str) -> list[Document]:
        """The objects of a list."""
        return list(self.get("get", *arguments).get("items", ()))

    @cached_property
    def classifiers(self) -> list[Document]:
        """Those of all namespaces. Two checks look at them."""
        return self.items(CRD, "--all-namespaces")


def check_cluster(context: str, namespace: str | None, timeout_seconds: float | None = None) -> Iterator[Finding]:
    """All checks. A right that is missing is a warning of its check, and the others go on."""
    program = shutil.which("kubectl")
    if program is None:
        yield problem("kubectl", "kubectl is not on the PATH", "install it, or leave out --kube-context")
        return
    kubectl = Kubectl(program=program, context=context, timeout_seconds=timeout_seconds or _TIMEOUT_SECONDS)
    try:
        yield _check_version(kubectl)
    except KubectlError as error:
        yield problem("cluster", str(error), f"check the context: kubectl --context={context} version")
        return
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("CRD", lambda: _check_crd(kubectl)),
        ("chart", lambda: _check_chart(kubectl, namespace)),
        ("store", lambda: _check_store(kubectl, namespace)),
        ("GPUs", lambda: _check_gpus(kubectl)),
        ("Classifiers", lambda: _check_classifiers(kubectl)),
    )
    for check, run in checks:
        try:
            yield from run()
        except KubectlError as error:
            yield warning(check, f"not checked: {error}", "use a context that may read it")


def _check_version(kubectl: Kubectl) -> Finding:
    server = kubectl.get("version")["serverVersion"]
    found = (int(server["major"]), int("".join(filter(str.isdigit, server["minor"]))))
    if found >= LEAST_KUBERNETES:
        return ok("cluster", f"Kubernetes {server['gitVersion']}")
    least = ".".join(map(str, LEAST_KUBERNETES))
    return problem("cluster", f"Kubernetes {server['gitVersion']}", f"upgrade the cluster to {least} or newer")


def _check_crd(kubectl: Kubectl) -> Iterator[Finding]:
    found = [one for one in kubectl.items("crd") if one["metadata"]["name"] == CRD]
    if not found:
        yield problem("CRD", f"{CRD} is not installed", "helm install ocelli-crds, see docs/install.md")
        return
    (crd,) = found
    if _condition(crd, "Established") != "True":
        yield problem("CRD", f"{CRD} is not established", f"kubectl describe crd {CRD}")
        return
    yield ok("CRD", f"{CRD} {', '.join(version['name'] for version in crd['spec']['versions'] if version['served'])}")


def _check_chart(kubectl: Kubectl, namespace: str | None) -> Iterator[Finding]:
    deployments = kubectl.items("deployments", *_where(namespace), "-l", PART_OF)
    by_component: dict[str, list[Document]] = {}
    for deployment in deployments:
        by_component.setdefault(deployment["metadata"]["labels"].get("app.kubernetes.io/component", "?"), []).append(deployment)
    for component in COMPONENTS:
        if component not in by_component:
            where = "the cluster" if namespace is None else f"namespace {namespace}"
            yield problem("chart", f"there is no {component} in {where}", "helm install ocelli, see docs/install.md")
    for component, found in by_component.items():
        for deployment in found:
            yield _judge_deployment(kubectl, component, deployment)


def _judge_deployment(kubectl: Kubectl, component: str, deployment: Document) -> Finding:
    name, namespace = deployment["metadata"]["name"], deployment["metadata"]["namespace"]
    wanted, ready = deployment["spec"].get("replicas", 1), deployment.get("status", {}).get("availableReplicas", 0)
    fact = f"{namespace}/{name}: {ready} of {count(wanted, 'replica')} available"
    if wanted == 0:
        return warning(
            component, f"{namespace}/{name} is scaled to 0", f"kubectl scale -n {namespace} deployment/{name} --replicas=1"
        )
    if ready >= wanted:
        return ok(component, fact)
    labels = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    reasons = {reason for pod in kubectl.items("pods", "-n", namespace, "-l", labels) for reason in _pod_faults(pod)}
    remedy = f"kubectl describe -n {namespace} deployment/{name}; kubectl logs -n {namespace} deployment/{name}"
    full = f"{fact} ({'; '.join(sorted(reasons))})" if reasons else fact
    return problem(component, full, remedy) if ready == 0 else warning(component, full, remedy)


def _pod_faults(pod: Document) -> Iterator[str]:
    """Why a Pod does not run, in Kubernetes' words."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{condition.get('reason', 'not scheduled')}: {condition.get('message', '')}"
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
            yield f"{container['name']}: {waiting.get('reason')} {waiting.get('message', '')}".rstrip()


def _check_store(kubectl: Kubectl, namespace: str | None) -> Iterator[Finding]:
    claims = kubectl.items("persistentvolumeclaims", *_where(namespace), "-l", PART_OF)
    if not claims:
        yield ok("store", "no volume of its own: a bucket, or an existing claim")
    for claim in claims:
        name, phase = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}", claim["status"].get("phase")
        if phase == "Bound":
            yield ok("store", f"claim {name} is bound, {claim['status']['capacity']['storage']}")
        else:
            remedy = (
                f"kubectl describe pvc -n {claim['metadata']['namespace']} {claim['metadata']['name']}; set a storage class"
            )
            yield problem("store", f"claim {name} is {phase}", remedy)


def _check_gpus(kubectl: Kubectl) -> Iterator[Finding]:
    nodes = kubectl.items("nodes")
    ready = [node for node in nodes if _condition(node, "Ready") == "True" and not node["spec"].get("unschedulable")]
    gpus = {node["metadata"]["name"]: int(node["status"].get("allocatable", {}).get(GPU, 0)) for node in ready}
    offered = {name: number for name, number in gpus.items() if number}
    if len(ready) < len(nodes):
        names = [node["metadata"]["name"] for node in nodes if node not in ready]
        yield warning("nodes", f"not ready or not schedulable: {shorten(names)}", "kubectl describe node")
    wanting = [_name(one) for one in kubectl.classifiers if _wants_gpu(one)]
    if offered:
        yield ok("GPUs", ", ".join(f"{name} offers {number}" for name, number in offered.items()))
    elif wanting:
        yield problem(
            "GPUs",
            f"no node offers {GPU}, and these Classifiers require a GPU: {shorten(wanting)}",
            "add a node with a GPU and its device plugin, or set spec.training.accelerator to CPU; see docs/gpus.md",
        )
    else:
        yield ok("GPUs", f"no node offers {GPU}, and no Classifier requires one")


def _wants_gpu(classifier: Document) -> bool:
    spec = classifier["spec"]
    return any(spec.get(part, {}).get("accelerator") == "GPU" for part in ("training", "serving"))


def _check_classifiers(kubectl: Kubectl) -> Iterator[Finding]:
    classifiers = kubectl.classifiers
    stalled = [one for one in classifiers if _condition(one, "Stalled") == "True"]
    for one in stalled:
        # The message has object, fact and remedy.
        message = next(item["message"] for item in one["status"]["conditions"] if item["type"] == "Stalled")
        yield problem(
            f"Classifier {_name(one)}",
            message,
            f"kubectl describe clf -n {one['metadata']['namespace']} {one['metadata']['name']}",
        )
    unseen = [_name(one) for one in classifiers if not one.get("status", {}).get("conditions")]
    if unseen:
        remedy = "check that an operator runs and watches their namespaces"
        yield problem("unseen Classifiers", f"no operator has looked at {shorten(unseen)}", remedy)
    if not stalled and not unseen:
        yield ok("Classifiers", f"{count(len(classifiers), 'Classifier')}, none stalled")


def _name(document: Document) -> str:
    return f"{document['metadata']['namespace']}/{document['metadata']['name']}"


def _condition(document: Document, kind: str) -> str | None:
    conditions: Sequence[Document] = document.get("status", {}).get("conditions", ())
    return next((one["status"] for one in conditions if one["type"] == kind), None)


def _where(namespace: str | None) -> tuple[str, ...]:
    return ("--all-namespaces",) if namespace is None else ("-n", namespace)
