"""The official release binaries of Kubernetes and etcd: where they are published, downloading and verifying them.

Owns URLs, digests, limits of time and size, and the progress line. No program is run or kept before its SHA-256 digest is
the published one. It must not know what follows from a failure: the caller builds the programs instead.

The digests come from the checksum files that are published next to the binaries. They reveal a damaged download, but
cannot reveal a release server that was tampered with; HTTPS authenticates the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import re
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from ocelli_local.progress import ProgressLine, Report, format_bar
from ocelli_local.versions import KUBERNETES_PROGRAMS, PROGRAMS, PinnedVersions, read_program_version

SWITCH_VARIABLE = "OCELLI_RELEASE_BINARIES"
KUBERNETES_URL_VARIABLE = "OCELLI_KUBERNETES_RELEASE_URL"
ETCD_URL_VARIABLE = "OCELLI_ETCD_RELEASE_URL"
KUBERNETES_URL = "https://dl.k8s.io/release"
ETCD_URL = "https://github.com/etcd-io/etcd/releases/download"

# Kubernetes publishes its servers for Linux only.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
FILE_LIMIT_BYTES = 1 << 30
CHECKSUMS_LIMIT_BYTES = 64 << 10
CHUNK_BYTES = 1 << 20
POLL_SECONDS = 0.5


class ReleaseError(Exception):
    """The release binaries can't be used; the message gives the reason in one line."""


@dataclass(frozen=True, kw_only=True)
class ReleaseLimits:
    """When a download takes too long: a build takes 7 minutes on two idle cores."""

    total_seconds: float = 300.0
    connect_seconds: float = 10.0
    slow_seconds: float = 15.0
    """A download is slow if it stays under `slowest_bytes_per_second` for this long."""
    slowest_bytes_per_second: float = 1 << 20


class Transfer:
    """One published file on its way to `path`."""

    def __init__(self, url: str, checksums_url: str, path: Path) -> None:
        self.path = path
        self.received_bytes = 0
        self.size_bytes = 0
        self._url = url
        self._checksums_url = checksums_url

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Download and verify; raises ReleaseError."""
        try:
            published = find_digest(await self._read_checksums(session), self._url.rpartition("/")[2])
            if published is None:
                raise ReleaseError(f"{self._checksums_url} does not contain a SHA-256 digest of {self.path.name}")
            digest = await self._save(session)
        except aiohttp.ClientPayloadError as error:
            raise ReleaseError(f"{self._url} was cut off after {self.received_bytes:,} bytes") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ReleaseError(f"{self._url}: {error or 'timed out'}") from error
        if digest != published:
            raise ReleaseError(f"{self._url} has the SHA-256 digest {digest}, but {published} is published")

    async def _read_checksums(self, session: aiohttp.ClientSession) -> str:
        async with session.get(self._checksums_url) as response:
            check_response(self._checksums_url, response)
            return (await response.content.read(CHECKSUMS_LIMIT_BYTES)).decode(errors="replace")

    async def _save(self, session: aiohttp.ClientSession) -> str:
        digest = hashlib.sha256()
        async with session.get(self._url) as response:
            check_response(self._url, response)
            self.size_bytes = response.content_length or 0
            with open(self.path, "wb") as file:  # noqa: ASYNC230 (writes go to the page cache)
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    self.received_bytes += len(chunk)
                    if self.received_bytes > FILE_LIMIT_BYTES:
                        raise ReleaseError(f"{self._url} is larger than {FILE_LIMIT_BYTES >> 20} MiB")
                    digest.update(chunk)
                    file.write(chunk)
        return digest.hexdigest()


class Release:
    """The release that `go.mod` pins, where the environment's settings say it is published."""

    def __init__(self, pinned: PinnedVersions, environ: Mapping[str, str], limits: ReleaseLimits) -> None:
        self._pinned = pinned
        self._switch = environ.get(SWITCH_VARIABLE, "")
        self._kubernetes_url = (environ.get(KUBERNETES_URL_VARIABLE) or KUBERNETES_URL).rstrip("/")
        self._etcd_url = (environ.get(ETCD_URL_VARIABLE) or ETCD_URL).rstrip("/")
        self._limits = limits

    async def download(self, folder: Path, report: Report) -> None:
        """Fill `folder` with the five programs, verified and executable; raises ReleaseError."""
        if self._switch.lower() in ("0", "false", "no", "off"):
            raise ReleaseError(f"{SWITCH_VARIABLE} is {self._switch}")
        architecture = ARCHITECTURES.get(platform.machine())
        if architecture is None:
            raise ReleaseError(f"there are none for {platform.machine()}")
        started = time.monotonic()
        report(
            f"downloading Kubernetes {self._pinned.kubernetes} from {self._kubernetes_url} "
            f"and etcd {self._pinned.etcd} from {self._etcd_url} (once)"
        )
        transfers = self._transfers(architecture, folder)
        await self._run(transfers, ProgressLine(report))
        archive = transfers[-1].path
        unpack_etcd(archive, folder / "etcd")
        archive.unlink()
        for program in PROGRAMS:
            (folder / program).chmod(0o755)
            # A file of another platform, or a cache folder that is mounted without the right to execute.
            found = await asyncio.to_thread(read_program_version, folder / program)
            if found != self._pinned.of(program):
                raise ReleaseError(f"{program} does not run here, or is of another version ({found})")
        size = sum(transfer.received_bytes for transfer in transfers) >> 20
        report(f"downloaded and verified {size} MiB in {time.monotonic() - started:.0f} s")

    def _transfers(self, architecture: str, folder: Path) -> list[Transfer]:
        """One for each Kubernetes program, and the last for etcd's archive."""
        programs = f"{self._kubernetes_url}/v{self._pinned.kubernetes}/bin/linux/{architecture}"
        etcd, archive = f"{self._etcd_url}/v{self._pinned.etcd}", f"etcd-v{self._pinned.etcd}-linux-{architecture}.tar.gz"
        return [
            *(Transfer(f"{programs}/{name}", f"{programs}/{name}.sha256", folder / name) for name in KUBERNETES_PROGRAMS),
            Transfer(f"{etcd}/{archive}", f"{etcd}/SHA256SUMS", folder / archive),
        ]

    async def _run(self, transfers: Sequence[Transfer], progress: ProgressLine) -> None:
        async with aiohttp.ClientSession(
            trust_env=True,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_seconds),
            # The digest is that of the bytes as they are published.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        ) as session:
            tasks = [asyncio.create_task(transfer.run(session)) for transfer in transfers]
            try:
                await self._follow(set(tasks), transfers, progress)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                progress.finish()

    async def _follow(self, pending: set[asyncio.Task[None]], transfers: Sequence[Transfer], progress: ProgressLine) -> None:
        limits = self._limits
        started = checked = time.monotonic()
        received_then = 0
        poll_seconds = min(POLL_SECONDS, limits.slow_seconds, limits.total_seconds)
        while True:
            done, pending = await asyncio.wait(pending, timeout=poll_seconds, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if not pending:
                return
            now, received = time.monotonic(), sum(transfer.received_bytes for transfer in transfers)
            total = sum(transfer.size_bytes for transfer in transfers)
            # Before the last file has begun, the total is not known.
            bar = f"{format_bar(received, total)} of {total >> 20} MiB" if all(t.size_bytes for t in transfers) else ""
            progress.show(f"downloading: {bar or f'{received >> 20} MiB'}")
            if now - started > limits.total_seconds:
                raise ReleaseError(f"the download is not complete after {limits.total_seconds:g} s")
            if now - checked >= limits.slow_seconds:
                rate = (received - received_then) / (now - checked)
                if rate < limits.slowest_bytes_per_second:
                    raise ReleaseError(f"the download is slow: {rate / 1024:.0f} KiB/s for {now - checked:.0f} s")
                checked, received_then = now, received


def check_response(url: str, response: aiohttp.ClientResponse) -> None:
    """Raises ReleaseError for a status other than 200, and where a redirection gives up HTTPS."""
    if response.status != 200:
        raise ReleaseError(f"{url} answered {response.status}")
    if url.startswith("https:") and any(step.url.scheme != "https" for step in (*response.history, response)):
        raise ReleaseError(f"{url} redirects to {response.url}, which is not HTTPS")


def find_digest(checksums: str, file_name: str) -> str | None:
    """The SHA-256 digest in a checksum file: the one of `file_name`, or a bare digest."""
    for line in checksums.splitlines():
        match = re.fullmatch(r"([0-9a-fA-F]{64})(?:\s+\*?(\S+))?\s*", line)
        if match is not None and match[2] in (None, file_name):
            return match[1].lower()
    return None


def unpack_etcd(archive: Path, target: Path) -> None:
    """Write the program `etcd` of the release archive to `target`; raises ReleaseError."""
    member = f"{archive.name.removesuffix('.tar.gz')}/etcd"
    try:
        with tarfile.open(archive) as files:
            source = files.extractfile(member)
            if source is None:
                raise KeyError(member)
            with open(target, "wb") as file:
                shutil.copyfileobj(source, file)
    except (KeyError, tarfile.TarError, EOFError) as error:
        raise ReleaseError(f"{archive.name} does not contain {member}") from error
