"""The manifest of a classifier whose examples are zips at addresses, pinned by their digests: what one commits for GitOps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ocelli_client.errors import OcelliError
from ocelli_client.examples import Examples, ExampleSet
from ocelli_client.zips import plan_zips, write_zip

API_VERSION = "ocelli.dev/v1alpha1"
SCHEMES = ("https", "http", "s3", "gs", "az", "file")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DIGEST_DIGITS = 12


class ManifestError(OcelliError):
    """A manifest cannot be made of what was given."""


@dataclass(frozen=True, kw_only=True)
class WrittenManifest:
    """A manifest and the zips that it names."""

    document: dict[str, Any]
    zips: tuple[Path, ...]


def write_manifest(name: str, examples: Examples, url_prefix: str, folder: Path) -> WrittenManifest:
    """Write the zips of the examples into a folder; the manifest has their digests, and their addresses below the prefix.

    The name of a zip has its digest, so that a later one does not replace it: reverting a commit finds the old one.

    Raises:
        ManifestError: the name or the prefix is not allowed, or the folder cannot be written.
        ChangedImageError: an image has changed since it was checked.
    """
    _check_name(name)
    _check_prefix(url_prefix)
    prefix = url_prefix if url_prefix.endswith("/") else f"{url_prefix}/"
    zips: list[Path] = []
    spec: dict[str, Any] = {"classes": []}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in examples.sets:
            paths_and_digests = _write_zips(one, folder)
            zips += [path for path, _ in paths_and_digests]
            sources = [{"url": prefix + quote(path.name), "sha256": digest} for path, digest in paths_and_digests]
            if one.class_name is None:
                spec["negativeExamples"] = sources
            else:
                spec["classes"].append({"name": one.class_name, "examples": sources})
    except OSError as error:
        raise ManifestError(f"{folder} cannot be written: {error.strerror}; name another folder with --out") from error
    document = {"apiVersion": API_VERSION, "kind": "Classifier", "metadata": {"name": name}, "spec": spec}
    return WrittenManifest(document=document, zips=tuple(dict.fromkeys(zips)))


def object_name(text: str) -> str:
    """A name that Kubernetes allows, from another one: `My dogs` becomes `my-dogs`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def _write_zips(one: ExampleSet, folder: Path) -> list[tuple[Path, str]]:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", one.class_name or "negative-examples").strip("-").lower() or "class"
    written = []
    for part in plan_zips(one.images):
        archive = write_zip(part, folder / f"{stem}.zip.part")
        path = folder / f"{stem}-{archive.sha256[:_DIGEST_DIGITS]}.zip"
        archive.path.replace(path)
        written.append((path, archive.sha256))
    return written


def _check_name(name: str) -> None:
    if _OBJECT_NAME.fullmatch(name) is None:
        suggestion = object_name(name)
        more = f', for example --name "{suggestion}"' if suggestion else ""
        raise ManifestError(f'"{name}" is not a name of a Kubernetes object; use lower-case letters, digits and hyphens{more}')


def _check_prefix(url_prefix: str) -> None:
    scheme = urlsplit(url_prefix).scheme
    if scheme not in SCHEMES or "://" not in url_prefix:
        allowed: Sequence[str] = [f"{one}://" for one in SCHEMES]
        raise ManifestError(f'"{url_prefix}" is not an address that Ocelli reads; it begins with {", ".join(allowed)}')
