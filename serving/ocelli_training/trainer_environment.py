"""What a training runs with: Ocelli's own code, the installed libraries, and the kind of CPU.

It is read from this process and this machine, and must not know what is trained.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ocelli_api.canonical_json import sha256_hex

PROGRAM = "ocelli"
_PACKAGES = ("ocelli_api", "ocelli_http", "ocelli_model", "ocelli_storage", "ocelli_training")
_CPU_INFO = Path("/proc/cpuinfo")
_ROUNDING_FEATURES = re.compile(r"avx\w*|amx\w*|fma|f16c|sse4_\d|asimd\w*|sve\w*|bf16|i8mm")
"""Instruction sets that numerical libraries choose their code by. Sums in another order round differently."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """An installed Python distribution."""

    name: str
    version: str
    record_sha256: str | None
    """SHA-256 (hex) of its `RECORD`, which has the digests of its files; None if it has none."""


@dataclass(frozen=True, kw_only=True)
class CpuKind:
    """What decides how floating-point numbers are rounded on a machine."""

    architecture: str
    """Such as `x86_64`."""
    model: str
    """As the kernel names it; empty where it does not."""
    features: tuple[str, ...]
    """Instruction sets for numerical work, sorted."""


@dataclass(frozen=True, kw_only=True)
class TrainerEnvironment:
    """Code, libraries and CPU of a training."""

    version: str
    """Ocelli's."""
    code_sha256: str
    """SHA-256 (hex) over paths and digests of the source files of the trainer's packages."""
    libraries: tuple[Library, ...]
    """Without Ocelli, ordered by name."""
    cpu: CpuKind


@functools.cache
def observe_trainer_environment() -> TrainerEnvironment:
    """Read it from this process, once: it does not change while the process runs. Takes some tens of milliseconds."""
    return TrainerEnvironment(
        version=importlib.metadata.version(PROGRAM),
        code_sha256=_digest_code(),
        libraries=tuple(sorted(_find_libraries(), key=lambda library: library.name)),
        cpu=parse_cpu_kind(platform.machine(), _CPU_INFO.read_text() if _CPU_INFO.exists() else ""),
    )


def parse_cpu_kind(architecture: str, cpu_info: str) -> CpuKind:
    """The kind of CPU in the contents of `/proc/cpuinfo`; all cores count as the first one."""
    first = cpu_info.split("\n\n")[0]
    fields: Mapping[str, str] = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())
    }
    # x86 has "flags", ARM has "Features", and no name.
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return CpuKind(
        architecture=architecture,
        model=fields.get("model name", ""),
        features=tuple(sorted(flag for flag in flags if _ROUNDING_FEATURES.fullmatch(flag))),
    )


def _find_libraries() -> Iterator[Library]:
    seen = {PROGRAM}
    for distribution in importlib.metadata.distributions():
        # Of two distributions of one name, the first one is imported.
        name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        if name and name not in seen:
            seen.add(name)
            record = distribution.read_text("RECORD")
            digest = None if record is None else sha256_hex(record.encode())
            yield Library(name=name, version=distribution.version, record_sha256=digest)


def _digest_code() -> str:
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder)} {sha256_hex(path.read_bytes())}\n".encode())
    return digest.hexdigest()
