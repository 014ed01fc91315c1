"""The API's reference, made from the route table: OpenAPI, AsyncAPI, and a page to read both."""

from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

import msgspec
from aiohttp import web

from services.gateway.http.describe import Content, describe
from services.gateway.http.requests import not_found
from services.gateway.reference import asyncapi, openapi

JSON = dict[str, Any]

PAGE = "reference.html"
_MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Everything on the page is its own; it asks nobody but this gateway.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Reference:
    """Describes the routes that it is given, and its own; once, when it is first asked."""

    def __init__(self, routes: Iterable[web.RouteDef]) -> None:
        self._described = [*routes, *self.routes()]
        self._made: dict[str, bytes] = {}
        self._files = {
            file.name: file.read_bytes()
            for file in (files("services.gateway.reference") / "page").iterdir()
            if file.name.endswith(tuple(_MEDIA_TYPES))
        }

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/openapi.json", self.openapi),
            web.get("/api/asyncapi.json", self.asyncapi),
            web.get("/docs", self.page),
            web.get("/docs/{name}", self.file),
        ]

    @describe(answers={200: JSON}, public=True, tag="gateway")
    async def openapi(self, request: web.Request) -> web.Response:
        """Describe everything that is asked over HTTP: this document (OpenAPI 3.1)."""
        return self._answer(request, openapi.document)

    @describe(answers={200: JSON}, public=True, tag="gateway")
    async def asyncapi(self, request: web.Request) -> web.Response:
        """Describe the sockets, and the bus behind the gateway (AsyncAPI 3.1)."""
        return self._answer(request, asyncapi.document)

    @describe(answers={200: Content("text/html")}, public=True, tag="gateway")
    async def page(self, _: web.Request) -> web.Response:
        """Show all of it to people."""
        return self.file_named(PAGE)

    @describe(
        answers={200: Content("text/javascript")},
        public=True,
        tag="gateway",
        names={"name": "A file of the page."},
    )
    async def file(self, request: web.Request) -> web.Response:
        """Send what the page is made of."""
        return self.file_named(request.match_info["name"])

    def file_named(self, name: str) -> web.Response:
        """A file of the page.

        Raises:
            NotFound: it has no such file.
        """
        if name not in self._files:
            raise not_found("file")
        media_type = _MEDIA_TYPES[name[name.rindex(".") :]]
        return web.Response(
            body=self._files[name], content_type=media_type, charset="utf-8", headers=_HEADERS
        )

    def _answer(
        self, request: web.Request, document: Callable[[Iterable[web.RouteDef]], JSON]
    ) -> web.Response:
        path = request.path.rstrip("/")
        if path not in self._made:
            self._made[path] = msgspec.json.encode(document(self._described))
        return web.Response(body=self._made[path], content_type="application/json")
