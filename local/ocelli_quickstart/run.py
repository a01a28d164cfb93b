"""`make run`: everything on this machine until Ctrl-C, saying what happens while it happens, in plain lines."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from ocelli_api.classifier import GROUP, PLURAL, VERSION, Classifier, ClassifierStatus, parse_classifier
from ocelli_api.conditions import ConditionType, StalledReason
from ocelli_gateway.credential_sets import PASSWORD_BYTES_LIMIT, CredentialSet, CredentialSetError, build_credential_set
from ocelli_gateway.settings import GatewaySettings, SettingsError, environment_variables
from ocelli_local import ClusterOptions, LocalCluster
from ocelli_local.api_client import ApiError
from ocelli_model.backbones.published_weights import hub_folder
from ocelli_quickstart.client import VERSION as TUTORIAL_VERSION
from ocelli_quickstart.client import Service
from ocelli_quickstart.installation import SYSTEM_NAMESPACE, InstallationOptions, install, known_built_ins
from ocelli_quickstart.samples import PHOTOGRAPHS, write_samples
from ocelli_quickstart.state import RunningInstance, StateFolder, save_private

DEFAULT_PORT = 8080
INTERNAL_PORT = 9090
PORTS_TRIED = 100
NAMESPACE = "default"
OWNER = "demo"
START_TIMEOUT_SECONDS = 90.0
GATEWAY_PREFIXES = ("OCELLI_GATEWAY_", "OCELLI_QUOTA_")
"""Of the gateway's variables that `make run` passes on."""

Say = Callable[[str], None]
Form = dict[str, str | Path]


class RunError(Exception):
    """It cannot run here and now; the message names object, fact and remedy."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a user sets."""

    state_dir: Path
    port: int | None
    user: str
    password: str | None
    backbones: tuple[str, ...] = ()
    weights: str | None = None
    built_ins: tuple[str, ...] = ()
    """Built-in classifiers to make where they are not there yet."""
    gateway_settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the gateway, as docs/reference/gateway-settings.md has them."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> RunSettings:
        """Settings of `make run`.

        Raises:
            RunError: PORT is no port, BUILT_INS names what is no built-in classifier, or the gateway would not start.
        """
        port = environment.get("PORT", "").strip()
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise RunError(f"PORT={port!r} is not a port; set a number from 1 to 65535, or leave it out")
        known = known_built_ins()
        built_ins = tuple(dict.fromkeys(_words(environment.get("BUILT_INS", " ".join(known)))))
        for name in built_ins:
            if name not in known:
                raise RunError(f"BUILT_INS names {name!r}; name some of {', '.join(known)}, or none")
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
    """Checked here: a gateway that does not start is found out only after a minute and a half of waiting for it."""
    given = {name: value for name, value in environment.items() if name.startswith(GATEWAY_PREFIXES) and value}
    known = [name for name in environment_variables() if name.startswith(GATEWAY_PREFIXES)]
    for name in given.keys() - set(known):
        meant = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        remedy = f"did you mean {meant[0]}?" if meant else "see docs/reference/gateway-settings.md"
        raise RunError(f"{name} is not a setting of the gateway; {remedy}")
    try:
        GatewaySettings.from_environment({**given, "OCELLI_STORE_URL": "file:///", "OCELLI_CREDENTIALS_FOLDER": "/"})
    except SettingsError as error:
        raise RunError(str(error)) from error
    return given


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


@contextlib.asynccontextmanager
async def running_ocelli(settings: RunSettings, say: Say) -> AsyncIterator[tuple[LocalCluster, Service, StateFolder]]:
    """Cluster, operator and gateway; a create would succeed when the block is entered.

    Raises:
        RunError, StateError, and the errors of the cluster: see there.
    """
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
        save_private(state.kubeconfig, cluster.kubeconfig.read_text())
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
        instance = RunningInstance(process_id=os.getpid(), address=service.address, user=service.user)
        state.say_running(instance, password)
        try:
            yield cluster, service, state
        finally:
            state.say_stopped()


def count_gpus(devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs the node may offer: none without PyTorch, which alone can use them."""
    if importlib.util.find_spec("torch") is None:
        return 0
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia*"))


def _cluster_options(state: StateFolder, gpus: int) -> ClusterOptions:
    return ClusterOptions(
        state_dir=state.cluster,
        extended_resources={"nvidia.com/gpu": str(gpus)} if gpus else {},
        # Containers have homes of their own, and this user's cache of published weights is what trainers shall look into.
        container_env={"TORCH_HOME": str(hub_folder().parents[1].absolute())},
    )


async def run(settings: RunSettings, say: Say) -> None:
    """Run until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(_run(settings, say, stop))

    def ask_to_stop() -> None:
        # A second request would cut the stopping short.
        if stop.is_set():
            return
        # While it starts there is nothing to wait for: the start is cancelled and takes everything down with it.
        stop.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask_to_stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    say("stopped; the state is kept, `make clean` forgets it")


async def _run(settings: RunSettings, say: Say, stop: asyncio.Event) -> None:
    async with running_ocelli(settings, say) as (cluster, service, state):
        own_kubectl = None if shutil.which("kubectl") else cluster.access.kubectl_path
        say(describe(service, state, own_kubectl))
        try:
            await _show_what_happens(cluster, say)
        finally:
            if stop.is_set():
                say("stopping")


def describe(service: Service, state: StateFolder, own_kubectl: Path | None) -> str:
    """Address, credentials and the tutorial's commands, ready to paste. `own_kubectl`: that of the cluster, if it is needed."""
    samples = _short(state.samples)
    identity = "$ID"
    create: Form = {
        "name": "digits",
        "zero_positive_examples": samples / "zero.zip",
        "one_positive_examples": samples / "one.zip",
        "negative_examples": samples / "other-digits.zip",
    }
    test: Form = {"images_file": samples / "test-one.png", "classifier_ids": identity}
    retrain: Form = {"two_positive_examples": samples / "two.zip", "one_positive_examples": samples / "more-ones.zip"}
    several: Form = {"images_file": samples / "tests.zip", "classifier_ids": f"{identity},default"}
    photograph: Form = {"images_file": samples / PHOTOGRAPHS[0], "classifier_ids": "default,food,explicit"}
    commands = [
        ("classify a photograph with what is built in", service.curl("POST", "/v3/classify", photograph)),
        ("create a classifier; the answer names its classifier_id", service.curl("POST", "/v3/classifiers", create)),
        ("paste that id here", "ID=digits_..."),
        ("poll until its status is ready", service.curl("GET", f"/v3/classifiers/{identity}")),
        ("classify", service.curl("POST", "/v3/classify", test)),
        ("classify, with every score", service.curl("POST", "/v3/classify", {**test, "threshold": "0.0"})),
        ("retrain: a third class, more ones", service.curl("POST", f"/v3/classifiers/{identity}", retrain)),
        ("a zip of images, several classifiers at once", service.curl("POST", "/v3/classify", several)),
        ("delete", service.curl("DELETE", f"/v3/classifiers/{identity}")),
    ]
    lines = [
        "",
        f"Ocelli answers at {service.address}",
        f"  user {service.user}, password {service.password} (or user apikey with the same password)",
        f"  export KUBECONFIG={shlex.quote(str(state.kubeconfig))}",
        *([] if own_kubectl is None else [f"  alias kubectl={shlex.quote(str(own_kubectl))}   # none is installed"]),
        "  kubectl get clf   # or: kubectl apply -f crds/examples/digits.yaml",
        f"  kubectl -n {SYSTEM_NAMESPACE} logs -f deployment/ocelli-operator   # or ocelli-gateway",
        "",
        "The tutorial, ready to paste (or, in another terminal: make demo)",
        "",
    ]
    for comment, command in commands:
        lines += [f"# {comment}", command, ""]
    lines.append("Ctrl-C stops everything. What happens from here on:")
    return "\n".join(lines)


def load_credentials(file: Path, user: str, password: str) -> CredentialSet:
    """Who may log in to this instance: the kept set where it is for this user and password, else a new one, which is kept.

    Each hashing draws a new salt, and another Secret would mean another gateway Pod at each start.

    Raises:
        RunError: nobody could log in so.
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
            raise RunError(f"OCELLI_PASSWORD is too long; a password has at most {PASSWORD_BYTES_LIMIT:,} bytes") from error
        raise RunError(
            f"OCELLI_USER is {user!r}; choose a name that is not 'apikey', has no colon and only characters that can be shown"
        ) from error
    save_private(file, json.dumps(built.to_json()))
    return built


@contextlib.contextmanager
def claim_port(wanted: int | None, *, first: int = DEFAULT_PORT) -> Iterator[int]:
    """The wanted port, else the first or the next free one, spoken for until the block ends.

    The gateway binds it seconds later: without the claim, two starts at the same time would choose the same.

    Raises:
        RunError: the wanted one is taken, or none is free.
    """
    for port in range(first, first + PORTS_TRIED) if wanted is None else (wanted,):
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                # A name in the kernel's abstract namespace: it ends with this process, however that ends.
                claim.bind(f"\0ocelli-gateway-port-{port}")
            except OSError:
                continue
            if _is_free(port):
                yield port
                return
    remedy = "set PORT" if first == DEFAULT_PORT else "free one of them"
    if wanted is not None:
        raise RunError(f"port {wanted} of 127.0.0.1 is taken; set PORT to another one, or leave it out")
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
    """The path as a user in this folder would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


async def _wait_until_healthy(cluster: LocalCluster, service: Service, internal_port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    said = "it does not listen"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(f"http://127.0.0.1:{internal_port}/healthz") as response:
                    healthy = response.status == 200
                    said = (await response.text()).strip()
                # A Pod of an earlier start may answer, with the settings and credentials of then.
                if healthy and await _lets_in(session, service):
                    deployment = await cluster.get("apps/v1", "Deployment", "ocelli-gateway", namespace=SYSTEM_NAMESPACE)
                    if deployment is not None and is_rolled_out(deployment):
                        return
                    said = "the Pod of these settings is not available yet"
            except (aiohttp.ClientError, TimeoutError, ApiError):
                pass
            await asyncio.sleep(0.05)
    logs = await cluster.access.kubectl("-n", SYSTEM_NAMESPACE, "logs", "deployment/ocelli-gateway", "--tail=5", check=False)
    raise RunError(f"the gateway is not healthy after {START_TIMEOUT_SECONDS:.0f} s: {said}\n{logs.stdout}{logs.stderr}")


def is_rolled_out(deployment: Mapping[str, Any]) -> bool:
    """Whether every Pod of a Deployment is available and of its template as it is now."""
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return False
    return all(status.get(count, 0) == wanted for count in ("replicas", "updatedReplicas", "availableReplicas"))


async def _lets_in(session: aiohttp.ClientSession, service: Service) -> bool:
    headers = {"Authorization": aiohttp.encode_basic_auth(service.user, service.password)}
    query = {"version": TUTORIAL_VERSION}
    async with session.get(f"{service.address}/v3/classifiers/none_1", params=query, headers=headers) as response:
        return response.status == 404


async def _show_what_happens(cluster: LocalCluster, say: Say) -> None:
    """A line for each change of any Classifier, until cancelled."""
    path = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
    shown: dict[str, str] = {}
    while True:
        try:
            listing: dict[str, Any] = await cluster.access.client.get(path)
        except (ApiError, aiohttp.ClientError, TimeoutError):
            # A control plane component that ended is started again: nothing to take the others down for.
            await asyncio.sleep(0.5)
            continue
        alive = summarise([parse_classifier(item) for item in listing["items"]])
        for key, text in alive.items():
            if text and shown.get(key) != text:
                say(f"{time.strftime('%H:%M:%S')}  {key}: {text}")
        for key in shown.keys() - alive.keys():
            say(f"{time.strftime('%H:%M:%S')}  {key}: deleted")
        shown = alive
        await asyncio.sleep(0.5)


def summarise(classifiers: Sequence[Classifier]) -> dict[str, str]:
    """What is said of each Classifier, by its name. Built-in ones that wait for weights of another place, as those of earlier
    releases do, are told of in one line, once all of them were tried.
    """
    summaries = {f"{item.namespace}/{item.name}": _summary(item) for item in classifiers}
    built_ins = [item for item in classifiers if item.namespace == SYSTEM_NAMESPACE and item.name in known_built_ins()]
    waiting = [item for item in built_ins if _waits_for_weights(item)]
    under_way = any(
        not item.status.is_true(ConditionType.STALLED) and item.status.served_revision is None for item in built_ins
    )
    for item in waiting:
        summaries[f"{item.namespace}/{item.name}"] = ""
    if waiting and not under_way:
        names = sorted(item.name for item in waiting)
        wait = "wait for their weights" if len(waiting) > 1 else "waits for its weights"
        summaries["built-in classifiers"] = (
            f"{', '.join(names)} {wait}, see docs/pretrained.md; to use the weights that come with Ocelli, "
            f"kubectl -n {SYSTEM_NAMESPACE} delete clf {' '.join(names)}, then start again"
        )
    return summaries


def _waits_for_weights(classifier: Classifier) -> bool:
    stalled = classifier.status.condition(ConditionType.STALLED)
    if stalled is None or stalled.status != "True" or classifier.status.served_revision is not None:
        return False
    pretrained = classifier.spec.pretrained
    if pretrained is None or pretrained.weights.packaged is not None:
        return False
    # PyTorch, which reads the weights, is missing, or the weights themselves.
    return stalled.reason in (StalledReason.TRAINING_FAILED, StalledReason.SOURCE_UNREADABLE)


def _summary(classifier: Classifier) -> str:
    ready = classifier.status.condition(ConditionType.READY)
    if ready is None:
        return "seen, not started yet"
    progress = classifier.status.progress
    text = str(ready.reason)
    if progress is not None:
        text += f", {progress.stage} {progress.percent} %"
    if classifier.status.is_true(ConditionType.STALLED):
        text += f": {ready.message}"
    elif ready.status == "True" and classifier.status.accuracy:
        text += f", revision {classifier.status.served_revision}, accuracy {_tell_accuracy(classifier.status)}"
    return text


def _tell_accuracy(status: ClassifierStatus) -> str:
    interval = status.accuracy_interval
    if interval is None:
        return f"{status.accuracy}"
    images = "" if status.judged_images is None else f", {status.judged_images} images"
    accuracy, lower, upper = (f"{float(share):.2f}" for share in (status.accuracy or "", interval.lower, interval.upper))
    return f"{accuracy} ({lower} to {upper}{images})"
