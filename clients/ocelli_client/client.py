"""The client that blocks. Each method is one call or procedure; `AsyncOcelli` has the same ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from ocelli_client import api
from ocelli_client.api import LATEST, SERVED, ExportFormat, Removal
from ocelli_client.calls import Answer, Call, Pause, Procedure, Step, check
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


class Ocelli:
    """A connection to a gateway: `with Ocelli("https://vision.example.org", api_key="...") as ocelli: ocelli.list()`."""

    def __init__(self, url: str, **credentials: Any) -> None:
        """`credentials` and limits are the fields of `Connection`."""
        self.connection = Connection(url=url, **credentials)
        self._http = self.connection.open(httpx.Client)

    def __enter__(self) -> Ocelli:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send one request and read its answer."""
        options = call.build_options()
        if call.content is not None:
            options["content"] = call.content.read()
        try:
            with self._http.stream(call.method, call.path, **options) as response:
                answer = Answer(response=response, limit_bytes=call.limit_bytes, deadline=self.connection.deadline)
                for piece in response.iter_bytes():
                    answer.add(piece)
        except httpx.RequestError as error:
            raise NotReachableError(self.connection.describe_failure(error)) from error
        return call.read(answer)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        return self.send(step)

    def run(self, procedure: Procedure[T]) -> T:
        """Carry out the steps of a procedure."""
        try:
            step = next(procedure)
            while True:
                try:
                    result = self._take(step)
                except OcelliError as error:
                    step = procedure.throw(error)
                else:
                    step = procedure.send(result)
        except StopIteration as end:
            value: T = end.value
            return value

    def events(self, classifier_id: str | None = None) -> Iterator[Event]:
        """Changes as they happen, until the gateway ends the stream; then list and follow again."""
        reader = EventReader()
        try:
            with self._http.stream(**build_event_request(classifier_id)) as response:
                if not response.is_success:
                    response.read()
                check(response)
                for line in response.iter_lines():
                    yield from reader.read_line(line)
        except httpx.RequestError as error:
            raise NotReachableError(self.connection.describe_failure(error)) from error

    def session(self) -> Document:
        """Who asks, the version of the gateway, and its limits."""
        return self.send(api.get_session())

    def list(self) -> tuple[Card, ...]:
        """All classifiers, oldest first."""
        return self.send(api.list_classifiers())

    def get(self, classifier_id: str) -> Details:
        """All that is known of a classifier."""
        return self.send(api.get_classifier(classifier_id))

    def resolve(self, name: str) -> Card:
        """The one classifier of this id or name."""
        return self.run(resolve(name))

    def wait(self, classifier_id: str, options: Wait | None = None) -> Details:
        """The classifier once it is ready or failed, waits for approval, or is suspended."""
        return self.run(wait(classifier_id, options or Wait()))

    def classify(
        self, classifier_ids: str | Sequence[str], files: Sequence[str | Path], threshold: float | None = None
    ) -> Classified:
        """The predictions of all images, in their order; a zip counts as its images."""
        return self.run(classify(Question.build(classifier_ids, threshold), [Path(file) for file in files]))

    def create(self, name: str, examples: Examples | ClassPaths, options: Creation | None = None) -> Details:
        """Create a classifier. An upload is resumed after a lost connection."""
        return self.run(create(name, build_given_examples(examples), options or Creation()))

    def add(self, classifier_id: str, examples: Examples | ClassPaths, on_transfer: OnTransfer | None = None) -> Details:
        """Add examples, which retrains."""
        return self.run(add(classifier_id, build_given_examples(examples), on_transfer))

    def remove(self, classifier_id: str, removal: Removal) -> Details:
        """Remove classes, uploads or negative examples, which retrains."""
        return self.send(api.change_classifier(classifier_id, "remove", removal.to_json()))

    def correct(self, classifier_id: str, corrections: Sequence[Correction], *, dry_run: bool = False) -> Document:
        """Relabel or drop single images, which retrains; a class of None removes the correction."""
        return self.send(api.correct_images(classifier_id, corrections, dry_run=dry_run))

    def approve(self, classifier_id: str, revision: str) -> Details:
        """Approve a revision that waits for approval, so that it serves."""
        return self.send(api.change_classifier(classifier_id, "approve", {"revision": revision}))

    def pin(self, classifier_id: str, revision: str) -> Details:
        """Serve this revision, also after further trainings."""
        return self.send(api.change_classifier(classifier_id, "pin", {"revision": revision}))

    def unpin(self, classifier_id: str) -> Details:
        """Serve the newest revision again."""
        return self.send(api.change_classifier(classifier_id, "unpin"))

    def suspend(self, classifier_id: str) -> Details:
        """Only check the images, and train nothing."""
        return self.send(api.change_classifier(classifier_id, "suspend"))

    def resume(self, classifier_id: str) -> Details:
        """Train again."""
        return self.send(api.change_classifier(classifier_id, "resume"))

    def retrain(self, classifier_id: str) -> Details:
        """Train again from the same images."""
        return self.send(api.change_classifier(classifier_id, "retrain"))

    def delete(self, classifier_id: str) -> None:
        """Delete a classifier with its images and artifacts."""
        self.send(api.delete_classifier(classifier_id))

    def evaluation(self, classifier_id: str, revision: str = SERVED) -> Document:
        """How well a revision recognises images that it has not learned from."""
        return self.send(api.get_quality(classifier_id, revision, "evaluation"))

    def images(self, classifier_id: str, revision: str = SERVED, **query: Any) -> Document:
        """The judged images: `actual`, `predicted`, `wrong`, `test`, `sort`, `limit` and `offset` select."""
        return self.send(api.get_quality(classifier_id, revision, "images", query))

    def scores(self, classifier_id: str, revision: str = SERVED) -> Document:
        """All judged scores."""
        return self.send(api.get_quality(classifier_id, revision, "scores"))

    def data(self, classifier_id: str, revision: str = LATEST) -> Document:
        """The report on the images."""
        return self.send(api.get_quality(classifier_id, revision, "data"))

    def compare(self, classifier_id: str, revision: str, other: str) -> Document:
        """What `revision` does better and worse than `other`, image by image."""
        return self.send(api.get_quality(classifier_id, revision, f"compare/{other}"))

    def thumbnails(self, classifier_id: str, revision: str, images: Sequence[str]) -> Mapping[str, str]:
        """JPEGs in base64, by the SHA-256 of the image; at most 60."""
        return self.send(api.get_thumbnails(classifier_id, revision, images))

    def report(self, classifier_id: str) -> bytes:
        """The newest report on the images, as HTML."""
        return self.send(api.get_report(classifier_id))

    def export(self, classifier_id: str, export_format: ExportFormat) -> bytes:
        """The served model, or its bill of materials."""
        return self.send(api.get_export(classifier_id, export_format))
