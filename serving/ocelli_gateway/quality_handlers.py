"""Handlers of the operations about the quality of revisions: what each does with a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.responses import Response

from ocelli_gateway import fields, quality_fields
from ocelli_gateway import quality_operations as operations
from ocelli_gateway.gateway import Gateway
from ocelli_gateway.judged_quality import ImageFilter
from ocelli_gateway.management_fields import REVISION
from ocelli_gateway.operation import JSON_TYPE, Operation
from ocelli_gateway.quality import ImagesQuery
from ocelli_gateway.routing import CallerRequest, Handler


class QualityHandlers:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.by_operation: Mapping[Operation, Handler[CallerRequest]] = {
            operations.GET_EVALUATION: self._evaluation,
            operations.LIST_JUDGED_IMAGES: self._images,
            operations.GET_JUDGED_SCORES: self._scores,
            operations.GET_DATA_REPORT: self._data,
            operations.COMPARE_REVISIONS: self._compare,
            operations.GET_THUMBNAILS: self._thumbnails,
        }

    async def _evaluation(self, known: CallerRequest) -> Response:
        return await self._answer(known, self._gateway.quality.evaluation(known.caller, *_address(known)))

    async def _images(self, known: CallerRequest) -> Response:
        query = ImagesQuery(
            filter=ImageFilter(
                actual=known.read(quality_fields.ACTUAL),
                predicted=known.read(quality_fields.PREDICTED),
                wrong=bool(known.read(quality_fields.WRONG)),
                tested=known.read(quality_fields.TEST),
            ),
            order=known.read(quality_fields.SORT),
            limit=known.read(quality_fields.LIMIT),
            offset=known.read(quality_fields.OFFSET),
        )
        return await self._answer(known, self._gateway.quality.images(known.caller, *_address(known), query))

    async def _scores(self, known: CallerRequest) -> Response:
        return await self._answer(known, self._gateway.quality.scores(known.caller, *_address(known)))

    async def _data(self, known: CallerRequest) -> Response:
        return await self._answer(known, self._gateway.quality.data(known.caller, *_address(known)))

    async def _compare(self, known: CallerRequest) -> Response:
        other = known.read(quality_fields.OTHER_REVISION)
        return await self._answer(known, self._gateway.quality.compare(known.caller, *_address(known), other))

    async def _thumbnails(self, known: CallerRequest) -> Response:
        digests = known.read(quality_fields.IMAGES)
        return await self._answer(known, self._gateway.quality.thumbnails(known.caller, *_address(known), digests))

    async def _answer(self, known: CallerRequest, work: Awaitable[Mapping[str, Any]]) -> Response:
        async with self._gateway.requests.slot(known.tenant, left=known.left):
            document = await work
            return Response(await asyncio.to_thread(render, document), media_type=JSON_TYPE)


def render(document: Mapping[str, Any]) -> bytes:
    """A document as JSON, each entry of its lists in a step of its own: other threads must not wait for megabytes."""
    parts = (f"{json.dumps(name)}:{_render_value(value)}" for name, value in document.items())
    return f"{{{','.join(parts)}}}".encode()


def _render_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(_dumps(item) for item in value)}]"
    return _dumps(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _address(known: CallerRequest) -> tuple[str, str]:
    return known.read(fields.CLASSIFIER_ID), known.read(REVISION)
