"""A Pod's volumes as folders, filled and kept fresh.

Owns the folders below one Pod's folder, and when a token is due for renewal. It mounts nothing: containers are given
paths (`environment.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_local.manifests import Manifest
from ocelli_local.process_node.environment import (
    NamedObjects,
    PodNetwork,
    container_of,
    resolve_field,
    resolve_resource_field,
)
from ocelli_local.process_node.pod_objects import ObjectUnavailableError, PodObjects, Token

DEFAULT_MODE = 0o644
DEFAULT_TOKEN_SECONDS = 3600
TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True, kw_only=True)
class VolumeFile:
    path: str
    content: bytes
    mode: int


class PodVolumes:
    """All volumes of one Pod. `prepare` fills them, `refresh` brings them up to date."""

    def __init__(
        self, pod: Manifest, folder: Path, objects: PodObjects, network: PodNetwork, allocatable: Mapping[str, str]
    ) -> None:
        self._pod = pod
        self._folder = folder
        self._objects = objects
        self._network = network
        self._allocatable = allocatable
        self._tokens: dict[tuple[str, str], Token] = {}
        self._written: dict[str, dict[str, VolumeFile]] = {}

    @property
    def paths(self) -> dict[str, Path]:
        """Real path of each volume by name."""
        return {volume["name"]: self._folder / volume["name"] for volume in self._volumes}

    @property
    def need_refresh(self) -> bool:
        return not all(is_empty_dir(volume) for volume in self._volumes)

    @property
    def _volumes(self) -> list[Manifest]:
        volumes: list[Manifest] = self._pod["spec"].get("volumes", [])
        return volumes

    def mounts(self, container: Manifest) -> dict[str, Path]:
        """Real paths by container path."""
        return {
            mount["mountPath"]: self.paths[mount["name"]] / mount.get("subPath", "")
            for mount in container.get("volumeMounts", [])
        }

    def make_sub_paths(self, container: Manifest) -> None:
        """Like a kubelet, a `subPath` that is not there yet becomes a folder."""
        for mount in container.get("volumeMounts", []):
            path = self.paths[mount["name"]] / mount.get("subPath", "")
            if not path.exists():
                path.mkdir(parents=True)

    def token_file(self, container: Manifest) -> Path | None:
        """The file with this container's token for the API server, if it mounts one."""
        token = self.mounts(container).get(TOKEN_MOUNT)
        return token / "token" if token is not None and (token / "token").exists() else None

    async def prepare(self) -> None:
        """Make and fill every volume; raises ObjectUnavailableError if something that is not optional is missing."""
        for volume in self._volumes:
            path = self.paths[volume["name"]]
            path.mkdir(parents=True, exist_ok=True)
            if not is_empty_dir(volume):
                self._write(volume["name"], await self._build_files(volume))

    async def refresh(self) -> None:
        """Renew what changed. What has gone meanwhile stays as it was, as on a kubelet."""
        for volume in self._volumes:
            if not is_empty_dir(volume):
                try:
                    self._write(volume["name"], await self._build_files(volume))
                except ObjectUnavailableError:
                    continue

    def _write(self, name: str, files: list[VolumeFile]) -> None:
        folder = self.paths[name]
        before = self._written.get(name, {})
        wanted = {file.path: file for file in files}
        for path, file in wanted.items():
            if before.get(path) == file:
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            # A reader sees the old file or the new one, never half of one.
            temporary = target.with_name(f"..{target.name}.new")
            temporary.unlink(missing_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode), "wb") as stream:
                os.fchmod(stream.fileno(), file.mode)
                stream.write(file.content)
            temporary.replace(target)
        for path in set(before) - set(wanted):
            (folder / path).unlink(missing_ok=True)
        self._written[name] = wanted

    async def _build_files(self, volume: Manifest) -> list[VolumeFile]:
        for kind in ("configMap", "secret", "downwardAPI"):
            if kind in volume:
                source = volume[kind]
                return await self._build_source(volume["name"], kind, source, source.get("defaultMode", DEFAULT_MODE))
        projected = volume["projected"]
        files = []
        for entry in projected.get("sources", []):
            for kind, source in entry.items():
                mode = projected.get("defaultMode", DEFAULT_MODE)
                files += await self._build_source(volume["name"], kind, source, mode)
        return files

    async def _build_source(self, volume: str, kind: str, source: Manifest, mode: int) -> list[VolumeFile]:
        if kind == "serviceAccountToken":
            token = await self._current_token(volume, source)
            # Tokens are for the owner alone, whatever the mode of the volume's other files.
            return [VolumeFile(path=source["path"], content=token.value.encode(), mode=0o600)]
        if kind == "downwardAPI":
            return [self._build_downward_file(item, mode) for item in source.get("items", [])]
        name = source.get("secretName") if kind == "secret" and "secretName" in source else source.get("name", "")
        read = self._objects.read_secret if kind == "secret" else self._objects.read_config_map
        content = await read(str(name))
        if content is None:
            if source.get("optional"):
                return []
            raise ObjectUnavailableError(f'volume {volume}: {kind.lower()} "{name}" not found')
        return select_files(volume, source, content, mode)

    def _build_downward_file(self, item: Manifest, mode: int) -> VolumeFile:
        if "fieldRef" in item:
            text = resolve_field(item["fieldRef"]["fieldPath"], self._pod, self._network)
        else:
            container = container_of(self._pod, item, {})
            text = resolve_resource_field(item["resourceFieldRef"], container, self._allocatable)
        return VolumeFile(path=item["path"], content=text.encode(), mode=item.get("mode", mode))

    async def _current_token(self, volume: str, source: Manifest) -> Token:
        lifetime = source.get("expirationSeconds", DEFAULT_TOKEN_SECONDS)
        key = (volume, source["path"])
        token = self._tokens.get(key)
        # Like the kubelet, at 80 % of its life.
        if token is None or token.expires - time.time() < 0.2 * lifetime:
            token = await self._objects.request_token(audience=source.get("audience"), expiration_seconds=lifetime)
            self._tokens[key] = token
        return token


def is_empty_dir(volume: Manifest) -> bool:
    return "emptyDir" in volume or set(volume) == {"name"}


def select_files(volume: str, source: Manifest, content: Mapping[str, bytes], mode: int) -> list[VolumeFile]:
    """All keys, or the `items` under their own paths."""
    if not source.get("items"):
        return [VolumeFile(path=key, content=value, mode=mode) for key, value in content.items()]
    files = []
    for item in source["items"]:
        if item["key"] in content:
            files.append(VolumeFile(path=item["path"], content=content[item["key"]], mode=item.get("mode", mode)))
        elif not source.get("optional"):
            raise ObjectUnavailableError(f"volume {volume}: references non-existent key {item['key']}")
    return files


async def read_named_objects(
    objects: PodObjects, config_maps: list[str] | tuple[str, ...], secrets: list[str] | tuple[str, ...]
) -> NamedObjects:
    """What environments refer to; objects that do not exist are left out."""
    found_maps = {name: await objects.read_config_map(name) for name in config_maps}
    found_secrets = {name: await objects.read_secret(name) for name in secrets}
    return NamedObjects(
        config_maps={name: data for name, data in found_maps.items() if data is not None},
        secrets={name: data for name, data in found_secrets.items() if data is not None},
    )
