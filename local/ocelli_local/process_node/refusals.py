"""What a process node can't honour in a Pod. Pure: a Pod in, sentences out, each with fact and remedy."""

from __future__ import annotations

from collections.abc import Iterator

from ocelli_local.manifests import Manifest

VOLUME_TYPES = {"emptyDir", "configMap", "secret", "downwardAPI", "projected"}
PROJECTED_SOURCES = {"serviceAccountToken", "configMap", "secret", "downwardAPI"}
REAL_CLUSTER = "use a real cluster for it"


def find_refusals(pod: Manifest) -> list[str]:
    """Every reason not to run the Pod; empty if it can run."""
    spec = pod["spec"]
    return [
        *find_pod_refusals(spec),
        *(refusal for volume in spec.get("volumes", []) for refusal in find_volume_refusals(volume)),
        *(
            refusal
            for container in [*spec.get("initContainers", []), *spec["containers"]]
            for refusal in find_container_refusals(container, host_network=bool(spec.get("hostNetwork")))
        ),
    ]


def find_pod_refusals(spec: Manifest) -> Iterator[str]:
    for field in ("hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(field):
            yield f"{field} can't be given to processes; remove it or {REAL_CLUSTER}"
    if spec.get("hostAliases"):
        yield f"hostAliases can't be added to this machine's names; use addresses or {REAL_CLUSTER}"
    if spec.get("runtimeClassName"):
        yield f"runtimeClassName {spec['runtimeClassName']}: there is no container runtime; remove it"
    if spec.get("resourceClaims"):
        yield f"resourceClaims: the node has no devices to give; remove them or {REAL_CLUSTER}"
    if spec.get("os", {}).get("name", "linux") != "linux":
        yield f"os {spec['os']['name']}: the node runs Linux; set os.name to linux"


def find_volume_refusals(volume: Manifest) -> Iterator[str]:
    # A volume that names no type is an emptyDir.
    types = [name for name in volume if name != "name"] or ["emptyDir"]
    for name in types:
        if name == "persistentVolumeClaim":
            yield (
                f"volume {volume['name']} is a persistentVolumeClaim, and nothing is mounted here; "
                f"use an emptyDir or {REAL_CLUSTER}"
            )
        elif name == "hostPath":
            yield (
                f"volume {volume['name']} is a hostPath, and nothing is mounted here; "
                "give the process the path itself, in an argument or a variable"
            )
        elif name not in VOLUME_TYPES:
            yield f"volume {volume['name']} is of type {name}; use {', '.join(sorted(VOLUME_TYPES))} or {REAL_CLUSTER}"
    for source in volume.get("projected", {}).get("sources", []):
        for name in set(source) - PROJECTED_SOURCES:
            yield f"volume {volume['name']} projects {name}; use {', '.join(sorted(PROJECTED_SOURCES))}"


def find_container_refusals(container: Manifest, *, host_network: bool) -> Iterator[str]:
    name = container["name"]
    if not container.get("command"):
        yield (f"container {name} has no command, and images are not used here, so there is nothing to run; set its command")
    security = container.get("securityContext", {})
    if security.get("privileged"):
        yield f"container {name} is privileged, and a process here has the rights of its user; remove it"
    if security.get("capabilities", {}).get("add"):
        yield f"container {name} adds capabilities, and a process here has the rights of its user; remove them"
    if container.get("volumeDevices"):
        yield f"container {name} has volumeDevices, and there are no block devices; remove them or {REAL_CLUSTER}"
    for mount in container.get("volumeMounts", []):
        if mount.get("subPathExpr"):
            yield f"container {name} mounts {mount['name']} with subPathExpr; use subPath"
    for port in container.get("ports", []):
        if port.get("hostPort") and not host_network:
            yield (
                f"container {name} asks for hostPort {port['hostPort']}, and ports can't be mapped; "
                "set hostNetwork: true and listen on 127.0.0.1"
            )
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if "grpc" in container.get(probe, {}):
            yield f"container {name}: {probe} is a gRPC probe; use httpGet, tcpSocket or exec"
    if container.get("restartPolicyRules"):
        yield f"container {name} has restartPolicyRules; use the Pod's restartPolicy or {REAL_CLUSTER}"
