"""Handlers of the management API: what each operation of `management_operations` does with a request."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

from ocelli_gateway import fields
from ocelli_gateway import management_operations as operations
from ocelli_gateway.body_fields import SentBody, parse_body
from ocelli_gateway.gateway import Gateway
from ocelli_gateway.operation import Operation
from ocelli_gateway.routing import CallerRequest, Handler

BODY_BYTES_LIMIT = 1024 * 1024
"""Of a JSON body: thousands of corrections fit."""


class ManagementHandlers:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.by_operation: Mapping[Operation, Handler[CallerRequest]] = {
            operations.GET_SESSION: self._session,
            operations.LIST_CARDS: self._list,
            operations.GET_DETAILS: self._details,
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

    async def _read_body(self, known: CallerRequest) -> SentBody:
        space = self._gateway.classify_space
        content = b"".join([chunk async for chunk in space.read_body(known.request, BODY_BYTES_LIMIT)])
        return parse_body(content, known.operation.body)
