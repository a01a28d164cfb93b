"""Downloading the release binaries from a stand-in server; where that fails, a build, which is stubbed here."""

from __future__ import annotations

import asyncio
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from yarl import URL

from ocelli_local.binaries import BinaryStore
from ocelli_local.progress import Report
from ocelli_local.release import ReleaseError, ReleaseLimits, check_response, find_digest
from ocelli_local.source_build import SourceBuild
from ocelli_local.versions import MODULE_FOLDER, PROGRAMS, PinnedVersions
from tests.release_stand_in import ReleaseStandIn, hash_of, pack

PINNED = PinnedVersions.from_go_mod((MODULE_FOLDER / "go.mod").read_text())
QUICK = ReleaseLimits(total_seconds=5, connect_seconds=2, slow_seconds=0.3, slowest_bytes_per_second=1000)
BUILT = b"#!/bin/sh\necho built\n"


def make_program(version: str, *, first: str = "") -> bytes:
    return f"#!/bin/sh\n{first}\necho 'version v{version}'\n".encode()


def make_programs() -> dict[str, bytes]:
    return {name: make_program(PINNED.etcd if name == "etcd" else PINNED.kubernetes) for name in PROGRAMS}


@pytest.fixture
def releases() -> Iterator[ReleaseStandIn]:
    with ReleaseStandIn(make_programs(), PINNED, platform.machine()).serving() as stand_in:
        yield stand_in


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were built into. The build itself is a stub that writes programs at once."""
    folders: list[Path] = []

    async def stub(build: SourceBuild, folder: Path, report: Report) -> None:
        folders.append(folder)
        for name in PROGRAMS:
            (folder / name).write_bytes(BUILT)

    monkeypatch.setattr(SourceBuild, "run", stub)
    return folders


class Start:
    """First starts on one cache folder."""

    def __init__(self, cache: Path, releases: ReleaseStandIn) -> None:
        self.cache = cache
        self.environ = {**releases.settings, "OCELLI_CACHE_DIR": str(cache), "PATH": "/nowhere"}
        self.said: list[str] = []

    def store(self, limits: ReleaseLimits = QUICK) -> BinaryStore:
        return BinaryStore(self.environ, limits=limits)

    def run(self, limits: ReleaseLimits = QUICK) -> dict[str, bytes]:
        found = asyncio.run(self.store(limits).find_or_install(self.said.append))
        return {name: path.read_bytes() for name, path in found.items()}

    @property
    def reason(self) -> str:
        """Why the release binaries were not used, as it was reported."""
        lines = [line for line in self.said if line.startswith("the release binaries are not used: ")]
        assert len(lines) == 1
        assert lines[0].endswith("; building the control plane instead")
        assert "\n" not in lines[0]
        return lines[0]


@pytest.fixture
def start(tmp_path: Path, releases: ReleaseStandIn) -> Start:
    return Start(tmp_path / "cache", releases)


def test_release_binaries_are_installed_without_a_build(start: Start, builds: list[Path]) -> None:
    assert start.run() == make_programs()
    assert builds == []
    assert all(path.stat().st_mode & 0o111 for path in start.store().folder.iterdir())
    assert sorted(path.name for path in start.store().folder.iterdir()) == sorted(PROGRAMS)
    assert start.said[-2].startswith("downloaded and verified ")


def test_installed_programs_are_not_downloaded_again(start: Start, builds: list[Path], releases: ReleaseStandIn) -> None:
    start.run()
    start.run()
    assert set(releases.requests.values()) == {1}


def spoil_digest(releases: ReleaseStandIn) -> None:
    releases.files[f"{releases.folder}/kubectl.sha256"] = b"0" * 64


def leave_out_digest(releases: ReleaseStandIn) -> None:
    releases.files[f"{releases.folder}/kubectl.sha256"] = b"<html>please log in</html>"


def cut_off(releases: ReleaseStandIn) -> None:
    releases.cut_off.add(f"{releases.folder}/kube-apiserver")


def stall(releases: ReleaseStandIn) -> None:
    releases.stalled.add(f"{releases.folder}/kube-scheduler")


def remove_program(releases: ReleaseStandIn) -> None:
    del releases.files[f"{releases.folder}/kubectl"]


def remove_archive(releases: ReleaseStandIn) -> None:
    del releases.files[releases.archive]


def replace_archive(releases: ReleaseStandIn, content: bytes) -> None:
    sums = releases.archive.rpartition("/")[0] + "/SHA256SUMS"
    releases.files[releases.archive] = content
    releases.files[sums] = f"{hash_of(content)}  {releases.archive.rpartition('/')[2]}\n".encode()


def empty_archive(releases: ReleaseStandIn) -> None:
    replace_archive(releases, pack("another/file", b"x"))


def break_archive(releases: ReleaseStandIn) -> None:
    replace_archive(releases, b"not an archive")


def publish_another_version(releases: ReleaseStandIn) -> None:
    path = f"{releases.folder}/kube-scheduler"
    releases.files[path] = make_program("1.2.3")
    releases.files[f"{path}.sha256"] = hash_of(releases.files[path]).encode()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (spoil_digest, "kubectl has the SHA-256 digest .*, but 0{64} is published"),
        (leave_out_digest, "kubectl.sha256 does not contain a SHA-256 digest of kubectl"),
        (cut_off, r"kube-apiserver was cut off after \d+ bytes"),
        (stall, r"the download is slow: \d+ KiB/s for \d+ s"),
        (remove_program, "kubectl answered 404"),
        (remove_archive, "linux-.*tar.gz answered 404"),
        (empty_archive, "tar.gz does not contain etcd-v.*/etcd"),
        (break_archive, "tar.gz does not contain etcd-v.*/etcd"),
        (publish_another_version, "kube-scheduler does not run here, or is of another version"),
    ],
)
def test_faulty_release_is_not_used_and_the_programs_are_built(
    start: Start, builds: list[Path], releases: ReleaseStandIn, fault: Callable[[ReleaseStandIn], None], reason: str
) -> None:
    fault(releases)
    assert set(start.run().values()) == {BUILT}
    assert len(builds) == 1
    assert re.search(reason, start.reason)
    assert sorted(path.name for path in start.store().folder.iterdir()) == sorted(PROGRAMS)
    assert not list(start.cache.glob(".*"))


def test_unreachable_release_server_leads_to_a_build(start: Start, builds: list[Path], releases: ReleaseStandIn) -> None:
    start.environ |= {"OCELLI_ETCD_RELEASE_URL": "http://127.0.0.1:1"}
    assert set(start.run().values()) == {BUILT}
    assert "Cannot connect to host 127.0.0.1:1" in start.reason


def test_download_that_takes_too_long_in_total_is_cancelled(start: Start, builds: list[Path], releases: ReleaseStandIn) -> None:
    stall(releases)
    start.run(ReleaseLimits(total_seconds=0.3))
    assert "the download is not complete after 0.3 s" in start.reason


def test_program_with_a_wrong_digest_is_never_run(
    start: Start, builds: list[Path], releases: ReleaseStandIn, tmp_path: Path
) -> None:
    releases.files[f"{releases.folder}/kubectl"] = make_program(PINNED.kubernetes, first=f"touch {tmp_path}/ran")
    start.run()
    assert len(builds) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", ["0", "false", "Off"])
def test_setting_turns_downloads_off(start: Start, builds: list[Path], releases: ReleaseStandIn, value: str) -> None:
    start.environ["OCELLI_RELEASE_BINARIES"] = value
    start.run()
    assert f"OCELLI_RELEASE_BINARIES is {value}" in start.reason
    assert not releases.requests


def test_platform_without_release_binaries_builds(
    start: Start, builds: list[Path], releases: ReleaseStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    start.run()
    assert "there are none for riscv64" in start.reason
    assert not releases.requests


def test_concurrent_first_starts_download_once(start: Start, builds: list[Path], releases: ReleaseStandIn) -> None:
    async def both() -> None:
        await asyncio.gather(*(start.store().find_or_install(start.said.append) for _ in range(2)))

    asyncio.run(both())
    assert set(releases.requests.values()) == {1}
    assert "another process is installing the control plane; waiting for it" in start.said


def test_cancelled_download_leaves_nothing(start: Start, builds: list[Path], releases: ReleaseStandIn) -> None:
    stall(releases)

    async def cancel() -> None:
        task = asyncio.create_task(start.store(ReleaseLimits()).find_or_install(start.said.append))
        await asyncio.to_thread(releases.stalling.wait, 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert [path.name for path in start.cache.iterdir()] == [f"{start.store().folder.name}.lock"]
    assert builds == []


def test_what_a_killed_start_left_is_removed(start: Start, builds: list[Path]) -> None:
    left = start.cache / f".{start.store().folder.name}-killed"
    left.mkdir(parents=True)
    (left / "kubectl").write_bytes(b"half")
    start.run()
    assert not left.exists()


def test_redirection_away_from_https_is_refused() -> None:
    response = Mock(status=200, url=URL("http://mirror.example/kubectl"), history=[Mock(url=URL("https://dl.k8s.io/kubectl"))])
    with pytest.raises(ReleaseError, match="which is not HTTPS"):
        check_response("https://dl.k8s.io/kubectl", response)


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("a" * 64, "a" * 64),
        (f"{'A' * 64}\n", "a" * 64),
        (f"{'b' * 64}  other\n{'a' * 64}  kubectl\n", "a" * 64),
        (f"{'a' * 64} *kubectl", "a" * 64),
        (f"{'b' * 64}  other", None),
        ("<html>not found</html>", None),
        ("a" * 63, None),
        ("", None),
    ],
)
def test_digest_is_found_in_checksum_files(text: str, digest: str | None) -> None:
    assert find_digest(text, "kubectl") == digest
