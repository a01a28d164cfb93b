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
from ocelli_local.binaries import BinariesError, BinaryStore
from ocelli_local.cluster import ClusterError, ClusterOptions, LocalCluster, require_linux
from ocelli_local.cluster_process import ClusterDescription, ClusterProcess, is_locked, stop_running_cluster
from ocelli_local.control_plane import ControlPlaneError, process_resident_bytes
from ocelli_local.process_node.backoff import RestartBackoff

NOT_RUNNING = 3


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
        help="where objects, keys and logs are kept (default: $OCELLI_LOCAL_STATE_DIR, else .state/local)",
    )

    up = commands.add_parser("up", parents=[state], help="start a cluster and run it until Ctrl-C")
    up.add_argument("--detach", action="store_true", help="leave it running in the background")
    up.add_argument("--not-durable", action="store_true", help="don't flush writes to disk: faster, for tests")
    up.add_argument("--until-stdin-closes", action="store_true", help="also stop when standard input ends")
    up.add_argument(
        "--resource", action="append", default=[], metavar="NAME=QUANTITY", help="offer a resource, as nvidia.com/gpu=1"
    )
    up.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="label the node")
    up.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="give every container a variable")
    up.add_argument(
        "--pass-env", action="append", default=[], metavar="NAME", help="give every container this variable of ours"
    )
    up.add_argument(
        "--restart-backoff-limit", type=float, default=300.0, metavar="SECONDS", help="longest wait before a restart"
    )
    up.set_defaults(run=run_up)

    for name, run, text in (
        ("down", run_down, "stop the cluster; its objects stay in the state folder"),
        ("status", run_status, "say what runs (exit code 3: nothing)"),
        ("kubeconfig", run_kubeconfig, "print the path of the administrator's kubeconfig"),
    ):
        commands.add_parser(name, parents=[state], help=text).set_defaults(run=run)

    logs = commands.add_parser("logs", parents=[state], help="print a log")
    logs.add_argument("name", nargs="?", help="a component, `runner`, or NAMESPACE/POD; without it: list what there is")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.set_defaults(run=run_logs)

    build = commands.add_parser("build", help="find or build the control plane's programs, and print where they are")
    build.set_defaults(run=run_build)
    return parser


def run_up(options: argparse.Namespace) -> int:
    # Here and not in the event loop: Ctrl-C then ends a build at once.
    BinaryStore(os.environ).find_or_build(report)
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
    for flag, values in (("--resource", options.resource), ("--label", options.label), ("--env", options.env)):
        arguments += [word for value in values for word in (flag, value)]
    arguments += [word for name in options.pass_env for word in ("--pass-env", name)]
    arguments += ["--restart-backoff-limit", str(options.restart_backoff_limit)]
    print_usable(ClusterProcess(options.state_dir, arguments, follow_parent=False).start())
    return 0


async def run_until_stopped(cluster: LocalCluster, *, until_stdin_closes: bool) -> None:
    """Run the cluster until a signal, or the end of standard input; also while it is still starting."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def request_stop() -> None:
        # Only the first request counts: a second one would cut the stopping short, which has deadlines of its own.
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
    if stop_running_cluster(options.state_dir):
        report("stopped")
        return 0
    report(f"no cluster runs on {options.state_dir}")
    return 0


def run_status(options: argparse.Namespace) -> int:
    description = ClusterDescription.load(options.state_dir.absolute())
    if description is None:
        starting = is_locked(options.state_dir.absolute())
        report("starting" if starting else f"no cluster runs on {options.state_dir}; start one with `ocelli-local up`")
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
        raise ClusterError(f"there is no log {options.name}; `ocelli-local logs` lists what there is")
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
        raise ClusterError(f"no cluster runs on {options.state_dir}; start one with `ocelli-local up`")
    namespace, pod = options.name.split("/", 1)
    argv = [str(description.kubectl), f"--kubeconfig={description.kubeconfig}", "logs", "-n", namespace, pod]
    argv += ["--all-containers", *(["-f"] if options.follow else [])]
    return subprocess.run(argv, check=False).returncode


def run_build(options: argparse.Namespace) -> int:
    binaries = BinaryStore(os.environ).find_or_build(report)
    for name in ("etcd", "kube_apiserver", "kube_controller_manager", "kube_scheduler", "kubectl"):
        report(str(getattr(binaries, name)))
    return 0


def parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ClusterError(f"{pair!r} is not NAME=VALUE")
        parsed[name] = value
    return parsed


def print_usable(description: ClusterDescription) -> None:
    report(f"cluster is up: {description.server}")
    report(f"export KUBECONFIG={description.kubeconfig}")


def report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
