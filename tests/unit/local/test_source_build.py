"""The build command and its progress, with a stand-in for Go."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from ocelli_local import progress
from ocelli_local.progress import format_bar
from ocelli_local.source_build import SourceBuild
from ocelli_local.versions import PROGRAMS, BinariesError, PinnedVersions

PINNED = PinnedVersions(kubernetes="1.37.2", etcd="3.7.0", go="1.26.0")
STAND_IN = """#!/bin/sh
case $1 in
env) echo go1.30.0 ;;
list) printf 'one\\ntwo\\nthree\\nfour\\n' ;;
build)
  echo "$@" > arguments
  echo one >&2
  %s
  while [ "$1" != -o ]; do shift; done
  for name in server kube-apiserver kube-controller-manager kube-scheduler kubectl; do : > "$2$name"; done ;;
esac
"""


class Build:
    """A build in `folder` with a stand-in for Go, in which `build` runs a script in the middle."""

    def __init__(self, folder: Path, script: str = "") -> None:
        self.folder = folder / "built"
        self.folder.mkdir()
        go = folder / "bin" / "go"
        go.parent.mkdir()
        go.write_text(STAND_IN % script)
        go.chmod(0o755)
        self.said: list[str] = []
        self.build = SourceBuild(PINNED, {"PATH": f"{go.parent}:/usr/bin:/bin"}, folder)

    async def run(self) -> None:
        await self.build.run(self.folder, self.said.append)


def test_one_command_builds_all_programs(tmp_path: Path) -> None:
    build = Build(tmp_path)
    asyncio.run(build.run())
    assert sorted(path.name for path in build.folder.iterdir()) == sorted(PROGRAMS)
    arguments = (tmp_path / "arguments").read_text()
    assert "-trimpath" in arguments
    assert "component-base/version.gitVersion=v1.37.2" in arguments


def test_progress_has_the_real_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_SECONDS", 0)
    build = Build(tmp_path)
    asyncio.run(build.run())
    assert "building: [######------------------]  25 %, 1 of 4 packages, 0:00" in build.said


def test_failed_build_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(BinariesError, match=r"go build exited 1.*\none\n# two\ntwo.go:3: undefined: x"):
        asyncio.run(Build(tmp_path, "echo '# two' >&2; echo 'two.go:3: undefined: x' >&2; exit 1").run())


@pytest.mark.slow
def test_cancelled_build_ends_go(tmp_path: Path) -> None:
    # A test run in the background inherits an ignored SIGINT, and bash cannot trap what was ignored when it started.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def cancel() -> None:
        build = Build(tmp_path, f"trap 'touch {tmp_path}/interrupted; exit 1' INT; touch {tmp_path}/started; sleep 5 & wait")
        task = asyncio.create_task(build.run())
        async with asyncio.timeout(10):
            while not started(tmp_path):  # noqa: ASYNC110 (a process sets it)
                await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        asyncio.run(cancel())
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "interrupted").exists()


def started(folder: Path) -> bool:
    return (folder / "started").exists()


@pytest.mark.parametrize(
    ("done", "total", "bar"),
    [
        (0, 0, "[------------------------]   0 %"),
        (1, 2, "[############------------]  50 %"),
        (5, 4, "[########################] 100 %"),
    ],
)
def test_bar_shows_the_share(done: int, total: int, bar: str) -> None:
    assert format_bar(done, total) == bar
