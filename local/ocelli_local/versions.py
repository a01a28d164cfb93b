"""The versions of Kubernetes, etcd and Go that `local/control-plane/go.mod` pins, and the versions that programs print."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parents[1] / "control-plane"
ETCD_PACKAGE = "go.etcd.io/etcd/server/v3"
KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
PROGRAMS = ("etcd", *KUBERNETES_PROGRAMS)


class BinariesError(Exception):
    """The programs are missing and can't be installed; the message contains the remedy."""


@dataclass(frozen=True, kw_only=True)
class PinnedVersions:
    """What `go.mod` pins, without the leading "v"."""

    kubernetes: str
    etcd: str
    go: str

    @classmethod
    def from_go_mod(cls, text: str) -> PinnedVersions:
        found = {}
        for name, module in (("kubernetes", "k8s.io/kubernetes"), ("etcd", ETCD_PACKAGE), ("go", "go")):
            match = re.search(rf"^(?:require )?\s*{re.escape(module)} v?(\d\S*)", text, re.MULTILINE)
            if match is None:
                raise BinariesError(f"{MODULE_FOLDER / 'go.mod'} does not pin a version of {name}; restore it from git")
            found[name] = match[1]
        return cls(**found)

    def of(self, program: str) -> tuple[int, ...]:
        version = parse_version(self.etcd if program == "etcd" else self.kubernetes)
        assert version is not None
        return version


def parse_version(text: str) -> tuple[int, ...] | None:
    """The first `N.N` or `N.N.N` in `text` as numbers."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def version_fits(program: str, found: tuple[int, ...], pinned: PinnedVersions) -> bool:
    """The same minor release; kubectl may be one minor release away, as Kubernetes supports."""
    wanted = pinned.of(program)
    return found[0] == wanted[0] and abs(found[1] - wanted[1]) <= (1 if program == "kubectl" else 0)


def read_program_version(path: Path) -> tuple[int, ...] | None:
    """The version that the program prints; None if it can't be run or prints none."""
    arguments = ["version", "--client"] if path.name == "kubectl" else ["--version"]
    try:
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout.partition("\n")[0])
