"""The client for programs that use asyncio or trio. It has the methods of `Ocelli`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx

from ocelli_client import api
from ocelli_client.api import LATEST, SERVED, ExportFormat, Removal
from ocelli_client.calls import Answer, Call, Pause, Procedure, check
from ocelli_client.cards import Card, Correction, Details, Document
from ocelli_client.classification import Question, classify
from ocelli_client.connection import Connection
from ocelli_client.creation import ClassPaths, Creation, OnTransfer, add, build_given_examples, create
from ocelli_client.errors import NotReachableError, OcelliError
from ocelli_client.events import Event, EventReader, build_event_request
from ocelli_client.examples import Examples
from ocelli_client.predictions import Classified
from ocelli_client.resolution import resolve
from ocelli_client.waiting import Wait, wait

T = TypeVar("T")


class AsyncOcelli:
    """A connection to a gateway: `async with AsyncOcelli("https://vision.example.org", api_key="...") as ocelli: ...`."""

    def __init__(self, url: str, **credentials: Any) -> None:
        """`credentials` and limits are the fields of `Connection`."""
        self.connection = Connection(url=url, **credentials)
        self._http = self.connection.open(httpx.AsyncClient)

    async def __aenter__(self) -> AsyncOcelli:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send one request and read its answer."""
        options = call.build_options()
        if call.content is not None:
            options["content"] = _read_in_thread(call.content.read())
        try:
            async with self._http.stream(call.method, call.path, **options) as response:
                answer = Answer(response=response, limit_bytes=call.limit_bytes, deadline=self.connection.deadline)
                async for piece in response.aiter_bytes():
                    answer.add(piece)
        except httpx.RequestError as error:
            raise NotReachableError(self.connection.describe_failure(error)) from error
        return call.read(answer)

    async def run(self, procedure: Procedure[T]) -> T:
        """Carry out the steps of a procedure. Its own work, such as reading images, is done in a thread."""
        advance, value = procedure.send, None
        while True:
            ended, step = await anyio.to_thread.run_sync(_advance, advance, value)
            if ended:
                result: T = step
                return result
            try:
                value = await (anyio.sleep(step.seconds) if isinstance(step, Pause) else self.send(step))
            except OcelliError as error:
                advance, value = procedure.throw, error
            else:
                advance = procedure.send

    async def events(self, classifier_id: str | None = None) -> AsyncIterator[Event]:
        """Changes as they happen, until the gateway ends the stream; then list and follow again."""
        reader = EventReader()
        try:
            async with self._http.stream(**build_event_request(classifier_id)) as response:
                if not response.is_success:
                    await response.aread()
                check(response)
                async for line in response.aiter_lines():
                    for event in reader.read_line(line):
                        yield event
        except httpx.RequestError as error:
            raise NotReachableError(self.connection.describe_failure(error)) from error

    async def session(self) -> Document:
        """Who asks, the version of the gateway, and its limits."""
        return await self.send(api.get_session())

    async def list(self) -> tuple[Card, ...]:
        """All classifiers, oldest first."""
        return await self.send(api.list_classifiers())

    async def get(self, classifier_id: str) -> Details:
        """All that is known of a classifier."""
        return await self.send(api.get_classifier(classifier_id))

    async def resolve(self, name: str) -> Card:
        """The one classifier of this id or name."""
        return await self.run(resolve(name))

    async def wait(self, classifier_id: str, options: Wait | None = None) -> Details:
        """The classifier once it is ready or failed, waits for approval, or is suspended."""
        return await self.run(wait(classifier_id, options or Wait()))

    async def classify(
        self, classifier_ids: str | Sequence[str], files: Sequence[str | Path], threshold: float | None = None
    ) -> Classified:
        """The predictions of all images, in their order; a zip counts as its images."""
        return await self.run(classify(Question.build(classifier_ids, threshold), [Path(file) for file in files]))

    async def create(self, name: str, examples: Examples | ClassPaths, options: Creation | None = None) -> Details:
        """Create a classifier. An upload is resumed after a lost connection."""
        return await self.run(create(name, build_given_examples(examples), options or Creation()))

    async def add(self, classifier_id: str, examples: Examples | ClassPaths, on_transfer: OnTransfer | None = None) -> Details:
        """Add examples, which retrains."""
        return await self.run(add(classifier_id, build_given_examples(examples), on_transfer))

    async def remove(self, classifier_id: str, removal: Removal) -> Details:
        """Remove classes, uploads or negative examples, which retrains."""
        return await self.send(api.change_classifier(classifier_id, "remove", removal.to_json()))

    async def correct(self, classifier_id: str, corrections: Sequence[Correction], *, dry_run: bool = False) -> Document:
        """Relabel or drop single images, which retrains; a class of None removes the correction."""
        return await self.send(api.correct_images(classifier_id, corrections, dry_run=dry_run))

    async def approve(self, classifier_id: str, revision: str) -> Details:
        """Approve a revision that waits for approval, so that it serves."""
        return await self.send(api.change_classifier(classifier_id, "approve", {"revision": revision}))

    async def pin(self, classifier_id: str, revision: str) -> Details:
        """Serve this revision, also after further trainings."""
        return await self.send(api.change_classifier(classifier_id, "pin", {"revision": revision}))

    async def unpin(self, classifier_id: str) -> Details:
        """Serve the newest revision again."""
        return await self.send(api.change_classifier(classifier_id, "unpin"))

    async def suspend(self, classifier_id: str) -> Details:
        """Only check the images, and train nothing."""
        return await self.send(api.change_classifier(classifier_id, "suspend"))

    async def resume(self, classifier_id: str) -> Details:
        """Train again."""
        return await self.send(api.change_classifier(classifier_id, "resume"))

    async def retrain(self, classifier_id: str) -> Details:
        """Train again from the same images."""
        return await self.send(api.change_classifier(classifier_id, "retrain"))

    async def delete(self, classifier_id: str) -> None:
        """Delete a classifier with its images and artifacts."""
        await self.send(api.delete_classifier(classifier_id))

    async def evaluation(self, classifier_id: str, revision: str = SERVED) -> Document:
        """How well a revision recognises images that it has not learned from."""
        return await self.send(api.get_quality(classifier_id, revision, "evaluation"))

    async def images(self, classifier_id: str, revision: str = SERVED, **query: Any) -> Document:
        """The judged images: `actual`, `predicted`, `wrong`, `test`, `sort`, `limit` and `offset` select."""
        return await self.send(api.get_quality(classifier_id, revision, "images", query))

    async def scores(self, classifier_id: str, revision: str = SERVED) -> Document:
        """All judged scores."""
        return await self.send(api.get_quality(classifier_id, revision, "scores"))

    async def data(self, classifier_id: str, revision: str = LATEST) -> Document:
        """The report on the images."""
        return await self.send(api.get_quality(classifier_id, revision, "data"))

    async def compare(self, classifier_id: str, revision: str, other: str) -> Document:
        """What `revision` does better and worse than `other`, image by image."""
        return await self.send(api.get_quality(classifier_id, revision, f"compare/{other}"))

    async def thumbnails(self, classifier_id: str, revision: str, images: Sequence[str]) -> Mapping[str, str]:
        """JPEGs in base64, by the SHA-256 of the image; at most 60."""
        return await self.send(api.get_thumbnails(classifier_id, revision, images))

    async def report(self, classifier_id: str) -> bytes:
        """The newest report on the images, as HTML."""
        return await self.send(api.get_report(classifier_id))

    async def export(self, classifier_id: str, export_format: ExportFormat) -> bytes:
        """The served model, or its bill of materials."""
        return await self.send(api.get_export(classifier_id, export_format))


def _advance(advance: Any, value: Any) -> tuple[bool, Any]:
    """One step of a procedure. StopIteration cannot leave a thread."""
    try:
        return False, advance(value)
    except StopIteration as end:
        return True, end.value


async def _read_in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
