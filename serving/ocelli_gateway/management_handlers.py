"""Handlers of the management API: what each operation of `management_operations` does with a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from starlette.responses import JSONResponse, Response

from ocelli_api.classifier import Classifier
from ocelli_gateway import fields
from ocelli_gateway import management_fields as own
from ocelli_gateway import management_operations as operations
from ocelli_gateway.body_fields import SentBody, parse_body
from ocelli_gateway.changes import CorrectionResult
from ocelli_gateway.committed_manifest import build_committed_manifest
from ocelli_gateway.corrections import describe_effect, find_made_revision
from ocelli_gateway.counted_uploads import receive_counted
from ocelli_gateway.event_stream import EVENT_STREAM_TYPE, EventStream, StreamTerms, write_events
from ocelli_gateway.example_changes import NewClassifier, Removal
from ocelli_gateway.example_sets import LEAST_UPLOAD_IMAGES, check_archive, describe_fault
from ocelli_gateway.gateway import Gateway
from ocelli_gateway.http_protocol import STOP_KEY
from ocelli_gateway.manifests import ExampleTerms
from ocelli_gateway.operation import Operation
from ocelli_gateway.operations import EXAMPLES_LIMITS
from ocelli_gateway.refusals import InputError, ParameterError, UnauthorizedError
from ocelli_gateway.routing import CallerRequest, Handler
from ocelli_gateway.uploads import check_declared_length, declared_length
from ocelli_storage.archives import MEGABYTE

BODY_BYTES_LIMIT = MEGABYTE
"""Of a JSON body: thousands of corrections or uploads fit."""


class ManagementHandlers:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.by_operation: Mapping[Operation, Handler[CallerRequest]] = {
            operations.GET_SESSION: self._session,
            operations.LIST_CARDS: self._list,
            operations.GET_DETAILS: self._details,
            operations.APPROVE: self._approve,
            operations.PIN: self._pin,
            operations.UNPIN: self._unpin,
            operations.SUSPEND: self._suspend,
            operations.RESUME: self._resume,
            operations.RETRAIN: self._retrain,
            operations.CORRECT: self._correct,
            operations.DRAW_ID: self._draw_id,
            operations.LIST_UPLOADS: self._list_uploads,
            operations.PUT_UPLOAD: self._put_upload,
            operations.CREATE: self._create,
            operations.ADD_EXAMPLES: self._add_examples,
            operations.REMOVE_EXAMPLES: self._remove_examples,
            operations.STREAM_EVENTS: self._stream_events,
        }

    async def _session(self, known: CallerRequest) -> Response:
        return JSONResponse(self._gateway.overview.describe_session(known.caller))

    async def _list(self, known: CallerRequest) -> Response:
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            cards = await self._gateway.overview.list_cards(known.caller)
        return JSONResponse({"classifiers": [card.to_json() for card in cards]})

    async def _details(self, known: CallerRequest) -> Response:
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            body = await self._gateway.overview.read_details(known.caller, known.read(fields.CLASSIFIER_ID))
        return JSONResponse(body)

    async def _approve(self, known: CallerRequest) -> Response:
        changes = self._gateway.changes
        return await self._change(
            known, lambda classifier_id, body: changes.approve(known.caller, classifier_id, body.read(own.NAMED_REVISION))
        )

    async def _pin(self, known: CallerRequest) -> Response:
        changes = self._gateway.changes
        return await self._change(
            known, lambda classifier_id, body: changes.pin(known.caller, classifier_id, body.read(own.NAMED_REVISION))
        )

    async def _unpin(self, known: CallerRequest) -> Response:
        return await self._change(known, lambda classifier_id, _: self._gateway.changes.unpin(known.caller, classifier_id))

    async def _suspend(self, known: CallerRequest) -> Response:
        changes = self._gateway.changes
        return await self._change(
            known, lambda classifier_id, _: changes.set_suspended(known.caller, classifier_id, suspend=True)
        )

    async def _resume(self, known: CallerRequest) -> Response:
        changes = self._gateway.changes
        return await self._change(
            known, lambda classifier_id, _: changes.set_suspended(known.caller, classifier_id, suspend=False)
        )

    async def _retrain(self, known: CallerRequest) -> Response:
        return await self._change(known, lambda classifier_id, _: self._gateway.changes.retrain(known.caller, classifier_id))

    async def _correct(self, known: CallerRequest) -> Response:
        classifier_id, body, changes = known.read(fields.CLASSIFIER_ID), await self._read_body(known), self._gateway.changes
        requested, dry_run = body.read(own.CORRECTIONS), body.read(own.DRY_RUN)
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            correct = changes.preview_corrections if dry_run else changes.correct
            result = await correct(known.caller, classifier_id, requested)
        return JSONResponse(_build_corrections(result, applied=not dry_run))

    async def _draw_id(self, known: CallerRequest) -> Response:
        name = (await self._read_body(known)).read(own.NAME)
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            classifier_id = await self._gateway.pending_uploads.draw_id(known.caller, name)
        return JSONResponse({"classifier_id": classifier_id})

    async def _list_uploads(self, known: CallerRequest) -> Response:
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            found = await self._gateway.pending_uploads.list_stored(known.caller, known.read(fields.CLASSIFIER_ID))
        return JSONResponse({"uploads": [{"sha256": item.sha256, "bytes": item.size_bytes} for item in found]})

    async def _put_upload(self, known: CallerRequest) -> Response:
        classifier_id, sha256 = known.read(fields.CLASSIFIER_ID), known.read(own.SHA256)
        if declared_length(known.request.headers) is None:
            raise ParameterError("The header Content-Length is missing; give the number of bytes of the zip.")
        check_declared_length(known.request.headers, EXAMPLES_LIMITS.file_bytes)
        uploads = self._gateway.pending_uploads
        stored = await uploads.check(known.caller, classifier_id, sha256)
        if stored is not None:
            return JSONResponse({"sha256": sha256, "bytes": stored.size_bytes})
        limit_bytes = EXAMPLES_LIMITS.file_bytes
        received = self._gateway.examples_space.receive_file(known.request, f"{sha256}.zip", limit_bytes, tenant=known.tenant)
        async with receive_counted(self._gateway.rates, known, received, limit_bytes) as file:
            if file.sha256 != sha256:
                raise InputError(
                    f"The body has the digest {file.sha256} and not {sha256}; it was damaged on the way; send it again."
                )
            (report,) = await self._gateway.example_zips.inspect([file.path], known.tenant, left=known.left)
            check_archive(file, report, least_images=LEAST_UPLOAD_IMAGES)
            stored = await uploads.keep(known.caller, classifier_id, file)
        skipped = [{"name": entry.name, "reason": describe_fault(entry)} for entry in report.skipped]
        return JSONResponse(
            {
                "sha256": stored.sha256,
                "bytes": stored.size_bytes,
                "images": report.usable,
                "skipped_count": report.skipped_count,
                "skipped": skipped,
            }
        )

    async def _create(self, known: CallerRequest) -> Response:
        body = await self._read_body(known)
        new = NewClassifier(
            classifier_id=body.read(own.NEW_ID),
            name=body.read(own.NAME),
            uploads=(*body.read(own.CLASS_UPLOADS), *body.read(own.NEGATIVE_UPLOADS)),
            terms=replace(_read_terms(known), suspend=body.read(own.SUSPEND)),
        )
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            created = await self._gateway.example_changes.create(known.caller, new)
            return JSONResponse(await self._gateway.overview.describe(created))

    async def _add_examples(self, known: CallerRequest) -> Response:
        changes = self._gateway.example_changes
        terms = _read_terms(known)
        return await self._change(
            known,
            lambda classifier_id, body: changes.add(
                known.caller, classifier_id, (*body.read(own.CLASS_UPLOADS), *body.read(own.NEGATIVE_UPLOADS)), terms
            ),
        )

    async def _remove_examples(self, known: CallerRequest) -> Response:
        changes = self._gateway.example_changes

        def remove(classifier_id: str, body: SentBody) -> Awaitable[Classifier]:
            removal = Removal(
                class_names=body.read(own.REMOVED_CLASSES),
                uploads=body.read(own.REMOVED_UPLOADS),
                negative_examples=body.read(own.ALL_NEGATIVES),
            )
            return changes.remove(known.caller, classifier_id, removal)

        return await self._change(known, remove)

    async def _stream_events(self, known: CallerRequest) -> Response:
        classifier_id, caller = known.read(own.ONE_CLASSIFIER_ID), known.caller
        if known.request.method == "HEAD":
            return Response(media_type=EVENT_STREAM_TYPE)
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._gateway.event_streams.slot(known.tenant, left=known.left))
            watch = self._gateway.overview.find_watch(caller)
            if watch is None:
                # The credentials were withdrawn after they were checked.
                raise UnauthorizedError
            subscription = held.enter_context(watch.events.subscribed(classifier_id))
            stop: Any = known.request.scope.get(STOP_KEY)
            terms = StreamTerms(
                expires_at=caller.expires_at,
                is_valid=lambda: self._gateway.admission.knows(caller),
                is_current=watch.classifiers.is_fresh,
                stops=tuple(event for event in (known.left, stop) if event is not None),
            )
            return EventStream(write_events(subscription, terms), held.pop_all())

    async def _change(self, known: CallerRequest, change: Callable[[str, SentBody], Awaitable[Classifier]]) -> Response:
        """Make a change of one classifier, and answer with its details."""
        classifier_id, body = known.read(fields.CLASSIFIER_ID), await self._read_body(known)
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            return JSONResponse(await self._gateway.overview.describe(await change(classifier_id, body)))

    async def _read_body(self, known: CallerRequest) -> SentBody:
        space = self._gateway.classify_space
        content = b"".join([chunk async for chunk in space.read_body(known.request, BODY_BYTES_LIMIT)])
        return parse_body(content, known.operation.body)


def _read_terms(known: CallerRequest) -> ExampleTerms:
    """What the headers say of the images."""
    return ExampleTerms(opt_out=known.read(fields.LEARNING_OPT_OUT), customer_id=known.read(fields.METADATA))


def _build_corrections(result: CorrectionResult, *, applied: bool) -> dict[str, Any]:
    spec = result.corrected.spec
    return {
        "corrections": [{"image": item.image, "class": item.class_name} for item in spec.corrections],
        "changed": result.corrected.changed,
        "effect": describe_effect(result.before, result.corrected),
        "manifest": build_committed_manifest(result.before, spec),
        "revision": find_made_revision(result.before, spec),
        "applied": applied,
    }
