"""Using a running cluster: applying manifests, waiting, kubeconfigs for ServiceAccounts, kubectl.

`ClusterAccess` is for asyncio, `SyncClusterAccess` for functions that block. Neither starts or stops anything, so both can
use a cluster that another process runs.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ocelli_local.api_client import ApiClient, ApiError
from ocelli_local.certificates import KeyPair
from ocelli_local.kubeconfig import ApiAddress, build_kubeconfig, save_kubeconfig
from ocelli_local.manifest import Manifest

T = TypeVar("T")
Manifests = Iterable[Manifest] | Manifest | str | Path | Iterable[str | Path]

FIELD_MANAGER = "ocelli-local"
# Other objects need these to exist.
APPLY_FIRST = {"Namespace": 0, "CustomResourceDefinition": 1, "PriorityClass": 2, "ServiceAccount": 3}
POLL_INTERVAL_SECONDS = 0.05
POLL_INTERVAL_LIMIT_SECONDS = 0.25
POLL_SHARE = 0.05
"""The pause as a share of the time waited so far. A long wait asks a fifth as often, and ends hardly later."""


class ClusterAccessError(Exception):
    """The cluster refused a request; the message names object, fact and remedy."""


def load_manifests(manifests: Manifests) -> list[Manifest]:
    """Manifests from dicts, YAML files, or folders of YAML files (sorted by file name); Lists are unpacked."""
    if isinstance(manifests, dict):
        loaded = [manifests]
    elif isinstance(manifests, (str, Path)):
        path = Path(manifests)
        files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
        loaded = [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]
    else:
        loaded = [loaded for entry in manifests for loaded in load_manifests(entry)]
    flat: list[Manifest] = []
    for manifest in loaded:
        flat.extend(manifest["items"] if manifest.get("kind") == "List" else [manifest])
    return flat


class ClusterAccess:
    """An administrator's access to one running cluster."""

    def __init__(self, kubeconfig: Path, *, kubectl: Path, folder: Path) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder
        self.kubectl_path = kubectl
        parsed = yaml.safe_load(kubeconfig.read_text())
        cluster, user = parsed["clusters"][0]["cluster"], parsed["users"][0]["user"]
        self.api_address = ApiAddress(url=cluster["server"], authority=Path(cluster["certificate-authority"]))
        self._certificate = KeyPair(certificate=Path(user["client-certificate"]), key=Path(user["client-key"]))
        self._client: ApiClient | None = None
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    @property
    def client(self) -> ApiClient:
        """The API as administrator, by path."""
        if self._client is None:
            self._client = ApiClient(self.api_address, self._certificate, user_agent="ocelli-local")
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def apply(self, manifests: Manifests, *, namespace: str = "default") -> list[Manifest]:
        """Server-side apply, namespaces and CRDs first; CRDs are Established when this returns.

        `namespace` is the default for manifests without one. Returns the objects as the server has them.
        """
        ordered = sorted(load_manifests(manifests), key=lambda manifest: APPLY_FIRST.get(manifest["kind"], 9))
        applied = []
        for manifest in ordered:
            path = await self._object_path(manifest, namespace)
            answer = await self._apply_when_served(path, manifest)
            if manifest["kind"] == "CustomResourceDefinition":
                answer = await self._wait_until_established(path)
            applied.append(answer)
        return applied

    async def delete(self, manifests: Manifests, *, namespace: str = "default") -> None:
        """Delete the objects that the manifests name. It is not an error if one does not exist."""
        for manifest in reversed(load_manifests(manifests)):
            try:
                await self.client.delete(await self._object_path(manifest, namespace), {"propagationPolicy": "Background"})
            except ApiError as error:
                if error.status != 404:
                    raise

    async def get(self, api_version: str, kind: str, name: str, *, namespace: str = "default") -> Manifest | None:
        """The object, or None."""
        manifest = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
        try:
            return await self.client.get(await self._object_path(manifest, namespace))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list_objects(self, path: str, query: Mapping[str, str] | None = None) -> list[Manifest]:
        """The items under an API path, e.g. `/api/v1/namespaces/a/pods`; `query` contains a `labelSelector`, for example."""
        items: list[Manifest] = (await self.client.get(path, query))["items"]
        return items

    async def service_account_kubeconfig(self, namespace: str, name: str, *, expiration_seconds: int = 24 * 3600) -> Path:
        """A kubeconfig of the ServiceAccount, with a token from TokenRequest."""
        answer = await self.client.create(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": expiration_seconds},
            },
        )
        folder = self.folder / "kubeconfigs"
        folder.mkdir(mode=0o700, exist_ok=True)
        kubeconfig = build_kubeconfig(self.api_address, {"token": answer["status"]["token"]}, namespace=namespace)
        return save_kubeconfig(folder / f"{namespace}.{name}", kubeconfig)

    async def kubectl(
        self, *arguments: str, check: bool = True, input_text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; raises CalledProcessError (with stderr in its notes) if `check`."""
        process = await asyncio.create_subprocess_exec(
            str(self.kubectl_path),
            f"--kubeconfig={self.kubeconfig}",
            *arguments,
            stdin=subprocess.PIPE if input_text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            stdout, stderr = await process.communicate(input_text.encode() if input_text is not None else None)
        except asyncio.CancelledError:
            process.kill()
            raise
        completed = subprocess.CompletedProcess(
            ["kubectl", *arguments], process.returncode or 0, stdout.decode(), stderr.decode()
        )
        if check:
            raise_if_failed(completed)
        return completed

    async def wait_for(self, what: str, condition: Callable[[], Awaitable[T | None]], *, timeout_seconds: float = 30.0) -> T:
        """Poll until `condition` returns a true value, and return it; raises TimeoutError that names `what`."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            value = await condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"timed out after {timeout_seconds:g} s: {what} (last value: {value!r})")
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _object_path(self, manifest: Manifest, default_namespace: str) -> str:
        metadata = manifest["metadata"]
        plural, namespaced = await self._resource(manifest["apiVersion"], manifest["kind"])
        prefix = build_group_path(manifest["apiVersion"])
        if namespaced:
            prefix += f"/namespaces/{metadata.get('namespace') or default_namespace}"
        return f"{prefix}/{plural}/{metadata['name']}"

    async def _resource(self, api_version: str, kind: str) -> tuple[str, bool]:
        """Plural name, and whether it is namespaced. A new CRD takes a moment to appear in discovery."""
        deadline = time.monotonic() + 10
        while (api_version, kind) not in self._plurals:
            try:
                answer = await self.client.get(build_group_path(api_version))
            except ApiError as error:
                if error.status not in (404, 503):
                    raise
                answer = {"resources": []}
            for resource in answer["resources"]:
                if "/" not in resource["name"]:
                    self._plurals[api_version, resource["kind"]] = (resource["name"], resource["namespaced"])
            if (api_version, kind) not in self._plurals and time.monotonic() > deadline:
                raise ClusterAccessError(f"{api_version} {kind} is not served by the API server; apply its CRD first")
            if (api_version, kind) not in self._plurals:
                await asyncio.sleep(POLL_INTERVAL_SECONDS)
        return self._plurals[api_version, kind]

    async def _apply_when_served(self, path: str, manifest: Manifest) -> Manifest:
        deadline = time.monotonic() + 5
        while True:
            try:
                return await self.client.apply(path, manifest, field_manager=FIELD_MANAGER)
            except ApiError as error:
                # For a path that is not served yet the answer is "page not found"; for a missing namespace it has a reason.
                not_served_yet = error.status == 404 and error.reason != "NotFound"
                if not (not_served_yet or error.status == 503) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _wait_until_established(self, path: str) -> Manifest:
        async def established() -> Manifest | None:
            definition = await self.client.get(path)
            conditions = definition.get("status", {}).get("conditions") or []
            return definition if any(c["type"] == "Established" and c["status"] == "True" for c in conditions) else None

        return await self.wait_for(f"{path} is Established", established)


def build_group_path(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def raise_if_failed(completed: subprocess.CompletedProcess[str]) -> None:
    try:
        completed.check_returncode()
    except subprocess.CalledProcessError as error:
        error.add_note(completed.stderr)
        raise


class EventLoopThread:
    """An event loop in a daemon thread, in which functions that block run coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ocelli-local access", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()


class SyncClusterAccess:
    """`ClusterAccess` for functions that block. The cluster runs in another process."""

    def __init__(self, kubeconfig: Path, *, kubectl: Path, folder: Path) -> None:
        self._thread = EventLoopThread()
        self._access = ClusterAccess(kubeconfig, kubectl=kubectl, folder=folder)
        self.kubectl_path = kubectl
        self.kubeconfig = kubeconfig
        self.folder = folder
        self.url = self._access.api_address.url

    def close(self) -> None:
        self._thread.run(self._access.close())
        self._thread.close()

    def apply(self, manifests: Manifests, *, namespace: str = "default") -> list[Manifest]:
        return self._thread.run(self._access.apply(manifests, namespace=namespace))

    def delete(self, manifests: Manifests, *, namespace: str = "default") -> None:
        self._thread.run(self._access.delete(manifests, namespace=namespace))

    def get(self, api_version: str, kind: str, name: str, *, namespace: str = "default") -> Manifest | None:
        return self._thread.run(self._access.get(api_version, kind, name, namespace=namespace))

    def list_objects(self, path: str, **query: str) -> list[Manifest]:
        """The items under an API path, e.g. `/api/v1/namespaces/a/pods`; with `labelSelector=`, for example."""
        return self._thread.run(self._access.list_objects(path, query))

    def service_account_kubeconfig(self, namespace: str, name: str, *, expiration_seconds: int = 24 * 3600) -> Path:
        return self._thread.run(self._access.service_account_kubeconfig(namespace, name, expiration_seconds=expiration_seconds))

    def kubectl(
        self, *arguments: str, check: bool = True, input_text: str | None = None, timeout_seconds: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        completed = subprocess.run(
            [str(self.kubectl_path), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=input_text,
            stdin=subprocess.DEVNULL if input_text is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if check:
            raise_if_failed(completed)
        return completed

    def start_kubectl(self, *arguments: str) -> subprocess.Popen[str]:
        """kubectl in the background, for example for `logs -f`; the caller ends it."""
        return subprocess.Popen(
            [str(self.kubectl_path), f"--kubeconfig={self.kubeconfig}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, what: str, condition: Callable[[], T | None], *, timeout_seconds: float = 30.0) -> T:
        """Poll until `condition` returns a true value, and return it; raises TimeoutError that names `what`."""
        started = time.monotonic()
        while True:
            began = time.monotonic()
            value = condition()
            if value:
                return value
            now = time.monotonic()
            if now > started + timeout_seconds:
                raise TimeoutError(f"timed out after {timeout_seconds:g} s: {what} (last value: {value!r})")
            pause = min(max(POLL_INTERVAL_SECONDS, POLL_SHARE * (now - started)), POLL_INTERVAL_LIMIT_SECONDS)
            # Without a pause, repeated calls of kubectl would use half a core.
            time.sleep(min(max(pause, 4 * (now - began)), 1))
