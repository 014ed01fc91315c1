"""The API's reference, made from the route table: OpenAPI and AsyncAPI."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aiohttp import web

from services.gateway import asyncapi, openapi
from services.gateway.describing import describe

JSON = dict[str, Any]


class Reference:
    """Describes the routes that it is given, and its own; once, when it is first asked."""

    def __init__(self, routes: Iterable[web.RouteDef]) -> None:
        self._described = [*routes, *self.routes()]
        self._made: dict[str, bytes] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/openapi.json", self.openapi),
            web.get("/api/asyncapi.json", self.asyncapi),
        ]

    @describe(answers={200: JSON}, public=True, tag="gateway")
    async def openapi(self, request: web.Request) -> web.Response:
        """Describe everything that is asked over HTTP: this document (OpenAPI 3.1)."""
        return self._answer(request, openapi.document)

    @describe(answers={200: JSON}, public=True, tag="gateway")
    async def asyncapi(self, request: web.Request) -> web.Response:
        """Describe the sockets, and the bus behind the gateway (AsyncAPI 3.1)."""
        return self._answer(request, asyncapi.document)

    def _answer(
        self, request: web.Request, document: Callable[[Iterable[web.RouteDef]], JSON]
    ) -> web.Response:
        path = request.path.rstrip("/")
        if path not in self._made:
            self._made[path] = msgspec.json.encode(document(self._described))
        return web.Response(body=self._made[path], content_type="application/json")
