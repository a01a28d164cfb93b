"""`make run`: everything on this machine until Ctrl-C, with a line for each change."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib.util
import json
import shlex
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from ocelli_api.classifier import GROUP, PLURAL, VERSION, parse_classifier
from ocelli_api.settings import SettingsError, list_settings, load_settings
from ocelli_gateway.credential_sets import PASSWORD_BYTES_LIMIT, CredentialSet, CredentialSetError, build_credential_set
from ocelli_gateway.settings import GatewaySettings
from ocelli_local import ClusterOptions, LocalCluster
from ocelli_local.api_client import ApiError
from ocelli_model.backbones.published_weights import hub_folder
from ocelli_quickstart.client import VERSION as TUTORIAL_VERSION
from ocelli_quickstart.client import Service
from ocelli_quickstart.installation import SYSTEM_NAMESPACE, InstallationOptions, install, known_built_ins
from ocelli_quickstart.samples import write_samples
from ocelli_quickstart.state import StateFolder, save_private
from ocelli_quickstart.summary import summarise
from ocelli_quickstart.tutorial import list_commands

DEFAULT_PORT = 8080
INTERNAL_PORT = 9090
PORTS_TRIED = 100
NAMESPACE = "default"
OWNER = "demo"
START_TIMEOUT_SECONDS = 90.0
GATEWAY_PREFIXES = ("OCELLI_GATEWAY_", "OCELLI_QUOTA_")
"""Of the gateway's variables that `make run` passes to it."""

Say = Callable[[str], None]


class RunError(Exception):
    """`make run` can't start; the message names object, fact and remedy."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of `make run`."""

    state_dir: Path
    port: int | None
    user: str
    password: str | None
    backbones: tuple[str, ...] = ()
    weights: str | None = None
    built_ins: tuple[str, ...] = ()
    """Built-in classifiers to create if they do not exist."""
    gateway_settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the gateway, see docs/reference/gateway-settings.md."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> RunSettings:
        """Raises RunError for an invalid PORT, an unknown built-in classifier, or an invalid setting of the gateway."""
        port = environment.get("PORT", "").strip()
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise RunError(f"PORT={port!r} is not a port; set a number from 1 to 65535, or unset it")
        known = known_built_ins()
        built_ins = tuple(dict.fromkeys(_words(environment.get("BUILT_INS", " ".join(known)))))
        for name in built_ins:
            if name not in known:
                raise RunError(
                    f"BUILT_INS names {name!r}, which is not a built-in classifier; name some of {', '.join(known)}, or none"
                )
        return cls(
            state_dir=Path(environment.get("STATE_DIR") or ".state"),
            port=int(port) if port else None,
            user=environment.get("OCELLI_USER") or "demo",
            password=environment.get("OCELLI_PASSWORD") or None,
            backbones=_words(environment.get("BACKBONES", "")),
            weights=environment.get("WEIGHTS") or None,
            built_ins=built_ins,
            gateway_settings=_gateway_settings(environment),
        )


def _gateway_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Checked before the start: otherwise `make run` would wait a minute and a half for a gateway that can't start."""
    given = {name: value for name, value in environment.items() if name.startswith(GATEWAY_PREFIXES) and value}
    known = [item.name for item in list_settings(GatewaySettings) if item.name.startswith(GATEWAY_PREFIXES)]
    for name in given.keys() - set(known):
        meant = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        remedy = f"did you mean {meant[0]}?" if meant else "see docs/reference/gateway-settings.md"
        raise RunError(f"{name} is not a setting of the gateway; {remedy}")
    try:
        load_settings(GatewaySettings, {**given, "OCELLI_STORE_URL": "file:///", "OCELLI_CREDENTIALS_FOLDER": "/"})
    except SettingsError as error:
        raise RunError(str(error)) from error
    return given


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


@contextlib.asynccontextmanager
async def running_ocelli(settings: RunSettings, say: Say) -> AsyncIterator[tuple[LocalCluster, Service, StateFolder]]:
    """Cluster, operator and gateway, ready for requests. Raises RunError, StateError and the errors of the cluster."""
    state = StateFolder(settings.state_dir)
    state.prepare()
    state.refuse_second_run()
    password = state.password(settings.password)
    credential_set = load_credentials(state.credentials, settings.user, password)
    started = time.monotonic()

    def step(text: str) -> None:
        say(f"{time.monotonic() - started:5.1f} s  {text}")

    async with contextlib.AsyncExitStack() as stack:
        port = stack.enter_context(claim_port(settings.port))
        internal_port = stack.enter_context(claim_port(None, first=INTERNAL_PORT))
        samples = asyncio.create_task(asyncio.to_thread(write_samples, state.samples))
        step("starting the Kubernetes control plane")
        gpus = count_gpus()
        cluster = await stack.enter_async_context(LocalCluster(_cluster_options(state, gpus), report=step))
        save_private(state.kubeconfig, cluster.access.kubeconfig.read_text())
        step("starting operator and gateway")
        await samples
        await install(
            cluster,
            InstallationOptions(
                store_url=state.store.as_uri(),
                file_sources_folder=state.samples,
                gateway_port=port,
                gateway_internal_port=internal_port,
                credential_set=credential_set,
                gateway_settings=settings.gateway_settings,
                backbones=settings.backbones,
                weights=settings.weights,
                gpus=gpus > 0,
                built_ins=settings.built_ins,
            ),
        )
        service = Service(address=f"http://127.0.0.1:{port}", user=settings.user, password=password)
        await _wait_until_healthy(cluster, service, internal_port)
        step("ready")
        state.save_running(service)
        try:
            yield cluster, service, state
        finally:
            state.remove_running()


def count_gpus(devices: Path = Path("/dev")) -> int:
    """The number of NVIDIA GPUs that the node offers: 0 without PyTorch, which is needed to use them."""
    if importlib.util.find_spec("torch") is None:
        return 0
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia*"))


def _cluster_options(state: StateFolder, gpus: int) -> ClusterOptions:
    return ClusterOptions(
        state_dir=state.cluster,
        extended_resources={"nvidia.com/gpu": str(gpus)} if gpus else {},
        # Containers have their own HOME, but trainers use this user's cache of published weights.
        container_env={"TORCH_HOME": str(hub_folder().parents[1].absolute())},
    )


async def run(settings: RunSettings, say: Say) -> None:
    """Run until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(_run(settings, say, stop))

    def ask_to_stop() -> None:
        # A second request would interrupt the stop.
        if stop.is_set():
            return
        # This also cancels a start, which then stops everything that it has started.
        stop.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask_to_stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    say("stopped; the state is kept, `make clean` deletes it")


async def _run(settings: RunSettings, say: Say, stop: asyncio.Event) -> None:
    async with running_ocelli(settings, say) as (cluster, service, state):
        own_kubectl = None if shutil.which("kubectl") else cluster.access.kubectl_path
        say(describe(service, state, own_kubectl))
        try:
            await _report_changes(cluster, say)
        finally:
            if stop.is_set():
                say("stopping")


def describe(service: Service, state: StateFolder, own_kubectl: Path | None) -> str:
    """Address, credentials and the tutorial's commands. `own_kubectl` is the cluster's kubectl, if none is installed."""
    lines = [
        "",
        f"Ocelli is ready at {service.address}",
        f"  console {service.address}/console/",
        f"  user {service.user}, password {service.password} (or user apikey with the same password)",
        f"  export KUBECONFIG={shlex.quote(str(state.kubeconfig))}",
        *([] if own_kubectl is None else [f"  alias kubectl={shlex.quote(str(own_kubectl))}   # kubectl is not installed"]),
        "  kubectl get clf   # or: kubectl apply -f crds/examples/digits.yaml",
        f"  kubectl -n {SYSTEM_NAMESPACE} logs -f deployment/ocelli-operator   # or ocelli-gateway",
        "",
        "The tutorial, ready to paste (or run `make demo` in another terminal):",
        "",
    ]
    for title, command in list_commands(service, _short(state.samples)):
        lines += [f"# {title}", command, ""]
    lines.append("Press Ctrl-C to stop everything. Changes of Classifiers:")
    return "\n".join(lines)


def load_credentials(file: Path, user: str, password: str) -> CredentialSet:
    """The credentials of this instance: the kept ones if they have this user and password, else new ones, which are kept.

    Each hash has a new salt, and a changed Secret would replace the gateway's Pod at each start. Raises RunError if the gateway
    does not allow this user name or password.
    """
    try:
        kept = CredentialSet.parse(json.loads(file.read_bytes()))
        same = kept.user == user and (kept.namespace, kept.owner) == (NAMESPACE, OWNER)
        if same and kept.password_hash is not None and kept.password_hash.matches(password):
            return kept
    except (OSError, ValueError, CredentialSetError):
        pass
    try:
        built = build_credential_set(user=user, password=password, namespace=NAMESPACE, owner=OWNER)
    except CredentialSetError as error:
        if len(password.encode()) > PASSWORD_BYTES_LIMIT:
            raise RunError(f"OCELLI_PASSWORD is too long; set one of at most {PASSWORD_BYTES_LIMIT:,} bytes") from error
        raise RunError(
            f"OCELLI_USER is {user!r}; set a name of printable characters without a colon, other than 'apikey'"
        ) from error
    save_private(file, json.dumps(built.to_json()))
    return built


@contextlib.contextmanager
def claim_port(wanted: int | None, *, first: int = DEFAULT_PORT) -> Iterator[int]:
    """The wanted port, else the first free one, reserved until the block ends. Raises RunError if none is free.

    The gateway binds it seconds later: without the claim, two concurrent starts could choose the same port.
    """
    for port in range(first, first + PORTS_TRIED) if wanted is None else (wanted,):
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                # A name in the kernel's abstract namespace, which the kernel removes when this process ends.
                claim.bind(f"\0ocelli-gateway-port-{port}")
            except OSError:
                continue
            if _is_free(port):
                yield port
                return
    remedy = "set PORT" if first == DEFAULT_PORT else "free one of them"
    if wanted is not None:
        raise RunError(f"port {wanted} of 127.0.0.1 is in use; set PORT to another port, or unset it")
    raise RunError(f"no port from {first} to {first + PORTS_TRIED - 1} is free; {remedy}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _short(path: Path) -> Path:
    """The path, relative to the current folder if possible."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


async def _wait_until_healthy(cluster: LocalCluster, service: Service, internal_port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    state = "it does not accept connections"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(f"http://127.0.0.1:{internal_port}/healthz") as response:
                    healthy = response.status == 200
                    state = (await response.text()).strip()
                # A Pod of an earlier start may answer, with earlier settings and credentials.
                if healthy and await _accepts(session, service):
                    deployment = await cluster.access.get("apps/v1", "Deployment", "ocelli-gateway", namespace=SYSTEM_NAMESPACE)
                    if deployment is not None and is_rolled_out(deployment):
                        return
                    state = "the Pod with the current settings is not available"
            except (aiohttp.ClientError, TimeoutError, ApiError):
                pass
            await asyncio.sleep(0.05)
    logs = await cluster.access.kubectl("-n", SYSTEM_NAMESPACE, "logs", "deployment/ocelli-gateway", "--tail=5", check=False)
    raise RunError(f"the gateway did not become healthy in {START_TIMEOUT_SECONDS:.0f} s: {state}\n{logs.stdout}{logs.stderr}")


def is_rolled_out(deployment: Mapping[str, Any]) -> bool:
    """Whether all Pods of a Deployment are available and have its current template."""
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return False
    return all(status.get(count, 0) == wanted for count in ("replicas", "updatedReplicas", "availableReplicas"))


async def _accepts(session: aiohttp.ClientSession, service: Service) -> bool:
    headers = {"Authorization": aiohttp.encode_basic_auth(service.user, service.password)}
    query = {"version": TUTORIAL_VERSION}
    async with session.get(f"{service.address}/v3/classifiers/none_1", params=query, headers=headers) as response:
        return response.status == 404


async def _report_changes(cluster: LocalCluster, say: Say) -> None:
    """A line for each change of any Classifier, until cancelled."""
    path = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
    shown: dict[str, str] = {}
    while True:
        try:
            listing: dict[str, Any] = await cluster.access.client.get(path)
        except (ApiError, aiohttp.ClientError, TimeoutError):
            # A component of the control plane that exited is restarted.
            await asyncio.sleep(0.5)
            continue
        current = summarise([parse_classifier(item) for item in listing["items"]])
        for key, text in current.items():
            if text and shown.get(key) != text:
                say(f"{time.strftime('%H:%M:%S')}  {key}: {text}")
        for key in shown.keys() - current.keys():
            say(f"{time.strftime('%H:%M:%S')}  {key}: deleted")
        shown = current
        await asyncio.sleep(0.5)
