"""`ocelli-local`: the local cluster from the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ocelli_local.addresses import AddressesError
from ocelli_local.binaries import BinaryStore
from ocelli_local.cluster import ClusterError, ClusterOptions, LocalCluster, require_linux
from ocelli_local.cluster_process import ClusterDescription, ClusterProcess, is_locked, stop_running_cluster
from ocelli_local.control_plane import ControlPlaneError, process_resident_bytes
from ocelli_local.process_node.backoff import RestartBackoff
from ocelli_local.versions import BinariesError

NOT_RUNNING = 3
NO_CLUSTER = "no cluster runs on {}; start one with `ocelli-local up`"


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        require_linux()
        code: int = options.run(options)
        return code
    except (AddressesError, BinariesError, ClusterError, ControlPlaneError) as error:
        print(f"ocelli-local: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ocelli-local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("OCELLI_LOCAL_STATE_DIR", ".state/local")),
        help="folder of objects, keys and logs (default: $OCELLI_LOCAL_STATE_DIR, else .state/local)",
    )

    up = commands.add_parser("up", parents=[state], help="start a cluster and run it until Ctrl-C")
    up.add_argument("--detach", action="store_true", help="run it in the background")
    up.add_argument("--not-durable", action="store_true", help="do not flush writes to disk: faster, for tests")
    up.add_argument("--until-stdin-closes", action="store_true", help="also stop when standard input ends")
    up.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="NAME=QUANTITY",
        help="a resource that the node offers, such as nvidia.com/gpu=1",
    )
    up.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="a label of the node")
    up.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable that every container gets")
    up.add_argument(
        "--pass-env",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable of this environment that every container gets",
    )
    up.add_argument(
        "--restart-backoff-limit", type=float, default=300.0, metavar="SECONDS", help="longest delay before a restart"
    )
    up.set_defaults(run=run_up)

    for name, run, text in (
        ("down", run_down, "stop the cluster; its objects are kept in the state folder"),
        ("status", run_status, "show the running cluster (exit code 3 if there is none)"),
        ("kubeconfig", run_kubeconfig, "print the path of the administrator's kubeconfig"),
    ):
        commands.add_parser(name, parents=[state], help=text).set_defaults(run=run)

    logs = commands.add_parser("logs", parents=[state], help="print a log")
    logs.add_argument("name", nargs="?", help="a component, `runner`, or NAMESPACE/POD; by default, the logs are listed")
    logs.add_argument("-f", "--follow", action="store_true", help="print new lines as they are written")
    logs.set_defaults(run=run_logs)

    install = commands.add_parser("install", help="download or build the control plane's programs, and print their paths")
    install.set_defaults(run=run_install)
    return parser


def run_up(options: argparse.Namespace) -> int:
    # Before the start of a detached cluster, which has a timeout.
    asyncio.run(BinaryStore(os.environ).find_or_install(report))
    if options.detach:
        return run_detached(options)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    backoff = RestartBackoff(
        initial_seconds=min(10.0, options.restart_backoff_limit), limit_seconds=options.restart_backoff_limit
    )
    cluster = LocalCluster(
        ClusterOptions(
            state_dir=options.state_dir,
            durable=not options.not_durable,
            node_labels=parse_pairs(options.label),
            extended_resources=parse_pairs(options.resource),
            container_env=parse_pairs(options.env),
            passthrough=tuple(options.pass_env),
            restart_backoff=backoff,
        ),
        report=report,
    )
    asyncio.run(run_until_stopped(cluster, until_stdin_closes=options.until_stdin_closes))
    return 0


def run_detached(options: argparse.Namespace) -> int:
    arguments = ["--not-durable"] if options.not_durable else []
    for name in ("resource", "label", "env", "pass_env"):
        arguments += [f"--{name.replace('_', '-')}={value}" for value in getattr(options, name)]
    arguments.append(f"--restart-backoff-limit={options.restart_backoff_limit}")
    print_usable(ClusterProcess(options.state_dir, arguments, follow_parent=False).start())
    return 0


async def run_until_stopped(cluster: LocalCluster, *, until_stdin_closes: bool) -> None:
    """Run the cluster until a signal or the end of standard input, which may also come while it starts."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def request_stop() -> None:
        # Later requests are ignored: they would interrupt the stop, which has timeouts of its own.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)
        if until_stdin_closes:
            loop.remove_reader(sys.stdin.fileno())
        report("stopping")
        task.cancel()

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            request_stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, request_stop)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), on_stdin)
    with contextlib.suppress(asyncio.CancelledError):
        async with cluster:
            description = ClusterDescription.load(cluster.state_dir)
            assert description is not None
            print_usable(description)
            await asyncio.Event().wait()
    report("stopped")


def run_down(options: argparse.Namespace) -> int:
    report("stopped" if stop_running_cluster(options.state_dir) else f"no cluster runs on {options.state_dir}")
    return 0


def run_status(options: argparse.Namespace) -> int:
    description = ClusterDescription.load(options.state_dir.absolute())
    if description is None:
        starting = is_locked(options.state_dir.absolute())
        report("the cluster is starting" if starting else NO_CLUSTER.format(options.state_dir))
        return NOT_RUNNING
    report(f"server      {description.server}")
    report(f"kubeconfig  {description.kubeconfig}")
    report(f"logs        {description.logs}")
    for name, pid in {"runner": description.runner, **description.components}.items():
        report(f"{name:<24} pid {pid:<8} {process_resident_bytes(pid) >> 20} MiB")
    access = description.open()
    pods = access.list_objects("/api/v1/pods")
    access.close()
    report(f"pods        {len(pods)}, running {sum(pod['status'].get('phase') == 'Running' for pod in pods)}")
    return 0


def run_kubeconfig(options: argparse.Namespace) -> int:
    path = options.state_dir.absolute() / "kubeconfig"
    if not path.exists():
        raise ClusterError(f"{options.state_dir} has no kubeconfig; start a cluster with `ocelli-local up`")
    report(str(path))
    return 0


def run_logs(options: argparse.Namespace) -> int:
    folder = options.state_dir.absolute() / "logs"
    if options.name is None:
        for path in sorted(folder.rglob("*.log")):
            report(str(path.relative_to(folder)).removesuffix(".log"))
        return 0
    if "/" in options.name and not (folder / f"{options.name}.log").exists():
        return run_pod_logs(options)
    path = folder / f"{options.name}.log"
    if not path.exists():
        raise ClusterError(f"log {options.name} does not exist; `ocelli-local logs` lists all logs")
    with open(path, errors="replace") as log:
        while True:
            text = log.read()
            sys.stdout.write(text)
            sys.stdout.flush()
            if not options.follow:
                return 0
            time.sleep(0.2 if not text else 0)


def run_pod_logs(options: argparse.Namespace) -> int:
    description = ClusterDescription.load(options.state_dir.absolute())
    if description is None:
        raise ClusterError(NO_CLUSTER.format(options.state_dir))
    namespace, pod = options.name.split("/", 1)
    argv = [str(description.kubectl), f"--kubeconfig={description.kubeconfig}", "logs", "-n", namespace, pod]
    argv += ["--all-containers", *(["-f"] if options.follow else [])]
    return subprocess.run(argv, check=False).returncode


def run_install(options: argparse.Namespace) -> int:
    for path in asyncio.run(BinaryStore(os.environ).find_or_install(report)).values():
        report(str(path))
    return 0


def parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ClusterError(f"{pair!r} is not of the form NAME=VALUE")
        parsed[name] = value
    return parsed


def print_usable(description: ClusterDescription) -> None:
    report(f"the cluster is ready: {description.server}")
    report(f"export KUBECONFIG={description.kubeconfig}")


def report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
