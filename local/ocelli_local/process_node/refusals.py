"""Settings of a Pod that a process node does not support. Pure: from a Pod to sentences, each with fact and remedy."""

from __future__ import annotations

from collections.abc import Iterator

from ocelli_local.manifest import Manifest

VOLUME_TYPES = {"emptyDir", "configMap", "secret", "downwardAPI", "projected"}
PROJECTED_SOURCES = {"serviceAccountToken", "configMap", "secret", "downwardAPI"}
REAL_CLUSTER = "use a real cluster for it"


def find_refusals(pod: Manifest) -> list[str]:
    """All reasons not to run the Pod; empty if it can run."""
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
            yield f"{field} is not supported for processes; remove it or {REAL_CLUSTER}"
    if spec.get("hostAliases"):
        yield f"hostAliases are not supported: the machine's host names are used; use addresses or {REAL_CLUSTER}"
    if spec.get("runtimeClassName"):
        yield f"runtimeClassName {spec['runtimeClassName']}: there is no container runtime; remove it"
    if spec.get("resourceClaims"):
        yield f"resourceClaims are not supported: the node has no devices; remove them or {REAL_CLUSTER}"
    if spec.get("os", {}).get("name", "linux") != "linux":
        yield f"os {spec['os']['name']}: the node runs Linux; set os.name to linux"


def find_volume_refusals(volume: Manifest) -> Iterator[str]:
    # A volume that names no type is an emptyDir.
    types = [name for name in volume if name != "name"] or ["emptyDir"]
    for name in types:
        if name == "persistentVolumeClaim":
            yield (
                f"volume {volume['name']} is a persistentVolumeClaim, but the process node mounts nothing; "
                f"use an emptyDir or {REAL_CLUSTER}"
            )
        elif name == "hostPath":
            yield (
                f"volume {volume['name']} is a hostPath, but the process node mounts nothing; "
                "pass the path itself in an argument or a variable"
            )
        elif name not in VOLUME_TYPES:
            yield f"volume {volume['name']} is of type {name}; use {', '.join(sorted(VOLUME_TYPES))} or {REAL_CLUSTER}"
    for source in volume.get("projected", {}).get("sources", []):
        for name in set(source) - PROJECTED_SOURCES:
            yield f"volume {volume['name']} projects {name}; use {', '.join(sorted(PROJECTED_SOURCES))}"


def find_container_refusals(container: Manifest, *, host_network: bool) -> Iterator[str]:
    name = container["name"]
    if not container.get("command"):
        yield f"container {name} has no command, and the process node uses no images; set its command"
    security = container.get("securityContext", {})
    if security.get("privileged"):
        yield f"container {name} is privileged, but processes have the rights of this user; remove it"
    if security.get("capabilities", {}).get("add"):
        yield f"container {name} adds capabilities, but processes have the rights of this user; remove them"
    if container.get("volumeDevices"):
        yield f"container {name} has volumeDevices, but the node has no block devices; remove them or {REAL_CLUSTER}"
    for mount in container.get("volumeMounts", []):
        if mount.get("subPathExpr"):
            yield f"container {name} mounts {mount['name']} with subPathExpr; use subPath"
    for port in container.get("ports", []):
        if port.get("hostPort") and not host_network:
            yield (
                f"container {name} has hostPort {port['hostPort']}, but the process node does not map ports; "
                "set hostNetwork: true and listen on 127.0.0.1"
            )
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if "grpc" in container.get(probe, {}):
            yield f"container {name}: {probe} is a gRPC probe; use httpGet, tcpSocket or exec"
    if container.get("restartPolicyRules"):
        yield f"container {name} has restartPolicyRules; use the Pod's restartPolicy or {REAL_CLUSTER}"
