"""etcd, API server, controller-manager and scheduler of one cluster, as child processes.

Owns their flags, start order and log files, and restarts one that exits by itself. It must not know of nodes and Pods.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from ocelli_local.addresses import LoopbackRange, find_free_port
from ocelli_local.binaries import Programs
from ocelli_local.certificates import Authority, KeyPair, Subject, ensure_token_key
from ocelli_local.child_process import ChildProcess
from ocelli_local.kubeconfig import ApiAddress, build_certificate_user, build_kubeconfig, save_kubeconfig

logger = logging.getLogger(__name__)

SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE_ADDRESS = "10.96.0.1"
ETCD_PORT = 23790
ETCD_PEER_PORT = 23800
READY_TIMEOUT_SECONDS = 5.0
STOP_GRACE_SECONDS = 5.0
RESTART_DELAY_SECONDS = 1.0
# The endpoint controllers are left out because EndpointSlices refuse loopback addresses, and every Pod here has one. The
# others watch for what a process node does not have: claims, certificates to sign, Pod address ranges.
LEFT_OUT_CONTROLLERS = (
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "certificatesigningrequest-signing-controller",
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "node-ipam-controller",
    "service-cidr-controller",
)
# The node refuses Pods with claims and reports the reason; these plugins would leave them pending without one.
LEFT_OUT_SCHEDULER_PLUGINS = ("VolumeBinding", "VolumeZone", "VolumeRestrictions", "NodeVolumeLimits")


class ControlPlaneError(Exception):
    """A component of the control plane did not start; the message contains the end of its log."""


@dataclass(frozen=True, kw_only=True)
class ControlPlaneOptions:
    state_dir: Path
    programs: Programs
    loopback: LoopbackRange
    durable: bool
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ClusterCertificates:
    """All key pairs of a cluster."""

    api_authority: Authority
    etcd_authority: Authority
    etcd_server: KeyPair
    etcd_client: KeyPair
    api_server: KeyPair
    kubelet_client: KeyPair
    controller_manager: KeyPair
    scheduler: KeyPair
    admin: KeyPair
    service_account_key: KeyPair

    @classmethod
    def ensure(cls, folder: Path, infrastructure_address: str) -> ClusterCertificates:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        api = Authority(folder, "ca")
        etcd = Authority(folder, "etcd-ca")
        serves = ["localhost", "127.0.0.1", infrastructure_address, FIRST_SERVICE_ADDRESS]
        serves += ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        return cls(
            api_authority=api,
            etcd_authority=etcd,
            etcd_server=etcd.issue("etcd-server", Subject(name="etcd", serves=["127.0.0.1", infrastructure_address])),
            etcd_client=etcd.issue("etcd-client", Subject(name="kube-apiserver")),
            api_server=api.issue("kube-apiserver", Subject(name="kube-apiserver", serves=serves)),
            kubelet_client=api.issue("kubelet-client", Subject(name=KUBELET_CLIENT_NAME)),
            controller_manager=api.issue("kube-controller-manager", Subject(name="system:kube-controller-manager")),
            scheduler=api.issue("kube-scheduler", Subject(name="system:kube-scheduler")),
            admin=api.issue("admin", Subject(name="ocelli-local-admin", groups=["system:masters"])),
            service_account_key=ensure_token_key(folder),
        )


KUBELET_CLIENT_NAME = "kube-apiserver-kubelet-client"


class Component:
    """One program that is kept running: it is restarted a second after it exits by itself."""

    def __init__(self, name: str, command: Sequence[str], *, options: ControlPlaneOptions) -> None:
        self.name = name
        self.log = options.state_dir / "logs" / f"{name}.log"
        self._argv = list(command)
        self._options = options
        self._process: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.running else None

    def start(self) -> None:
        self._start_process()
        self._keeper = asyncio.create_task(self._keep_running(), name=f"keep {self.name} running")

    async def stop(self, *, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        if self._process is not None:
            await self._process.stop(grace_seconds=grace_seconds)

    def _start_process(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self._process = ChildProcess.start(
                self._argv, env=self._options.env, folder=self._options.state_dir, output=log.fileno()
            )

    async def _keep_running(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            logger.warning("component exited, restarting it: name=%s exit_code=%s log=%s", self.name, code, self.log)
            await asyncio.sleep(RESTART_DELAY_SECONDS)
            self._start_process()

    def last_log_lines(self, count: int = 15) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        except FileNotFoundError:
            return ""


class ControlPlane:
    """The four components of one cluster. `start` returns when the API server is ready."""

    def __init__(self, options: ControlPlaneOptions) -> None:
        self._options = options
        self._folder = options.state_dir / "control-plane"
        self.certificates = ClusterCertificates.ensure(self._folder / "certificates", options.loopback.infrastructure_address)
        port = find_free_port("127.0.0.1", options.loopback.preferred_api_port)
        self.api_address = ApiAddress(
            url=f"https://127.0.0.1:{port}", authority=self.certificates.api_authority.pair.certificate
        )
        self._api_port = port
        self.admin_kubeconfig = self._save_kubeconfig(options.state_dir / "kubeconfig", self.certificates.admin)
        etcd_port = find_free_port(options.loopback.infrastructure_address, ETCD_PORT)
        peer_port = find_free_port(options.loopback.infrastructure_address, ETCD_PEER_PORT)
        self.components = {
            component.name: component
            for component in (
                Component("etcd", self._etcd_command(etcd_port, peer_port), options=options),
                Component("kube-apiserver", self._api_server_command(etcd_port), options=options),
                Component("kube-controller-manager", self._controller_manager_command(), options=options),
                Component("kube-scheduler", self._scheduler_command(), options=options),
            )
        }

    async def start(self, *, deadline_seconds: float) -> None:
        """Start all components; raises ControlPlaneError if the API server is not ready in time."""
        # The API server waits for etcd by itself, and takes longest to start.
        self.components["etcd"].start()
        self.components["kube-apiserver"].start()
        await self._wait_until_ready(time.monotonic() + deadline_seconds)
        self.components["kube-controller-manager"].start()
        self.components["kube-scheduler"].start()

    async def stop(self) -> None:
        """Stop in the reverse order, so that no component logs that its server is gone."""
        await asyncio.gather(self.components["kube-controller-manager"].stop(), self.components["kube-scheduler"].stop())
        await self.components["kube-apiserver"].stop()
        await self.components["etcd"].stop()

    async def restart_component(self, name: str) -> None:
        """Stop and start one component, for tests of outages; returns when the API server is ready."""
        component = self.components[name]
        await component.stop()
        component.start()
        await self._wait_until_ready(time.monotonic() + 60)

    async def _wait_until_ready(self, deadline: float) -> None:
        context = ssl.create_default_context(cafile=str(self.api_address.authority))
        admin = self.certificates.admin
        context.load_cert_chain(admin.certificate, admin.key)
        # A request without an answer must not outlast the deadline.
        timeout = aiohttp.ClientTimeout(total=READY_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout) as session:
            while True:
                try:
                    async with session.get(f"{self.api_address.url}/readyz") as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                if time.monotonic() > deadline:
                    raise ControlPlaneError(self._explain_not_ready())
                await asyncio.sleep(0.05)

    def _explain_not_ready(self) -> str:
        parts = ["the API server did not become ready in time; the last lines of the logs:"]
        for name in ("etcd", "kube-apiserver"):
            component = self.components[name]
            parts.append(f"--- {component.log}\n{component.last_log_lines()}")
        return "\n".join(parts)

    def _etcd_command(self, port: int, peer_port: int) -> list[str]:
        address = self._options.loopback.infrastructure_address
        certificates = self.certificates
        authority = certificates.etcd_authority.pair.certificate
        client_url, peer_url = f"https://{address}:{port}", f"https://{address}:{peer_port}"
        data = self._options.state_dir / "etcd"
        command = [
            str(self._options.programs["etcd"]),
            "--name=local",
            f"--data-dir={data}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=local={peer_url}",
            f"--cert-file={certificates.etcd_server.certificate}",
            f"--key-file={certificates.etcd_server.key}",
            "--client-cert-auth",
            f"--trusted-ca-file={authority}",
            f"--peer-cert-file={certificates.etcd_server.certificate}",
            f"--peer-key-file={certificates.etcd_server.key}",
            "--peer-client-cert-auth",
            f"--peer-trusted-ca-file={authority}",
            "--log-level=warn",
        ]
        return command if self._options.durable else [*command, "--unsafe-no-fsync"]

    def _api_server_command(self, etcd_port: int) -> list[str]:
        certificates = self.certificates
        address = self._options.loopback.infrastructure_address
        authority = certificates.api_authority.pair.certificate
        return [
            str(self._options.programs["kube-apiserver"]),
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._api_port}",
            "--endpoint-reconciler-type=none",
            f"--etcd-servers=https://{address}:{etcd_port}",
            f"--etcd-cafile={certificates.etcd_authority.pair.certificate}",
            f"--etcd-certfile={certificates.etcd_client.certificate}",
            f"--etcd-keyfile={certificates.etcd_client.key}",
            f"--tls-cert-file={certificates.api_server.certificate}",
            f"--tls-private-key-file={certificates.api_server.key}",
            f"--client-ca-file={authority}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={certificates.service_account_key.certificate}",
            f"--service-account-signing-key-file={certificates.service_account_key.key}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            # The node refuses privileged Pods, with a reason.
            "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={certificates.kubelet_client.certificate}",
            f"--kubelet-client-key={certificates.kubelet_client.key}",
            f"--kubelet-certificate-authority={authority}",
            # By default the server takes a minute to stop while watches are open.
            "--shutdown-watch-termination-grace-period=1s",
            "--profiling=false",
        ]

    def _controller_manager_command(self) -> list[str]:
        kubeconfig = self._save_kubeconfig(
            self._folder / "kube-controller-manager.kubeconfig", self.certificates.controller_manager
        )
        controllers = ",".join(["*", *(f"-{name}" for name in LEFT_OUT_CONTROLLERS)])
        return [
            str(self._options.programs["kube-controller-manager"]),
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={self.certificates.service_account_key.key}",
            f"--root-ca-file={self.certificates.api_authority.pair.certificate}",
            # With the default limits the first ServiceAccount takes seconds longer.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--terminated-pod-gc-threshold=0",
            f"--controllers={controllers}",
            "--secure-port=0",
            "--profiling=false",
        ]

    def _scheduler_command(self) -> list[str]:
        kubeconfig = self._save_kubeconfig(self._folder / "kube-scheduler.kubeconfig", self.certificates.scheduler)
        configuration = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 500, "burst": 1000},
            "leaderElection": {"leaderElect": False},
            "profiles": [
                {
                    "schedulerName": "default-scheduler",
                    "plugins": {"multiPoint": {"disabled": [{"name": name} for name in LEFT_OUT_SCHEDULER_PLUGINS]}},
                }
            ],
        }
        path = self._folder / "kube-scheduler.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return [str(self._options.programs["kube-scheduler"]), f"--config={path}", "--secure-port=0"]

    def _save_kubeconfig(self, path: Path, certificate: KeyPair) -> Path:
        return save_kubeconfig(path, build_kubeconfig(self.api_address, build_certificate_user(certificate)))


def component_environment(environ: Mapping[str, str], marker: tuple[str, str]) -> dict[str, str]:
    """The part of the runner's environment that the components get: no proxies, no credentials."""
    kept = {name: environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "GOGC") if name in environ}
    return {**kept, marker[0]: marker[1]}


def process_resident_bytes(pid: int) -> int:
    """Resident size of one process; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
