"""A container's environment, command and arguments, as the process will see them.

Pure: takes the Pod, the objects it names and the real paths of its volumes, and gives strings. Owns `$(VAR)`, field and
resource references, and the translation of container paths. It must not read the API or touch files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocelli_local.manifests import Manifest
from ocelli_local.process_node.quantities import divide_rounding_up, parse_quantity

DEFAULT_TERMINATION_PATH = "/dev/termination-log"
TERMINATION_PATH_VARIABLE = "TERMINATION_MESSAGE_PATH"
VOLUMES_VARIABLE = "POD_VOLUMES"
REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")
MAP_KEY_FIELD = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")


class ContainerConfigError(Exception):
    """A container's environment can't be made; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class PodNetwork:
    """Where the Pod is."""

    pod_address: str
    host_address: str


@dataclass(frozen=True, kw_only=True)
class NamedObjects:
    """Contents of the ConfigMaps and Secrets that a Pod names, by name; one that does not exist is left out."""

    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ContainerPaths:
    """Real paths of one container: its mounts (container path to real path), volumes by name, termination message."""

    mounts: Mapping[str, Path]
    volumes: Mapping[str, Path]
    termination_message: Path


@dataclass(frozen=True, kw_only=True)
class EnvironmentInput:
    """All that a container's environment is made of."""

    pod: Manifest
    container: Manifest
    network: PodNetwork
    objects: NamedObjects
    paths: ContainerPaths
    allocatable: Mapping[str, str]
    defaults: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ProcessArguments:
    argv: list[str]
    env: dict[str, str]


def build_process_arguments(given: EnvironmentInput) -> ProcessArguments:
    """Raises ContainerConfigError where a reference can't be resolved."""
    declared = resolve_declared_environment(given)
    translation = PathTranslation.for_container(given.container, given.paths)
    env = {name: translation.translate(value) for name, value in {**given.defaults, **declared}.items()}
    env[TERMINATION_PATH_VARIABLE] = str(given.paths.termination_message)
    env[VOLUMES_VARIABLE] = json.dumps({name: str(path) for name, path in given.paths.volumes.items()}, sort_keys=True)
    words = [*given.container["command"], *given.container.get("args", [])]
    # Like the kubelet: what a variable refers to is only what the Pod declares.
    argv = [translation.translate(expand_references(word, declared)) for word in words]
    return ProcessArguments(argv=argv, env=env)


def resolve_declared_environment(given: EnvironmentInput) -> dict[str, str]:
    """`envFrom`, then `env` in order; each entry may refer to those before it."""
    env: dict[str, str] = {}
    for source in given.container.get("envFrom", []):
        prefix = source.get("prefix", "")
        for name, value in resolve_env_from(source, given.objects).items():
            env[prefix + name] = decode_value(value, prefix + name)
    for entry in given.container.get("env", []):
        if "valueFrom" not in entry:
            env[entry["name"]] = expand_references(entry.get("value", ""), env)
            continue
        value_from = resolve_value_from(entry["valueFrom"], given, entry["name"])
        if value_from is not None:
            env[entry["name"]] = value_from
    return env


def resolve_env_from(source: Manifest, objects: NamedObjects) -> Mapping[str, bytes]:
    for field_name, kind, found in (
        ("configMapRef", "configmap", objects.config_maps),
        ("secretRef", "secret", objects.secrets),
    ):
        if field_name in source:
            name = source[field_name].get("name", "")
            if name in found:
                return found[name]
            if source[field_name].get("optional"):
                return {}
            raise ContainerConfigError(f'{kind} "{name}" not found')
    raise ContainerConfigError(f"envFrom {sorted(source)} is not supported by the process node")


def resolve_value_from(value_from: Manifest, given: EnvironmentInput, variable: str) -> str | None:
    if "fieldRef" in value_from:
        return resolve_field(value_from["fieldRef"]["fieldPath"], given.pod, given.network)
    if "resourceFieldRef" in value_from:
        return resolve_resource_field(
            value_from["resourceFieldRef"], container_of(given.pod, value_from, given.container), given.allocatable
        )
    for field_name, kind, found in (
        ("configMapKeyRef", "configmap", given.objects.config_maps),
        ("secretKeyRef", "secret", given.objects.secrets),
    ):
        if field_name in value_from:
            reference = value_from[field_name]
            name, key = reference.get("name", ""), reference["key"]
            if key in found.get(name, {}):
                return decode_value(found[name][key], variable)
            if reference.get("optional"):
                return None
            if name in found:
                raise ContainerConfigError(f'{kind} "{name}" has no key "{key}"')
            raise ContainerConfigError(f'{kind} "{name}" not found')
    raise ContainerConfigError(f"variable {variable}: valueFrom {sorted(value_from)} is not supported by the process node")


def container_of(pod: Manifest, value_from: Manifest, default: Manifest) -> Manifest:
    """The container a resourceFieldRef means: the one it names, else the one it stands in."""
    name = value_from["resourceFieldRef"].get("containerName")
    if not name:
        return default
    for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
        if container["name"] == name:
            return dict(container)
    raise ContainerConfigError(f'resourceFieldRef names container "{name}", which the Pod does not have')


def resolve_field(path: str, pod: Manifest, network: PodNetwork) -> str:
    """The value of a downward API field."""
    metadata, spec = pod["metadata"], pod["spec"]
    map_key = MAP_KEY_FIELD.match(path)
    if map_key:
        return str(metadata.get(map_key[1], {}).get(map_key[2], ""))
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": network.pod_address,
        "status.podIPs": network.pod_address,
        "status.hostIP": network.host_address,
        "status.hostIPs": network.host_address,
    }
    if path in values:
        return str(values[path])
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.get(path.removeprefix("metadata."), {})
        return "\n".join(f"{name}={json.dumps(value)}" for name, value in sorted(entries.items()))
    raise ContainerConfigError(f'fieldRef "{path}" is not supported by the process node')


def resolve_resource_field(reference: Manifest, container: Manifest, allocatable: Mapping[str, str]) -> str:
    """A container's limit or request in units of the divisor. Without a limit it is what the node has, as on a kubelet."""
    kind, _, resource = reference["resource"].partition(".")
    resources = container.get("resources", {})
    amount = resources.get(kind, {}).get(resource)
    if amount is None and kind == "requests":
        amount = resources.get("limits", {}).get(resource, "0")
    if amount is None:
        amount = allocatable.get(resource, "0")
    divisor = parse_quantity(reference.get("divisor") or "1") or parse_quantity("1")
    return str(divide_rounding_up(parse_quantity(amount), divisor))


def expand_references(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable's value, `$$` becomes `$`; unknown names stay as they are."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return REFERENCE.sub(replace, text)


def decode_value(value: bytes, variable: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise ContainerConfigError(f"variable {variable}: the value is not UTF-8; read it as a file from a volume") from None
    if "\0" in text:
        raise ContainerConfigError(f"variable {variable}: the value holds a zero byte; read it as a file from a volume")
    return text


class PathTranslation:
    """Container paths to real ones: for strings that are a mount's path or begin with it and a slash."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        # Of nested mounts the inner one counts.
        self._mounts = sorted(((path.rstrip("/") or "/", real) for path, real in mounts.items()), reverse=True)

    @classmethod
    def for_container(cls, container: Manifest, paths: ContainerPaths) -> PathTranslation:
        termination = container.get("terminationMessagePath") or DEFAULT_TERMINATION_PATH
        return cls({**paths.mounts, termination: paths.termination_message})

    def translate(self, text: str) -> str:
        for mount, real in self._mounts:
            if text == mount:
                return str(real)
            if text.startswith(f"{mount}/"):
                return str(real) + text[len(mount) :]
        return text


def referenced_objects(containers: Iterable[Manifest]) -> tuple[Sequence[str], Sequence[str]]:
    """Names of the ConfigMaps and of the Secrets that these containers' environments need."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for container in containers:
        for source in container.get("envFrom", []):
            config_maps.update([source["configMapRef"]["name"]] if "configMapRef" in source else [])
            secrets.update([source["secretRef"]["name"]] if "secretRef" in source else [])
        for entry in container.get("env", []):
            value_from = entry.get("valueFrom", {})
            config_maps.update([value_from["configMapKeyRef"]["name"]] if "configMapKeyRef" in value_from else [])
            secrets.update([value_from["secretKeyRef"]["name"]] if "secretKeyRef" in value_from else [])
    return sorted(config_maps), sorted(secrets)
