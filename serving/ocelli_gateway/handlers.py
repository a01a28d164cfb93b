"""Handlers: what each operation of `operations` does with a request, and the response that it returns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ocelli_api.export import ExportFormat
from ocelli_gateway import fields, operations
from ocelli_gateway.classify_plan import parse_classify_request
from ocelli_gateway.counted_uploads import receive_counted
from ocelli_gateway.example_sets import check_archives, parse_example_sets
from ocelli_gateway.export_files import ExportFile, open_bill_of_materials, open_export, open_report
from ocelli_gateway.gateway import Gateway
from ocelli_gateway.http_protocol import CALLER_KEY
from ocelli_gateway.manifests import ExampleTerms, check_create
from ocelli_gateway.operation import FILE_TYPE, FormType, Operation
from ocelli_gateway.operations import CLASSIFY_LIMITS, EXAMPLES_LIMITS
from ocelli_gateway.refusals import InputError, ParameterError
from ocelli_gateway.routing import CallerRequest, Handler, OpenRequest, T
from ocelli_gateway.tokens import TokenSubject
from ocelli_gateway.uploads import Form, check_declared_length, has_body, media_type

TOKEN_FORM_BYTES_LIMIT = 16 * 1024
"""The sender of a token request has not shown credentials yet: not much more than a key is read."""

logger = logging.getLogger(__name__)


class Handlers:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.by_operation: Mapping[Operation, Handler[CallerRequest]] = {
            operations.CREATE_CLASSIFIER: self._create,
            operations.LIST_CLASSIFIERS: self._list,
            operations.GET_CLASSIFIER: self._details,
            operations.UPDATE_CLASSIFIER: self._retrain,
            operations.DELETE_CLASSIFIER: self._delete,
            operations.GET_CORE_ML_MODEL: self._core_ml_model,
            operations.GET_ONNX_MODEL: self._onnx_model,
            operations.GET_BILL_OF_MATERIALS: self._bill_of_materials,
            operations.GET_REPORT: self._report,
            operations.CLASSIFY: self._classify,
            operations.CLASSIFY_URL: self._classify,
            operations.DELETE_USER_DATA: self._delete_user_data,
        }
        self.open: Mapping[Operation, Handler[OpenRequest]] = {operations.CREATE_TOKEN: self._create_token}

    async def _create(self, v3: CallerRequest) -> Response:
        check_declared_length(v3.request.headers, EXAMPLES_LIMITS.body_bytes)
        await self._gateway.classifiers.check_create(v3.caller)
        async with self._receive_examples(v3) as form:
            name = v3.with_form(form).read(fields.NAME)
            sets = parse_example_sets(form)
            check_create(sets, form.ignored)
            await check_archives(sets, v3.tenant, self._gateway.example_zips, left=v3.left)
            details = await self._gateway.classifiers.create(v3.caller, name, sets, _read_terms(v3.with_form(form)))
        return JSONResponse(details.to_json())

    async def _list(self, v3: CallerRequest) -> Response:
        classifiers = self._gateway.classifiers
        list_all = classifiers.list_verbose if v3.read(fields.VERBOSE) else classifiers.list_brief
        async with self._gateway.requests.slot(v3.tenant, left=v3.left):
            found = await list_all(v3.caller)
        return JSONResponse({"classifiers": [item.to_json() for item in found]})

    async def _details(self, v3: CallerRequest) -> Response:
        async with self._gateway.requests.slot(v3.tenant, left=v3.left):
            details = await self._gateway.classifiers.details(v3.caller, v3.read(fields.CLASSIFIER_ID))
        return JSONResponse(details.to_json())

    async def _retrain(self, v3: CallerRequest) -> Response:
        classifier_id = v3.read(fields.CLASSIFIER_ID)
        suspend = v3.read(fields.SUSPEND)
        if suspend is not None and not has_body(v3.request.headers):
            details = await self._gateway.classifiers.set_suspended(v3.caller, classifier_id, suspend=suspend)
            return JSONResponse(details.to_json())
        check_declared_length(v3.request.headers, EXAMPLES_LIMITS.body_bytes)
        await self._gateway.classifiers.check_retrain(v3.caller, classifier_id)
        async with self._receive_examples(v3) as form:
            sets, terms = parse_example_sets(form), _read_terms(v3.with_form(form))
            if not sets and terms.suspend is not None:
                details = await self._gateway.classifiers.set_suspended(v3.caller, classifier_id, suspend=terms.suspend)
                return JSONResponse(details.to_json())
            await check_archives(sets, v3.tenant, self._gateway.example_zips, left=v3.left)
            details = await self._gateway.classifiers.retrain(v3.caller, classifier_id, sets, terms)
        return JSONResponse(details.to_json())

    async def _delete(self, v3: CallerRequest) -> Response:
        async with self._gateway.requests.slot(v3.tenant, left=v3.left):
            await self._gateway.classifiers.delete(v3.caller, v3.read(fields.CLASSIFIER_ID))
        return JSONResponse({})

    async def _core_ml_model(self, v3: CallerRequest) -> Response:
        return await self._download(v3, ExportFormat.CORE_ML)

    async def _onnx_model(self, v3: CallerRequest) -> Response:
        return await self._download(v3, ExportFormat.ONNX)

    async def _bill_of_materials(self, v3: CallerRequest) -> Response:
        async def find(classifier_id: str) -> ExportFile:
            key = await self._gateway.stored_files.find_bill_of_materials(v3.caller, classifier_id)
            return await open_bill_of_materials(self._gateway.objects, classifier_id, key)

        return await self._send_file(v3, find, ".cdx.json")

    async def _report(self, v3: CallerRequest) -> Response:
        async def find(classifier_id: str) -> ExportFile:
            keys = await self._gateway.stored_files.find_reports(v3.caller, classifier_id)
            return await open_report(self._gateway.objects, classifier_id, keys)

        # A download, like the others: Pods of tenants write reports, and a page of this origin could act for its reader.
        return await self._send_file(v3, find, ".html")

    async def _delete_user_data(self, v3: CallerRequest) -> Response:
        async with self._gateway.requests.slot(v3.tenant, left=v3.left):
            await self._gateway.user_data.delete(v3.caller, v3.read(fields.CUSTOMER_ID))
        return JSONResponse({}, status_code=202)

    async def _classify(self, v3: CallerRequest) -> Response:
        async with self._receive_classify_form(v3) as form:
            request = parse_classify_request(form.files, v3.with_form(form).with_older().read)
            return JSONResponse(await _unless_left(v3, self._gateway.classification.classify(v3.caller, request)))

    async def _create_token(self, sent: OpenRequest) -> Response:
        request, admission = sent.request, self._gateway.admission
        if media_type(request.headers) != FormType.URLENCODED:
            raise ParameterError(f"The body must be {FormType.URLENCODED}.")
        sent = sent.with_form(await self._gateway.classify_space.read_urlencoded(request, TOKEN_FORM_BYTES_LIMIT))
        grant_type = sent.read(fields.GRANT_TYPE)
        if grant_type == fields.REFRESH_TOKEN_GRANT:
            caller = await admission.admit_refresh_token(request, sent.read(fields.REFRESH_TOKEN))
        elif grant_type == fields.BASIC_GRANT:
            caller = await admission.admit_basic(request)
        else:
            api_key = sent.read(fields.API_KEY)
            if not api_key:
                raise ParameterError('The field "apikey" is missing or blank; give the API key.')
            caller = await admission.admit_api_key(request, api_key)
        return JSONResponse(self._gateway.tokens.issue(TokenSubject(user=caller.user, fingerprint=caller.fingerprint)))

    async def _download(self, v3: CallerRequest, export: ExportFormat) -> Response:
        async def find(classifier_id: str) -> ExportFile:
            stored = await self._gateway.stored_files.find_export(v3.caller, classifier_id, export)
            return await open_export(self._gateway.objects, stored)

        return await self._send_file(v3, find, export.suffix)

    async def _send_file(self, v3: CallerRequest, find: Callable[[str], Awaitable[ExportFile]], suffix: str) -> Response:
        classifier_id = v3.read(fields.CLASSIFIER_ID)
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._gateway.downloads.slot(v3.tenant, left=v3.left))
            file = await find(classifier_id)
            headers = {
                "Content-Disposition": f'attachment; filename="{classifier_id}{suffix}"',
                "Content-Length": str(file.size_bytes),
            }
            longest_seconds = self._gateway.examples_space.pace.longest_seconds(file.size_bytes)
            return _Download(file.chunks, headers, held.pop_all(), longest_seconds)

    @asynccontextmanager
    async def _receive_examples(self, v3: CallerRequest) -> AsyncIterator[Form]:
        if _is_empty_form(v3.request):
            yield Form()
            return
        received = self._gateway.examples_space.receive_form(v3.request, v3.operation, EXAMPLES_LIMITS, tenant=v3.tenant)
        async with receive_counted(self._gateway.rates, v3, received, EXAMPLES_LIMITS.body_bytes) as form:
            yield form

    @asynccontextmanager
    async def _receive_classify_form(self, v3: CallerRequest) -> AsyncIterator[Form]:
        request, space = v3.request, self._gateway.classify_space
        kind = media_type(request.headers)
        if _is_empty_form(request):
            yield Form()
            return
        if kind.startswith("multipart/") or (has_body(request.headers) and kind != FormType.URLENCODED):
            async with space.receive_form(request, v3.operation, CLASSIFY_LIMITS, tenant=v3.tenant) as form:
                yield form
            return
        async with space.slots.slot(v3.tenant, left=v3.left):
            yield await space.read_urlencoded(request) if kind == FormType.URLENCODED else Form()


class _Download(StreamingResponse):
    """A file. What it holds is released when the last byte is sent, or the client has left."""

    def __init__(
        self, chunks: AsyncIterator[bytes], headers: Mapping[str, str], held: AsyncExitStack, longest_seconds: float
    ) -> None:
        super().__init__(chunks, media_type=FILE_TYPE, headers=headers)
        self._held = held
        self._longest_seconds = longest_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            try:
                async with asyncio.timeout(self._longest_seconds) as limit:
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                if not limit.expired():
                    # The object store did not answer in time.
                    raise
                # The answer is incomplete, so the server closes the connection.
                logger.warning("download too slow", extra={"seconds": self._longest_seconds, "user": scope.get(CALLER_KEY)})


async def _unless_left(v3: CallerRequest, work: Coroutine[Any, Any, T]) -> T:
    """The result of work that is cancelled when its client leaves. Raises InputError in that case."""
    if v3.left is None:
        return await work
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(v3.left.wait())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise InputError("The connection was closed before there was an answer; send the request again and stay connected.")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def _is_empty_form(request: Request) -> bool:
    """Some clients send no body at all for a form without parts."""
    return media_type(request.headers) == FormType.MULTIPART and not has_body(request.headers)


def _read_terms(v3: CallerRequest) -> ExampleTerms:
    return ExampleTerms(
        opt_out=v3.read(fields.LEARNING_OPT_OUT),
        customer_id=v3.read(fields.METADATA),
        suspend=v3.read(fields.SUSPEND),
    )
