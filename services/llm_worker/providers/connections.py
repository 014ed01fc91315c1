"""The HTTP connections of the openai and ollama providers: one pool for all streams."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType

import aiohttp
import msgspec
from yarl import URL

from services.llm_worker.providers import faults
from services.llm_worker.providers.base import ProviderError
from services.llm_worker.providers.exchange import Exchange, ReadInto
from services.llm_worker.providers.outbound import Outbound

QUERY_TIMEOUT = 10.0
"""Seconds for a question that is answered at once (the models on offer)."""

CONNECTING = 10.0
"""Seconds for a connection to be made, a proxy and TLS included."""

EXPLAINING = 5.0
"""Seconds for the body of an answer without success."""

LONGEST_LIST = 4 * 1024 * 1024
"""Bytes of an answer that is no stream."""

_HEADERS = {"user-agent": "natterlog", "accept": "*/*", "accept-encoding": "identity"}
_LINE_END = re.compile(r"[\r\n\0]")


class Connections:
    """Opened at the first use, in the event loop that uses it; a worker's slots bound it."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._opened: aiohttp.TCPConnector | None = None

    def post(
        self, provider: str, url: str, headers: Mapping[str, str], body: Mapping[str, object]
    ) -> "Answer":
        return Answer(self, provider, url, headers, body)

    async def get(self, provider: str, url: str, headers: Mapping[str, str]) -> bytes:
        """The body at ``url``.

        Raises:
            ProviderError: there was none, or it has no end.
        """
        try:
            async with asyncio.timeout(QUERY_TIMEOUT):
                exchange = await self.request("GET", url, headers)
                try:
                    await check_success(provider, url, exchange)
                    return await whole(provider, exchange.read_into)
                finally:
                    exchange.leave()
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(provider, error) from error

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Exchange:
        """The answer to a request, as far as its head, by the way that the settings choose.

        Raises:
            aiohttp.ClientError, OSError: there is none.
        """
        try:
            return await self._exchange(method, url, headers, body)
        except (aiohttp.ServerDisconnectedError, ConnectionError):
            if method != "GET":
                raise
            # a connection that was kept may have been closed just now
            return await self._exchange(method, url, headers, body)

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Exchange:
        request = self._addressed(method, url, headers)
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECTING)
        try:
            connection = await self._connector().connect(request, [], timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {url}") from error
        exchange = Exchange(connection)
        try:
            await exchange.send(_head(request, len(body)) + body)
        except BaseException:
            exchange.leave()
            raise
        return exchange

    def _addressed(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> aiohttp.ClientRequest:
        """What aiohttp must know to make the connection, or to find one."""
        proxy = self._outbound.proxy(url)
        is_secure = url.startswith("https:") or (proxy and proxy.url.startswith("https:"))
        fields = {**headers, **(proxy.request_headers if proxy else {})}
        return aiohttp.ClientRequest(
            method,
            URL(url),
            headers=_HEADERS | {name.lower(): value for name, value in fields.items()},
            loop=asyncio.get_running_loop(),
            ssl=self._outbound.tls if is_secure else True,
            proxy=URL(proxy.url) if proxy else None,
            proxy_headers=proxy.tunnel_headers if proxy else None,
        )

    def read_certificates(self) -> None:
        """Read them now: it takes a moment.

        Raises:
            OSError: they cannot be read.
        """
        _ = self._outbound.tls

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    def _connector(self) -> aiohttp.TCPConnector:
        if self._opened is None:
            self._opened = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        return self._opened


def _head(request: aiohttp.ClientRequest, length: int) -> bytes:
    """The head of a request; one to a plain server goes to its proxy with the whole address."""
    secure = request.is_ssl()
    target = str(request.url) if request.proxy and not secure else request.url.raw_path_qs
    fields = dict(request.headers)
    if request.method != "GET":
        fields["Content-Length"] = str(length)
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items())]
    if any(map(_LINE_END.search, lines)):
        raise ValueError("A header of the request has more than one line.")
    return "\r\n".join([*lines, "", ""]).encode()


class Answer:
    """The answer to one POST; leaving it early closes its connection at once.

    Raises:
        ProviderError: no answer, another status than 200, or the connection broke.
    """

    def __init__(
        self,
        connections: Connections,
        provider: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, object],
    ) -> None:
        self._connections = connections
        self._provider = provider
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json"}
        self._sent = frozenset(body)
        self._body = msgspec.json.encode(body)

    async def __aenter__(self) -> ReadInto:
        try:
            self._exchange = await self._connections.request(
                "POST", self._url, self._headers, self._body
            )
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(self._provider, error) from error
        try:
            await check_success(self._provider, self._url, self._exchange)
        except BaseException as error:
            self._exchange.leave()
            if isinstance(error, ProviderError):
                error.sent = self._sent
            raise
        return self._exchange.read_into

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exchange.leave()
        if isinstance(error, aiohttp.ClientError | OSError):
            raise faults.broken_off(self._provider) from error


async def check_success(provider: str, url: str, exchange: Exchange) -> None:
    """Let an answer of success pass.

    Raises:
        ProviderError: it is another, and this is what it says.
    """
    if exchange.status // 100 != 2:
        body = await beginning(exchange.read_into)
        raise faults.from_status(provider, exchange.status, exchange.headers, body, url)


async def whole(provider: str, read_into: ReadInto) -> bytes:
    """All of an answer that is no stream.

    Raises:
        ProviderError: nobody needs one of that length.
    """
    body = bytearray()

    def take(data: bytes) -> bool:
        body.extend(data)
        return len(body) > LONGEST_LIST

    await read_into(take)
    if len(body) > LONGEST_LIST:
        raise faults.garbled(provider)
    return bytes(body)


async def beginning(read_into: ReadInto) -> bytes:
    """What an answer without success says, as far as it comes soon and anybody would read it."""
    body = bytearray()

    def take(data: bytes) -> bool:
        body.extend(data)
        return len(body) >= faults.LONGEST_BODY

    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(EXPLAINING):
            await read_into(take)
    return bytes(body[: faults.LONGEST_BODY])


def unreachable(provider: str, error: BaseException) -> ProviderError:
    """The fault for an error of aiohttp's, or of a client that is built upon it."""
    for cause in _causes(error):
        match cause:
            case aiohttp.ClientHttpProxyError():
                transient = cause.status == 429 or cause.status >= 500
                return faults.unreachable(
                    provider, f"the proxy answered {cause.status}", transient=transient
                )
            case aiohttp.ClientConnectorCertificateError():
                return faults.unreachable(
                    provider,
                    f"its certificate is not trusted ({cause.certificate_error}); SSL_CERT_FILE "
                    "names the certificates that are",
                    transient=False,
                )
            case aiohttp.ClientProxyConnectionError():
                why = f"no connection to the proxy {_address(cause)} ({_reason(cause)}). "
                return faults.unreachable(
                    provider, f"{why}Does it run there, and are the proxy settings right?"
                )
            case aiohttp.ClientConnectorError() if not isinstance(cause, aiohttp.ClientSSLError):
                return faults.unconnected(provider, _address(cause), _reason(cause))
            case aiohttp.ServerDisconnectedError():  # it was reached, and hung up
                return faults.broken_off(provider)
            case _:
                pass
    of_network = (c for c in _causes(error) if isinstance(c, aiohttp.ClientError | OSError))
    cause = next(of_network, error)
    return faults.unreachable(provider, str(cause) or type(cause).__name__)


def _address(error: aiohttp.ClientConnectorError) -> str:
    return f"{error.host}:{error.port}"


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Why there was no connection, without the address and the words of Python's libraries."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "this name cannot be resolved"
    number = error.os_error.errno
    if number is not None and number > 0:
        return os.strerror(number).lower()
    return error.os_error.strerror or "it cannot be made"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
