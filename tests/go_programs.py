"""Go programs that tests use, each built once into the cache folder from a module that pins its sources; and Go modules from
which tests only read files.

The modules pin the Kubernetes libraries at the control plane's release, and are built with its flags, so that little is left to
compile after a build of the control plane.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocelli_local.binaries import cache_folder
from ocelli_local.source_build import BUILD_ENVIRONMENT, BUILD_FLAGS, find_installed_go
from tests.environment import restore_proxies


class GoMissingError(Exception):
    """A program is not built yet, and no Go that is new enough is installed."""


@dataclass(frozen=True, kw_only=True)
class GoProgram:
    """A program and its sources."""

    name: str
    module_folder: Path
    package: str = "."
    link_flags: str = "-s -w"

    def path(self, environ: Mapping[str, str]) -> Path:
        """The program's path, built or not."""
        digest = hashlib.sha256(f"{platform.machine()} {self.package} {self.link_flags}".encode())
        for source in sorted(path for path in self.module_folder.iterdir() if path.suffix in (".go", ".mod", ".sum")):
            digest.update(source.read_bytes())
        return cache_folder(environ) / f"{self.name}-{digest.hexdigest()[:12]}"

    def find_or_build(self, environ: Mapping[str, str]) -> Path:
        """The program. Concurrent callers build it once.

        Raises:
            GoMissingError: it is not built yet, and can't be built.
            subprocess.CalledProcessError: the build failed; its notes say why.
        """
        program = self.path(environ)
        if program.exists():
            return program
        program.parent.mkdir(parents=True, exist_ok=True)
        with open(program.with_name(f"{program.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                self._build(environ, program)
        return program

    def _build(self, environ: Mapping[str, str], program: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=program.parent) as folder:
            built = Path(folder) / program.name
            flags = [*BUILD_FLAGS, "-ldflags", self.link_flags, "-o", str(built)]
            call_go(environ, self.module_folder, "build", *flags, self.package)
            built.rename(program)


def find_or_download(environ: Mapping[str, str], module_folder: Path) -> dict[str, Path]:
    """The folders of the modules that a `go.mod` requires, by their paths; Go keeps them, and `go.sum` says what is in them.

    Raises:
        GoMissingError: Go is not installed.
        subprocess.CalledProcessError: a module is not available or differs from `go.sum`; its notes say which.
    """
    answer, decoder, folders = call_go(environ, module_folder, "mod", "download", "-json"), json.JSONDecoder(), {}
    # One object after the other.
    while answer:
        module, end = decoder.raw_decode(answer)
        folders[module["Path"]] = Path(module["Dir"])
        answer = answer[end:].lstrip()
    return folders


def call_go(environ: Mapping[str, str], module_folder: Path, *arguments: str) -> str:
    """Go's output. Raises GoMissingError, and CalledProcessError with Go's messages as notes."""
    minimum = re.search(r"^go (\S+)", (module_folder / "go.mod").read_text(), re.MULTILINE)
    assert minimum is not None
    go, _older = find_installed_go(environ, minimum.group(1))
    if go is None:
        raise GoMissingError(f"no Go {minimum.group(1)} or newer on PATH or in .venv")
    try:
        return subprocess.run(
            [go, *arguments],
            cwd=module_folder,
            env={**restore_proxies(environ), **BUILD_ENVIRONMENT},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise


def build_before_tests(session: pytest.Session, programs: Mapping[str, GoProgram]) -> None:
    """Build the programs of the collected tests' fixtures: a first build can take longer than the timeout of a test."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for fixture in wanted & programs.keys():
        # Without Go, the tests are skipped with a message.
        with contextlib.suppress(GoMissingError):
            programs[fixture].find_or_build(os.environ)


def find_or_skip(program: GoProgram) -> Path:
    """The program; the test is skipped if it can't be built."""
    try:
        return program.find_or_build(os.environ)
    except GoMissingError as error:
        pytest.skip(str(error))
