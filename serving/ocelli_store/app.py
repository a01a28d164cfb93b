"""The store's HTTP interface, see `ocelli_storage.embedded_store`: requests, statuses, and error messages.

It must not know how objects are stored, who may do what, or how a token is reviewed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ocelli_http.body_pace import BodyPace, BodyStalledError, BodyTooSlowError
from ocelli_http.metrics import metrics_route
from ocelli_store.access import Caller, is_folder_of_layout, is_key, is_permitted
from ocelli_store.folder import KeyTakenError, ObjectFolder, VolumeFullError
from ocelli_store.metrics import Metrics
from ocelli_store.object_response import ObjectResponse
from ocelli_store.readiness import Readiness
from ocelli_store.tokens import TokenReviewer, TokenReviewError
from ocelli_store.usage import QuotaExceededError
from ocelli_store.write_slots import TooManyWritesError, WriteSlots

_log = logging.getLogger(__name__)

_WRITING = frozenset({"PUT", "DELETE"})
_LENGTH_DIGITS = 20
_PACE = BodyPace(stall_seconds=60.0, least_bytes_per_second=64 * 1024)


@dataclass(frozen=True, kw_only=True)
class Store:
    """The dependencies of the routes."""

    folder: ObjectFolder
    reviewer: TokenReviewer
    administrators: Set[str]
    """User names that may read and write everything: operator and gateway."""
    metrics: Metrics
    pace: BodyPace = _PACE
    """A slower body is refused: what has arrived counts against the quota."""
    writes: WriteSlots = field(default_factory=WriteSlots)


class _RefusalError(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def build_app(store: Store) -> Starlette:
    """The application."""

    def route(path: str, methods: list[str], answer: Callable[[Store, Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                response = await answer(store, request)
            except _RefusalError as refusal:
                headers = {"Retry-After": "1"} if refusal.status == 503 else None
                response = PlainTextResponse(str(refusal), refusal.status, headers)
            except ClientDisconnect:
                # The client is gone; this is for the metrics.
                response = PlainTextResponse("the upload was cut off", 400)
            store.metrics.requests.labels(request.method, str(response.status_code)).inc()
            return response

        return Route(path, endpoint, methods=methods)

    return Starlette(
        routes=[
            route("/objects/{key:path}", ["GET"], _read),
            route("/objects/{key:path}", ["PUT"], _write),
            route("/objects/{key:path}", ["DELETE"], _delete),
            route("/list", ["GET"], _list_objects),
            route("/folders", ["GET"], _list_folders),
        ]
    )


def build_internal_app(store: Store) -> Starlette:
    """Probes and metrics, without authentication."""
    readiness = Readiness(store.folder.check_volume)

    async def answer_alive(_request: Request) -> Response:
        return PlainTextResponse("ok")

    async def answer_ready(_request: Request) -> Response:
        problem = await readiness.problem()
        if problem is not None:
            return PlainTextResponse(f"the volume of the store cannot be written: {problem}", 503)
        return PlainTextResponse("ok")

    return Starlette(
        routes=[Route("/livez", answer_alive), Route("/readyz", answer_ready), metrics_route(store.metrics.registry)]
    )


async def _read(store: Store, request: Request) -> Response:
    key = await _permitted(store, request, request.path_params["key"])
    with _volume_errors("read", key):
        found = await asyncio.to_thread(store.folder.open, key)
    if found is None:
        raise _RefusalError(404, f"there is no object {key!r}")
    return ObjectResponse(*found)


async def _write(store: Store, request: Request) -> Response:
    caller = await _identify(store, request)
    key = _check_permitted(store, request, caller, request.path_params["key"])
    if is_folder_of_layout(key):
        raise _RefusalError(409, f"{key!r} is a folder of the layout; use another key")
    # Administrators have their own slots: what they write for a tenant does not wait for that tenant's writes.
    writer = None if caller.user_name in store.administrators else caller.user_name.rpartition(":")[0]
    try:
        with _volume_errors("written", key):
            async with store.writes.taken(writer):
                await store.folder.write(key, _receive(store, request), _declared_bytes(request))
    except TooManyWritesError as error:
        raise _RefusalError(503, str(error)) from error
    except QuotaExceededError as error:
        raise _RefusalError(413, str(error)) from error
    except VolumeFullError as error:
        raise _RefusalError(507, f"{error}; enlarge its PersistentVolumeClaim, or delete classifiers") from error
    except KeyTakenError as error:
        raise _RefusalError(409, str(error)) from error
    return Response(status_code=204)


def _declared_bytes(request: Request) -> int:
    """The Content-Length, which may begin with zeros; 0 if it is missing or not a number."""
    declared = request.headers.get("content-length", "")
    if not (declared.isascii() and declared.isdecimal()):
        return 0
    # `int` refuses thousands of digits, and the first 20 already exceed any volume.
    return int(declared.lstrip("0")[:_LENGTH_DIGITS] or "0")


async def _receive(store: Store, request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in store.pace.read(aiter(request.stream())):
            yield chunk
    except (BodyStalledError, BodyTooSlowError) as error:
        raise _RefusalError(408, str(error)) from error


async def _delete(store: Store, request: Request) -> Response:
    key = await _permitted(store, request, request.path_params["key"])
    with _volume_errors("written", key):
        await store.folder.delete(key)
    return Response(status_code=204)


async def _list_objects(store: Store, request: Request) -> Response:
    prefix = await _permitted(store, request, request.query_params.get("prefix", ""))
    with _volume_errors("read", prefix):
        objects = await asyncio.to_thread(store.folder.list_objects, prefix)
    return JSONResponse(
        {
            "objects": [
                {"key": item.key, "sizeBytes": item.size_bytes, "modifiedAt": item.modified_at.isoformat()} for item in objects
            ]
        }
    )


async def _list_folders(store: Store, request: Request) -> Response:
    prefix = await _permitted(store, request, request.query_params.get("prefix", ""))
    with _volume_errors("read", prefix):
        return JSONResponse({"folders": await asyncio.to_thread(store.folder.list_folders, prefix)})


async def _permitted(store: Store, request: Request, key: str) -> str:
    return _check_permitted(store, request, await _identify(store, request), key)


def _check_permitted(store: Store, request: Request, caller: Caller, key: str) -> str:
    """The key, if the caller may access it. A refusal does not reveal whether the object exists."""
    if not is_key(key):
        raise _RefusalError(
            400,
            f"{key!r} is not a key; use segments of at most 255 bytes between single slashes, and at most 1,024 bytes in total",
        )
    writing = request.method in _WRITING
    if not is_permitted(caller, store.administrators, key, writing=writing):
        raise _RefusalError(403, f"{caller.user_name} is not allowed to {'write' if writing else 'read'} {key!r}")
    return key


async def _identify(store: Store, request: Request) -> Caller:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _RefusalError(401, "the request has no ServiceAccount token; send Authorization: Bearer TOKEN")
    try:
        caller = await store.reviewer.identify(token.strip())
    except TokenReviewError as error:
        raise _RefusalError(503, str(error)) from error
    if caller is None:
        raise _RefusalError(401, "the token is not valid or has another audience; use a token with the audience of the store")
    return caller


@contextmanager
def _volume_errors(use: str, key: str) -> Iterator[None]:
    """Answer an error of the volume, which was being `use`: read or written."""
    try:
        yield
    except OSError as error:
        _log.exception("volume failed", extra={"use": use, "key": key})
        raise _RefusalError(500, f"the volume of the store cannot be {use}: {error.strerror}; see the store's log") from error
