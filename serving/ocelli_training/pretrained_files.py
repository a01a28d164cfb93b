"""The files that a pretrained classifier is made from, brought to this machine: weights, labels, hierarchy, translations.

It knows where they may lie, and which they are; `sources` fetches them, and what is in them is not its business.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from ocelli_api.classifier import DataFile, Pretrained, PretrainedWeights, Source
from ocelli_api.outcome import OutcomeReason
from ocelli_model.backbones.published_weights import digest_prefix, hub_folder
from ocelli_storage.archives import MEGABYTE, shown_name
from ocelli_storage.object_store import ObjectStore
from ocelli_training.pretrained_labels import Text
from ocelli_training.settings import TrainerSettings
from ocelli_training.sources import SHOWN_DIGEST_LENGTH, SourceError, SourceLimits, SourceReader, shown_source

# A server that does not answer is given up within a minute, tries included: nobody waits for a classifier that cannot be.
WEIGHTS_LIMITS = SourceLimits(zip_bytes=2000 * MEGABYTE, size_remedy="give a smaller network", connect_seconds=10)
TEXT_LIMITS = SourceLimits(zip_bytes=5 * MEGABYTE, size_remedy="shorten it", connect_seconds=10)

SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt")
LABELS_FILE = "labels.txt"
HIERARCHY_FILE = "hierarchy.txt"
TRANSLATIONS_FILE = "translations.json"

_BEGINNING_BYTES = 64
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"<", "it is a web page and no file of weights; name the address of the file itself"),
    (b"version https://git-lfs", "it is a pointer of Git LFS and no file of weights; fetch the file itself with git lfs pull"),
)


class PretrainedError(SourceError):
    """A pretrained classifier cannot be made of what it names. The message is object, fact and remedy."""

    def __init__(self, message: str, *, reason: OutcomeReason = OutcomeReason.INVALID_DATA, transient: bool = False) -> None:
        super().__init__(message, reason=reason, transient=transient)


class Published(Protocol):
    """What torchvision knows of weights that it publishes."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def file_name(self) -> str: ...
    @property
    def categories(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file of weights on this machine, its digest verified where one is known."""

    path: Path
    name: str
    """As it was called where it came from."""
    shown: str
    """What messages call it."""
    origin: str
    """Where it came from, without credentials."""
    sha256: str

    @property
    def is_onnx(self) -> bool:
        return Path(self.name).suffix.lower() == ".onnx"


@dataclass(frozen=True, kw_only=True)
class PretrainedFiles:
    """Everything that was named, on this machine for as long as its context lasts."""

    weights: WeightsFile | None
    """None where the weights are packaged."""
    labels: Text | None
    hierarchy: Text | None
    translations: Text | None


class PretrainedReader:
    """Finds and fetches the files."""

    def __init__(
        self, settings: TrainerSettings, store: ObjectStore, scratch: Path, *, limits: SourceLimits | None = None
    ) -> None:
        """`scratch` is an empty folder; `limits` are those of the weights."""
        limits = limits or WEIGHTS_LIMITS
        self._folder = settings.file_sources_folder
        self._weights = _open_reader(settings, store, scratch / "weights", limits)
        self._texts = _open_reader(
            settings,
            store,
            scratch / "texts",
            replace(limits, zip_bytes=TEXT_LIMITS.zip_bytes, size_remedy=TEXT_LIMITS.size_remedy),
        )

    @asynccontextmanager
    async def read(self, pretrained: Pretrained, published: Published | None) -> AsyncIterator[PretrainedFiles]:
        """The files; copies that were made for them are deleted at the end.

        Raises:
            PretrainedError: one of them cannot be had, or has another digest than it must have.
        """
        weights = pretrained.weights
        async with AsyncExitStack() as stack:
            for reader in (self._weights, self._texts):
                await stack.enter_async_context(reader)
            beside = await self._open_folder(stack, weights)
            # Texts first: they are small, and a mistake in their addresses shall not be found after hours of fetching.
            labels = pretrained.labels
            named = {
                "labels": (None if labels is None else labels.file, LABELS_FILE),
                "hierarchy": (pretrained.hierarchy, HIERARCHY_FILE),
                "translations": (pretrained.translations, TRANSLATIONS_FILE),
            }
            texts: dict[str, Text | None] = {}
            for role, (file, name) in named.items():
                texts[role] = await self._read_text(role, file or (beside.find(name) if beside is not None else None))
            if labels is not None and labels.packaged is not None:
                # Named labels win over a file in the folder of the weights.
                texts["labels"] = None
            elif texts["labels"] is None and published is None and weights.packaged is None:
                raise PretrainedError(
                    f"labels: {shown_url(weights.url)} holds no {LABELS_FILE}; put a text file of that name there, "
                    "with the name of each output, a line each"
                )
            found = None if weights.packaged is not None else await self._find_weights(stack, weights, published, beside)
            yield PretrainedFiles(weights=found, **texts)

    async def _open_folder(self, stack: AsyncExitStack, weights: PretrainedWeights) -> _FilesBeside | None:
        """What lies in the folder that the weights' address names; None where it names a file."""
        if weights.url is None or not weights.url.endswith("/"):
            return None
        try:
            fetched = await stack.enter_async_context(self._weights.fetch(Source(url=weights.url)))
            with fetched.refusals():
                names = await asyncio.to_thread(lambda: frozenset(path.name for path in fetched.path.iterdir()))
        except SourceError as error:
            remedy = f"put one file of weights ({', '.join(SUFFIXES)}) and {LABELS_FILE} into it"
            if self._folder is not None:
                remedy += f": {self._folder / unquote(urlsplit(weights.url).path).strip('/')}, as the trainer sees it"
            raise _unusable("weights", error, f"; {remedy}") from error
        return _FilesBeside(url=weights.url, names=names)

    async def _find_weights(
        self, stack: AsyncExitStack, weights: PretrainedWeights, published: Published | None, beside: _FilesBeside | None
    ) -> WeightsFile:
        if published is None:
            url = (weights.url or "") if beside is None else beside.weights_url(None)
            return await self._fetch_weights(stack, url, weights.sha256, "weights")
        file = await self._find_published(stack, weights, published, beside)
        prefix = digest_prefix(published.file_name) or ""
        check_beginning(file)
        for expected, why in ((weights.sha256 or "", "as it is pinned"), (prefix, f"as {published.file_name} says")):
            if not file.sha256.startswith(expected):
                raise PretrainedError(
                    f"{file.shown}: its SHA-256 is {file.sha256[:SHOWN_DIGEST_LENGTH]}… and not "
                    f"{expected[:SHOWN_DIGEST_LENGTH]}…, {why}; it is damaged or another file: replace it"
                )
        return file

    async def _find_published(
        self, stack: AsyncExitStack, weights: PretrainedWeights, published: Published, beside: _FilesBeside | None
    ) -> WeightsFile:
        """In the order of how near they are: the folder of file sources, torch hub's cache, the network."""
        name, role = published.file_name, f"weights {published.name},"
        if beside is not None:
            return await self._fetch_weights(stack, beside.weights_url(name), weights.sha256, role)
        places: list[str] = []
        if self._folder is not None:
            if (self._folder / name).is_file():
                return await self._fetch_weights(stack, f"file:///{quote(name)}", weights.sha256, role)
            places.append(f"the folder of file sources ({self._folder}, as the trainer sees it)")
        cached = hub_folder() / name
        if cached.is_file():
            return await _describe(cached, name, f"{role} {name} in torch hub's cache", "torch hub's cache")
        places.append(f"torch hub's cache ({hub_folder()})")
        try:
            return await self._fetch_weights(stack, weights.url or published.url, weights.sha256, role)
        except PretrainedError as error:
            if error.reason is not OutcomeReason.SOURCE_UNREADABLE:
                raise
            # What to do about an address that nobody wrote here: something else.
            fact = str(error) if weights.url is not None else str(error).partition("; ")[0]
            nor = f"neither in {places[0]} nor in {places[1]}" if len(places) > 1 else f"not in {places[0]}"
            raise PretrainedError(
                f"{fact}; {name} lies {nor}: put it there, or set spec.pretrained.weights.url to a copy that can be fetched",
                reason=error.reason,
                transient=error.transient,
            ) from error

    async def _fetch_weights(self, stack: AsyncExitStack, url: str, sha256: str | None, role: str) -> WeightsFile:
        try:
            fetched = await stack.enter_async_context(self._weights.fetch(Source(url=url, sha256=sha256)))
            with fetched.refusals():
                shown = shown_url(url)
                return await _describe(fetched.path, unquote(Path(urlsplit(url).path).name), f"{role} {shown}", shown)
        except SourceError as error:
            raise _unusable(role, error) from error

    async def _read_text(self, role: str, file: DataFile | None) -> Text | None:
        if file is None:
            return None
        if file.url.endswith("/"):
            raise PretrainedError(f"{role} {shown_url(file.url)}: it is a folder; name the file in it")
        try:
            async with self._texts.fetch(Source(url=file.url, sha256=file.sha256)) as fetched:
                with fetched.refusals():
                    data = await asyncio.to_thread(fetched.path.read_bytes)
        except SourceError as error:
            raise _unusable(role, error) from error
        return Text(name=f"{role} {shown_url(file.url)}", data=data)


@dataclass(frozen=True, kw_only=True)
class _FilesBeside:
    """What lies in the folder that the weights' address names."""

    url: str
    names: frozenset[str]

    def find(self, name: str) -> DataFile | None:
        return DataFile(url=self.url + name) if name in self.names else None

    def weights_url(self, preferred: str | None) -> str:
        """Of the preferred file of weights, else of the only one. Raises PretrainedError."""
        found = sorted(name for name in self.names if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."))
        if preferred in found:
            found = [preferred]
        if not found:
            raise PretrainedError(
                f"weights {shown_url(self.url)}: the folder holds no file of weights; put one there ({', '.join(SUFFIXES)})"
            )
        if len(found) > 1:
            shown = " and ".join(shown_name(name) for name in found[:2])
            raise PretrainedError(
                f"weights {shown_url(self.url)}: the folder holds {len(found)} files of weights, such as {shown}; "
                "leave one there, or name the file"
            )
        return self.url + quote(found[0])


def shown_url(url: str | None) -> str:
    """An address as messages show it: without what may be a secret."""
    return shown_source(Source(url=url or ""))


def check_beginning(file: WeightsFile) -> None:
    """Refuse what is obviously no file of weights, with what it is instead. Raises PretrainedError."""
    with file.path.open("rb") as content:
        beginning = content.read(_BEGINNING_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not beginning:
        raise PretrainedError(f"{file.shown}: it is empty; give the whole file")
    for known, fault in _BEGINNINGS:
        if beginning.startswith(known):
            raise PretrainedError(f"{file.shown}: {fault}")


def _open_reader(settings: TrainerSettings, store: ObjectStore, scratch: Path, limits: SourceLimits) -> SourceReader:
    scratch.mkdir(parents=True, exist_ok=True)
    return SourceReader(
        store=store,
        location=settings.location,
        file_sources_folder=settings.file_sources_folder,
        scratch_folder=scratch,
        limits=limits,
        networks=settings.networks,
    )


async def _describe(path: Path, name: str, shown: str, origin: str) -> WeightsFile:
    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return WeightsFile(path=path, name=name, shown=shown, origin=origin, sha256=await asyncio.to_thread(digest))


def _unusable(role: str, error: SourceError, remedy: str = "") -> PretrainedError:
    return PretrainedError(f"{role} {error}{remedy}", reason=error.reason, transient=error.transient)
