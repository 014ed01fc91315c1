"""The API's reference: ``/api/openapi.json``, made once from the route table."""

from collections.abc import Iterable
from functools import cached_property

import msgspec
from aiohttp import web

from services.gateway import openapi
from services.gateway.describing import Content, describe


class Reference:
    """Describes the routes that it is given, and its own."""

    def __init__(self, routes: Iterable[web.RouteDef]) -> None:
        self._described = [*routes, *self.routes()]

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/openapi.json", self.openapi)]

    @describe(answers={200: Content("application/json")}, public=True, tag="gateway")
    async def openapi(self, _: web.Request) -> web.Response:
        """Describe everything that is asked over HTTP: this document."""
        return web.Response(body=self._openapi, content_type="application/json")

    @cached_property
    def _openapi(self) -> bytes:
        return msgspec.json.encode(openapi.document(self._described))
