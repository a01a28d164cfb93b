"""The files of a pretrained classifier, brought to this machine: weights, labels, hierarchy, translations.

It knows which files belong to a classifier and where they can be. `source_reader` fetches them; what they contain is not known
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from ocelli_api.classifier import DataFile, Pretrained, PretrainedWeights, Source
from ocelli_api.outcome import OutcomeReason
from ocelli_model.backbones.published_weights import WeightsFile, describe_weights, digest_prefix, hub_folder
from ocelli_storage.archives import MEGABYTE, shown_name
from ocelli_storage.object_store import ObjectStore
from ocelli_training.pretrained_labels import Text
from ocelli_training.settings import TrainerSettings
from ocelli_training.source_reader import open_sources
from ocelli_training.sources import SHOWN_DIGEST_LENGTH, SourceError, SourceLimits, shown_source

if TYPE_CHECKING:
    from ocelli_model.backbones.torchvision_backbones import PublishedWeights

# With all retries, an unreachable server is reported within a minute: users should see the error soon.
WEIGHTS_LIMITS = SourceLimits(zip_bytes=2000 * MEGABYTE, size_remedy="give a smaller network", connect_seconds=10)
TEXT_LIMIT_BYTES = 5 * MEGABYTE

SUFFIXES = (".onnx", ".safetensors", ".pth", ".pt")
LABELS_FILE = "labels.txt"
HIERARCHY_FILE = "hierarchy.txt"
TRANSLATIONS_FILE = "translations.json"

_BEGINNING_BYTES = 64
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"<", "it is a web page, not a file of weights; give the address of the file itself"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not a file of weights; fetch the file itself with git lfs pull"),
)


class PretrainedError(SourceError):
    """A pretrained classifier cannot be made from what it names. The message is object, fact and remedy."""

    def __init__(self, message: str, *, reason: OutcomeReason = OutcomeReason.INVALID_DATA, transient: bool = False) -> None:
        super().__init__(message, reason=reason, transient=transient)


@dataclass(frozen=True, kw_only=True)
class PretrainedFiles:
    """All files of a classifier, on this machine for as long as their context lasts."""

    weights: WeightsFile | None
    """None where the weights are packaged."""
    labels: Text | None
    hierarchy: Text | None
    translations: Text | None


class PretrainedReader:
    """Finds and fetches the files."""

    def __init__(
        self, settings: TrainerSettings, store: ObjectStore, scratch: Path, limits: SourceLimits | None = None
    ) -> None:
        """`scratch` is an empty folder; `limits` are those of the weights."""
        limits = limits or WEIGHTS_LIMITS
        self._folder = settings.file_sources_folder
        self._sources = open_sources(settings, store, scratch, limits)
        self._text_limits = replace(limits, zip_bytes=TEXT_LIMIT_BYTES, size_remedy="shorten it")

    @asynccontextmanager
    async def read(self, pretrained: Pretrained, published: PublishedWeights | None) -> AsyncIterator[PretrainedFiles]:
        """The files; copies are deleted at the end.

        Raises:
            PretrainedError: a file cannot be fetched, or has another digest than the expected one.
        """
        weights = pretrained.weights
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._sources)
            folder = await self._open_folder(stack, weights)
            # Texts first: they are small, and a wrong address should be found before large weights are fetched.
            labels = pretrained.labels
            texts = {
                "labels": await self._read_text("labels", None if labels is None else labels.file, folder, LABELS_FILE),
                "hierarchy": await self._read_text("hierarchy", pretrained.hierarchy, folder, HIERARCHY_FILE),
                "translations": await self._read_text("translations", pretrained.translations, folder, TRANSLATIONS_FILE),
            }
            if labels is not None and labels.packaged is not None:
                # Labels that the spec names win over a file in the folder of the weights.
                texts["labels"] = None
            elif texts["labels"] is None and published is None and weights.packaged is None:
                raise PretrainedError(
                    f"labels: {shown_url(weights.url)} has no {LABELS_FILE}; put a text file of that name there, "
                    "with one line for each output"
                )
            found = None if weights.packaged is not None else await self._find_weights(stack, weights, published, folder)
            yield PretrainedFiles(weights=found, **texts)

    async def _open_folder(self, stack: AsyncExitStack, weights: PretrainedWeights) -> _WeightsFolder | None:
        """The folder that the weights' address names; None where it names a file."""
        if weights.url is None or not weights.url.endswith("/"):
            return None
        try:
            fetched = await stack.enter_async_context(self._sources.fetch_file(Source(url=weights.url)))
            with fetched.refusals():
                names = await asyncio.to_thread(lambda: frozenset(path.name for path in fetched.path.iterdir()))
        except SourceError as error:
            remedy = f"put one file of weights ({', '.join(SUFFIXES)}) and {LABELS_FILE} into it"
            if self._folder is not None:
                remedy += f": {self._folder / unquote(urlsplit(weights.url).path).strip('/')}, as the trainer sees it"
            raise _unusable("weights", error, f"; {remedy}") from error
        return _WeightsFolder(url=weights.url, names=names)

    async def _find_weights(
        self,
        stack: AsyncExitStack,
        weights: PretrainedWeights,
        published: PublishedWeights | None,
        folder: _WeightsFolder | None,
    ) -> WeightsFile:
        if published is None:
            url = (weights.url or "") if folder is None else folder.weights_url(None)
            return await self._fetch_weights(stack, url, weights.sha256, "weights")
        file = await self._find_published(stack, weights, published, folder)
        prefix = digest_prefix(published.file_name) or ""
        check_beginning(file)
        for expected, why in ((weights.sha256 or "", "the pinned one"), (prefix, f"the one in the name {published.file_name}")):
            if not file.weights.sha256.startswith(expected):
                raise PretrainedError(
                    f"{file.shown}: its SHA-256 is {file.weights.sha256[:SHOWN_DIGEST_LENGTH]}…, not "
                    f"{expected[:SHOWN_DIGEST_LENGTH]}…, {why}; the file is damaged or another one: replace it"
                )
        return file

    async def _find_published(
        self, stack: AsyncExitStack, weights: PretrainedWeights, published: PublishedWeights, folder: _WeightsFolder | None
    ) -> WeightsFile:
        """From the nearest place: the folder of file sources, torch hub's cache, the network."""
        name, role = published.file_name, f"weights {published.name},"
        if folder is not None:
            return await self._fetch_weights(stack, folder.weights_url(name), weights.sha256, role)
        places: list[str] = []
        if self._folder is not None:
            if (self._folder / name).is_file():
                return await self._fetch_weights(stack, f"file:///{quote(name)}", weights.sha256, role)
            places.append(f"the folder of file sources ({self._folder}, as the trainer sees it)")
        cached, cache = hub_folder() / name, "torch hub's cache"
        if cached.is_file():
            shown = f"{role} {name} in {cache}"
            return await asyncio.to_thread(describe_weights, cached, name=name, origin=cache, shown=shown)
        places.append(f"{cache} ({hub_folder()})")
        try:
            return await self._fetch_weights(stack, weights.url or published.url, weights.sha256, role)
        except PretrainedError as error:
            if error.reason is not OutcomeReason.SOURCE_UNREADABLE:
                raise
            # The remedy for an address that the user did not write is another one.
            fact = str(error) if weights.url is not None else str(error).partition("; ")[0]
            raise PretrainedError(
                f"{fact}; put {name} into {' or '.join(places)}, or set spec.pretrained.weights.url to the address of a copy",
                reason=error.reason,
                transient=error.transient,
            ) from error

    async def _fetch_weights(self, stack: AsyncExitStack, url: str, sha256: str | None, role: str) -> WeightsFile:
        try:
            fetched = await stack.enter_async_context(self._sources.fetch_file(Source(url=url, sha256=sha256)))
            with fetched.refusals():
                name, origin = unquote(Path(urlsplit(url).path).name), shown_url(url)
                return await asyncio.to_thread(
                    describe_weights, fetched.path, name=name, origin=origin, shown=f"{role} {origin}"
                )
        except SourceError as error:
            raise _unusable(role, error) from error

    async def _read_text(self, role: str, named: DataFile | None, folder: _WeightsFolder | None, name: str) -> Text | None:
        """The file that the spec names, or the one of that name in the folder of the weights."""
        file = named or (None if folder is None else folder.find(name))
        if file is None:
            return None
        if file.url.endswith("/"):
            raise PretrainedError(f"{role} {shown_url(file.url)}: it is a folder; name the file in it")
        try:
            async with self._sources.fetch_file(Source(url=file.url, sha256=file.sha256), self._text_limits) as fetched:
                with fetched.refusals():
                    data = await asyncio.to_thread(fetched.path.read_bytes)
        except SourceError as error:
            raise _unusable(role, error) from error
        return Text(name=f"{role} {shown_url(file.url)}", data=data)


@dataclass(frozen=True, kw_only=True)
class _WeightsFolder:
    """The folder that the weights' address names, and the files in it."""

    url: str
    names: frozenset[str]

    def find(self, name: str) -> DataFile | None:
        return DataFile(url=self.url + name) if name in self.names else None

    def weights_url(self, preferred: str | None) -> str:
        """The address of the preferred file of weights, else of the only one. Raises PretrainedError."""
        found = sorted(name for name in self.names if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."))
        if preferred in found:
            found = [preferred]
        if not found:
            raise PretrainedError(
                f"weights {shown_url(self.url)}: the folder has no file of weights; put one there ({', '.join(SUFFIXES)})"
            )
        if len(found) > 1:
            shown = " and ".join(shown_name(name) for name in found[:2])
            raise PretrainedError(
                f"weights {shown_url(self.url)}: the folder has {len(found)} files of weights, such as {shown}; "
                "keep one of them there, or name the file"
            )
        return self.url + quote(found[0])


def shown_url(url: str | None) -> str:
    """An address as messages show it: without parts that may be secret."""
    return shown_source(Source(url=url or ""))


def check_beginning(file: WeightsFile) -> None:
    """Refuse a file whose first bytes show that it is not a file of weights. Raises PretrainedError."""
    with file.path.open("rb") as content:
        beginning = content.read(_BEGINNING_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not beginning:
        raise PretrainedError(f"{file.shown}: it is empty; give the whole file")
    for known, fault in _BEGINNINGS:
        if beginning.startswith(known):
            raise PretrainedError(f"{file.shown}: {fault}")


def _unusable(role: str, error: SourceError, remedy: str = "") -> PretrainedError:
    return PretrainedError(f"{role} {error}{remedy}", reason=error.reason, transient=error.transient)
