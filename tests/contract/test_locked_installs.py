"""Development environments and images install only locked packages, each by its hash; images get what they copy."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
INSTALLED = re.compile(r"(\bpip\b|\$\(UV\)).* -r ")


def read_commands(name: str) -> list[str]:
    """The lines of a build file, continued ones joined, without comments."""
    text = re.sub(r"\\\n\s*", " ", (CHECKOUT / name).read_text())
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


@pytest.mark.parametrize("name", ["Makefile", "images/Dockerfile"])
def test_every_install_requires_hashes(name: str) -> None:
    statements = [part for line in read_commands(name) for part in re.split(r";|&&|\|\|", line) if INSTALLED.search(part)]
    assert len(statements) > 3
    assert [part for part in statements if "--require-hashes" not in part] == []


@pytest.mark.parametrize("name", ["Makefile", "images/Dockerfile"])
def test_no_install_uses_another_index(name: str) -> None:
    assert [line for line in read_commands(name) if re.search(r"--(extra-)?index-url|--find-links", line)] == []


def test_every_locked_package_has_a_hash() -> None:
    files = sorted((CHECKOUT / "requirements").rglob("*.txt"))
    assert len(files) > 10
    for path in files:
        packages = [entry for entry in re.split(r"\n(?=\S)", path.read_text()) if "==" in entry.partition("\n")[0]]
        assert packages, path
        assert [entry for entry in packages if "--hash=sha256:" not in entry] == [], path


DOCKER = """#!/bin/sh
[ "$1" = image ] && { [ -z "$DIGEST" ] || echo "python@$DIGEST mirror/python@$DIGEST"; exit 0; }
printf '%s\\n' "$@" >> "$LOG"
"""


@pytest.mark.parametrize("digest", [f"sha256:{'a' * 64}", ""])
def test_images_record_the_digest_of_the_base_that_they_were_built_from(tmp_path: Path, digest: str) -> None:
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "DIGEST": digest}
    base = "registry.example.com/python:3.11"
    make = ["make", "images", "COMPONENTS=store", f"BASE_IMAGE={base}"]
    subprocess.run(make, cwd=CHECKOUT, env=environment, check=True, capture_output=True, timeout=60)
    arguments = (tmp_path / "log").read_text().splitlines()
    assert {f"BASE_IMAGE={base}", f"BASE_DIGEST={digest}"} <= set(arguments)


def test_a_custom_base_image_is_in_the_list_of_packages(tmp_path: Path) -> None:
    (command,) = re.findall(r"python3 -c '([^']*sbom[^']*)'", (CHECKOUT / "images" / "Dockerfile").read_text())
    sbom = tmp_path / "sbom.cdx.json"
    sbom.write_text(json.dumps({"bomFormat": "CycloneDX", "metadata": {"component": {"name": "x"}}}))
    subprocess.run(["python3", "-c", command, str(sbom), "python:3.11", "sha256:abc"], check=True, timeout=60)
    assert json.loads(sbom.read_text())["metadata"]["properties"] == [
        {"name": "org.opencontainers.image.base.name", "value": "python:3.11"},
        {"name": "org.opencontainers.image.base.digest", "value": "sha256:abc"},
    ]


def test_the_build_context_has_what_the_images_copy() -> None:
    lines = [line.split()[1:-1] for line in read_commands("images/Dockerfile") if line.startswith("COPY ")]
    copied = {word for words in lines if not words[0].startswith("--from") for word in words}
    kept = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert len(copied) > 5
    assert [path for path in sorted(copied) if not any(f"{path}/".startswith(f"{name}/") for name in kept)] == []
