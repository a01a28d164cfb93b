"""The store's HTTP interface, see `ocelli_storage.embedded_store`: requests, statuses, and the sentences of refusals.

It must not know where objects lie, who may do what, or how a token is reviewed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ocelli_http.body_pace import BodyPace, BodyStalledError, BodyTooSlowError
from ocelli_store.access import Caller, is_key, is_permitted, is_place_of_folder
from ocelli_store.folder import KeyTakenError, ObjectFolder, VolumeFullError
from ocelli_store.metrics import CONTENT_TYPE, Metrics
from ocelli_store.object_response import ObjectResponse
from ocelli_store.readiness import Readiness
from ocelli_store.tokens import TokenReviewer, TokenReviewError
from ocelli_store.usage import QuotaExceededError
from ocelli_store.write_slots import TooManyWritesError, WriteSlots

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_WRITING = frozenset({"PUT", "DELETE"})
_LENGTH_DIGITS = 20
_PACE = BodyPace(stall_seconds=60.0, least_bytes_per_second=64 * 1024)


@dataclass(frozen=True, kw_only=True)
class Store:
    """What the answers need."""

    folder: ObjectFolder
    reviewer: TokenReviewer
    administrators: Set[str]
    """User names that may do everything: operator and gateway."""
    metrics: Metrics
    pace: BodyPace = _PACE
    """A body that comes more slowly is given up: what is on its way counts for a quota."""
    writes: WriteSlots = field(default_factory=WriteSlots)


class _RefusalError(Exception):
    """An answer that is no success."""

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
                # Nobody is there to read it.
                response = PlainTextResponse("the upload broke off", 400)
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
    """Probes and metrics, which ask for no token."""
    return Starlette(
        routes=[
            Route("/livez", partial(_answer_alive, store)),
            Route("/readyz", partial(_answer_ready, Readiness(store.folder.check_volume))),
            Route("/metrics", partial(_answer_metrics, store)),
        ]
    )


async def _read(store: Store, request: Request) -> Response:
    key = await _permitted(store, request, request.path_params["key"])
    try:
        found = await asyncio.to_thread(store.folder.open, key)
    except OSError as error:
        _log.exception("a read failed", extra={"key": key})
        raise _RefusalError(500, f"the volume of the store cannot be read: {error.strerror}") from error
    if found is None:
        raise _RefusalError(404, f"nothing lies under {key!r}")
    return ObjectResponse(*found)


async def _write(store: Store, request: Request) -> Response:
    caller = await _identify(store, request)
    key = _check_permitted(store, request, caller, request.path_params["key"])
    if is_place_of_folder(key):
        raise _RefusalError(409, f"{key!r} is a prefix of other keys")
    # Whatever an administrator writes for a tenant waits for no write of that tenant's.
    writer = None if caller.user_name in store.administrators else caller.user_name.rpartition(":")[0]
    try:
        async with store.writes.taken(writer):
            await store.folder.write(key, _receive(store, request), _declared_bytes(request))
    except TooManyWritesError as error:
        raise _RefusalError(503, str(error)) from error
    except QuotaExceededError as error:
        raise _RefusalError(413, str(error)) from error
    except VolumeFullError as error:
        raise _RefusalError(507, f"{error}; enlarge its claim, or delete classifiers") from error
    except KeyTakenError as error:
        raise _RefusalError(409, str(error)) from error
    except OSError as error:
        _log.exception("a write failed", extra={"key": key})
        raise _RefusalError(500, f"the volume of the store cannot be written: {error.strerror}") from error
    return Response(status_code=204)


def _declared_bytes(request: Request) -> int:
    """What `Content-Length` says: digits, any number of zeros before them; 0 where it is missing or is something else."""
    declared = request.headers.get("content-length", "")
    if not (declared.isascii() and declared.isdecimal()):
        return 0
    # `int` refuses thousands of digits. The first ones already say more than any volume has.
    return int(declared.lstrip("0")[:_LENGTH_DIGITS] or "0")


async def _receive(store: Store, request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in store.pace.read(aiter(request.stream())):
            yield chunk
    except (BodyStalledError, BodyTooSlowError) as error:
        raise _RefusalError(408, str(error)) from error


async def _delete(store: Store, request: Request) -> Response:
    key = await _permitted(store, request, request.path_params["key"])
    try:
        await store.folder.delete(key)
    except OSError as error:
        _log.exception("a deletion failed", extra={"key": key})
        raise _RefusalError(500, f"the volume of the store cannot be written: {error.strerror}") from error
    return Response(status_code=204)


async def _list_objects(store: Store, request: Request) -> Response:
    prefix = await _permitted(store, request, request.query_params.get("prefix", ""))
    objects = await _list(store.folder.list_objects, prefix)
    return JSONResponse(
        {
            "objects": [
                {"key": item.key, "sizeBytes": item.size_bytes, "modifiedAt": item.modified_at.isoformat()} for item in objects
            ]
        }
    )


async def _list_folders(store: Store, request: Request) -> Response:
    prefix = await _permitted(store, request, request.query_params.get("prefix", ""))
    return JSONResponse({"folders": await _list(store.folder.list_folders, prefix)})


async def _answer_alive(_store: Store, _request: Request) -> Response:
    return PlainTextResponse("ok")


async def _answer_ready(readiness: Readiness, _request: Request) -> Response:
    """Ready: the volume answers, be it full."""
    problem = await readiness.problem()
    if problem is not None:
        return PlainTextResponse(f"the volume of the store cannot be written: {problem}", 503)
    return PlainTextResponse("ok")


async def _answer_metrics(store: Store, _request: Request) -> Response:
    return Response(await asyncio.to_thread(store.metrics.render), media_type=CONTENT_TYPE)


async def _permitted(store: Store, request: Request, key: str) -> str:
    return _check_permitted(store, request, await _identify(store, request), key)


def _check_permitted(store: Store, request: Request, caller: Caller, key: str) -> str:
    """The key, if its caller may do what is asked with it. A refusal says nothing of what lies there."""
    if not is_key(key):
        raise _RefusalError(
            400, f"{key!r} is not a key: give segments of 255 bytes at most between single slashes, and 1,024 bytes in all"
        )
    writing = request.method in _WRITING
    if not is_permitted(caller, store.administrators, key, writing=writing):
        raise _RefusalError(403, f"{caller.user_name} may not {'write' if writing else 'read'} {key!r}")
    return key


async def _identify(store: Store, request: Request) -> Caller:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _RefusalError(401, "show a ServiceAccount token: Authorization: Bearer TOKEN")
    try:
        caller = await store.reviewer.identify(token.strip())
    except TokenReviewError as error:
        raise _RefusalError(503, str(error)) from error
    if caller is None:
        raise _RefusalError(401, "the API server does not know the token, or it was made for another audience")
    return caller


async def _list(work: Callable[[str], _T], prefix: str) -> _T:
    try:
        return await asyncio.to_thread(work, prefix)
    except OSError as error:
        _log.exception("a listing failed", extra={"prefix": prefix})
        raise _RefusalError(500, f"the volume of the store cannot be read: {error.strerror}") from error
