"""The control plane's programs: finding them, or installing them once.

Owns the search order (cache folder, KUBEBUILDER_ASSETS, PATH where the version fits; else the release binaries are
downloaded, or else the programs are built), the cache folder and its lock. It must not know how the programs are run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from ocelli_local.progress import Report
from ocelli_local.release import Release, ReleaseError, ReleaseLimits
from ocelli_local.source_build import SourceBuild
from ocelli_local.versions import (
    MODULE_FOLDER,
    PROGRAMS,
    BinariesError,
    PinnedVersions,
    read_program_version,
    version_fits,
)

LOCK_POLL_SECONDS = 0.2
Programs = Mapping[str, Path]
"""The path of each of PROGRAMS."""


class BinaryStore:
    """Finds the programs that this environment offers, and installs them into the cache folder if one is missing."""

    def __init__(
        self, environ: Mapping[str, str], *, module_folder: Path = MODULE_FOLDER, limits: ReleaseLimits | None = None
    ) -> None:
        self._environ = environ
        try:
            go_mod, go_sum = ((module_folder / name).read_bytes() for name in ("go.mod", "go.sum"))
        except FileNotFoundError as error:
            raise BinariesError(
                f"{error.filename} is missing: the local cluster runs from a checkout of the repository; "
                "install with `pip install -e .`"
            ) from error
        self.pinned = PinnedVersions.from_go_mod(go_mod.decode())
        self._release = Release(self.pinned, environ, limits or ReleaseLimits())
        self._build = SourceBuild(self.pinned, environ, module_folder)
        digest = hashlib.sha256(go_mod + go_sum + platform.machine().encode()).hexdigest()[:12]
        self.folder = cache_folder(environ) / f"control-plane-{self.pinned.kubernetes}-{digest}"

    def find(self) -> Programs | None:
        """The programs, if none of them has to be installed."""
        found = {program: self._find_program(program) for program in PROGRAMS}
        programs = {program: path for program, path in found.items() if path is not None}
        return programs if len(programs) == len(PROGRAMS) else None

    async def find_or_install(self, report: Report) -> Programs:
        """Like `find`, but installs them first if need be: seconds for a download, minutes for a build. Concurrent callers
        install them once. Raises BinariesError.
        """
        found = await asyncio.to_thread(self.find)
        if found is not None:
            return found
        with open_lock(self.folder) as lock:
            await wait_for_lock(lock, report)
            if not self.folder.exists():
                await self._install(report)
                report(f"the control plane's programs are in {self.folder}")
        return {program: self.folder / program for program in PROGRAMS}

    async def _install(self, report: Report) -> None:
        try:
            with new_folder(self.folder) as folder:
                await self._release.download(folder, report)
        except ReleaseError as error:
            report(f"the release binaries are not used: {error}; building the control plane instead")
            with new_folder(self.folder) as folder:
                await self._build.run(folder, report)

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
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` if the block ends without an error, and is removed if not."""
    prefix = f".{target.name}-"
    # A killed start leaves its folder.
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_lock(target: Path) -> TextIO:
    target.parent.mkdir(parents=True, exist_ok=True)
    return open(target.with_name(f"{target.name}.lock"), "w")


async def wait_for_lock(lock: TextIO, report: Report) -> None:
    """Take the lock; it is free again when the file is closed."""
    reported = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not reported:
                report("another process is installing the control plane; waiting for it")
                reported = True
            await asyncio.sleep(LOCK_POLL_SECONDS)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """$OCELLI_CACHE_DIR, else `ocelli` in the user's cache folder."""
    if environ.get("OCELLI_CACHE_DIR"):
        return Path(environ["OCELLI_CACHE_DIR"]).expanduser().absolute()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ocelli"
