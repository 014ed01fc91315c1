"""A browser, as far as a front end must get past one: pages of an origin, CORS, preflights.

A page of another origin may send what is simple; for anything else the browser asks
first.  It keeps an answer to itself unless the server names the page's origin, and of
its headers it shows those that the server exposes.  Sockets send the origin along.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

ORIGIN = "http://localhost:3000"
"""Where ``npm run dev`` serves a front end."""
BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a page sees of a line that was cut."""
_SIMPLE_METHODS = ("GET", "HEAD", "POST")
_SIMPLE_HEADERS = ("accept", "accept-language", "content-language")
_SIMPLE_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
_ALWAYS_SHOWN = ("cache-control", "content-language", "content-type", "expires", "last-modified")


class Browser:
    """``async with Browser() as browser``: what a page's ``fetch`` and ``WebSocket`` do."""

    def __init__(self, origin: str = ORIGIN) -> None:
        self.origin = origin
        self._allowed: set[tuple[str, str, tuple[str, ...]]] = set()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=45)
        self.http = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.close()

    @asynccontextmanager
    async def fetch(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request of the page, after what the browser asks on its own."""
        headers = dict(headers or {})
        typed = {**headers, "Content-Type": "application/json"} if "json" in options else headers
        await self._ask_first(method, url, typed)
        sent = {**headers, "Origin": self.origin}
        async with self.http.request(method, url, headers=sent, **options) as response:
            self._check_readable(response)
            yield response

    @asynccontextmanager
    async def socket(self, url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket of the page; a browser cannot add headers to it."""
        async with self.http.ws_connect(url, origin=self.origin, max_msg_size=0) as socket:
            yield socket

    async def call(self, method: str, url: str, **options: Any) -> tuple[int, Any]:
        """(status, decoded body) of one request."""
        async with self.fetch(method, url, **options) as response:
            body = await response.read()
            return response.status, await response.json() if body else None

    def shown(self, response: aiohttp.ClientResponse) -> dict[str, str]:
        """The headers that the page's script may read."""
        exposed = _listed(response.headers.get("Access-Control-Expose-Headers", ""))
        may = {*_ALWAYS_SHOWN, *exposed}
        return {name: value for name, value in response.headers.items() if name.lower() in may}

    async def _ask_first(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        """The preflight, unless the request is simple or was allowed before."""
        special = tuple(sorted(name.lower() for name in headers if not _is_simple(name, headers)))
        if method in _SIMPLE_METHODS and not special:
            return
        parts = urlsplit(url)
        question = (method, f"{parts.netloc}{parts.path}", special)
        if question in self._allowed:
            return
        headers = {"Origin": self.origin, "Access-Control-Request-Method": method}
        if special:
            headers["Access-Control-Request-Headers"] = ",".join(special)
        async with self.http.options(url, headers=headers) as answer:
            assert answer.ok, f"{answer.status}: the browser may not send {question}"
            self._check_readable(answer)
            methods = _listed(answer.headers.get("Access-Control-Allow-Methods", ""))
            allowed = _listed(answer.headers.get("Access-Control-Allow-Headers", ""))
        assert method in _SIMPLE_METHODS or method.lower() in methods, (question, methods)
        assert set(special) <= allowed, (question, allowed)
        self._allowed.add(question)

    def _check_readable(self, response: aiohttp.ClientResponse) -> None:
        allowed = response.headers.get("Access-Control-Allow-Origin")
        assert allowed in (self.origin, "*"), f"{response.url}: the page may not read this answer"


def _is_simple(name: str, headers: Mapping[str, str]) -> bool:
    if name.lower() == "content-type":
        return headers[name].partition(";")[0].strip().lower() in _SIMPLE_TYPES
    return name.lower() in _SIMPLE_HEADERS


def _listed(header: str) -> set[str]:
    return {word.strip().lower() for word in header.split(",")}
