"""The HTTP connections of the openai and ollama providers: one pool for all streams."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from services.llm_worker.providers import faults
from services.llm_worker.providers.base import ProviderError
from services.llm_worker.providers.outbound import Outbound

QUERY_TIMEOUT = 10.0
"""Seconds for a question that is answered at once (the models on offer)."""

CONNECTING = 10.0
"""Seconds for a connection to be made, a proxy and TLS included."""

EXPLAINING = 5.0
"""Seconds for the body of an answer without success."""

LONGEST_LIST = 4 * 1024 * 1024
"""Bytes of an answer that is no stream."""

LINGER = 1.0
"""Seconds for the last bytes of an answer after which nothing more is wanted."""

_HEADERS = {"User-Agent": "natterlog", "Accept-Encoding": "identity"}


Read = Callable[[], Awaitable[bytes]]
"""Reads whatever has come, or waits for it; nothing means the end."""


class Connections:
    """Opened at the first use, in the event loop that uses it; a worker's slots bound it."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._opened: aiohttp.ClientSession | None = None
        self._ending: set[aiohttp.ClientResponse] = set()

    def post(
        self, provider: str, url: str, headers: Mapping[str, str], body: Mapping[str, object]
    ) -> "Answer":
        return Answer(self, provider, url, headers, body)

    async def get(self, provider: str, url: str, headers: Mapping[str, str]) -> bytes:
        """The body at ``url``.

        Raises:
            ProviderError: there was none, or it has no end.
        """
        timeout = aiohttp.ClientTimeout(total=QUERY_TIMEOUT, connect=CONNECTING)
        try:
            async with await self.request("GET", url, headers, timeout=timeout) as response:
                if response.status // 100 != 2:
                    raise await _refused(provider, url, response)
                return await whole(provider, response.content.readany)
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(provider, error) from error

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], **options: Any
    ) -> aiohttp.ClientResponse:
        """The answer to a request, by the way that the settings choose.

        Raises:
            aiohttp.ClientError, OSError: there is none.
        """
        if (proxy := self._outbound.proxy(url)) is not None:
            options |= {"proxy": proxy.url, "proxy_headers": proxy.tunnel_headers}
            headers = {**headers, **proxy.request_headers}
        if url.startswith("https:") or (proxy and proxy.url.startswith("https:")):
            options["ssl"] = self._outbound.tls
        return await self.session().request(
            method, url, headers=headers, allow_redirects=False, **options
        )

    async def aclose(self) -> None:
        for response in list(self._ending):
            self._end(response)
        if self._opened is not None:
            await self._opened.close()

    def session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                headers=_HEADERS,
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                # no read timeout here: it would set a timer at every read (silence.py watches)
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECTING),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._opened

    def let_end(self, response: aiohttp.ClientResponse) -> None:
        """Read an answer's last bytes, so that its connection can be used again."""
        if not response.content.is_eof():
            self._ending.add(response)
            asyncio.get_running_loop().call_later(LINGER, self._end, response)

    def _end(self, response: aiohttp.ClientResponse) -> None:
        self._ending.discard(response)
        response.close()


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

    async def __aenter__(self) -> Read:
        try:
            response = self._response = await self._connections.request(
                "POST", self._url, self._headers, data=self._body
            )
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(self._provider, error) from error
        if response.status // 100 == 2:
            return response.content.readany
        try:
            fault = await _refused(self._provider, self._url, response)
        finally:
            response.close()
        fault.sent = self._sent
        raise fault

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._connections.let_end(self._response)
            return
        self._response.close()
        if isinstance(error, aiohttp.ClientError | OSError):
            raise faults.broken_off(self._provider) from error


async def whole(provider: str, read: Read) -> bytes:
    """All of an answer that is no stream.

    Raises:
        ProviderError: nobody needs one of that length.
    """
    body = bytearray()
    while data := await read():
        body += data
        if len(body) > LONGEST_LIST:
            raise faults.garbled(provider)
    return bytes(body)


async def beginning(read: Read) -> bytes:
    """What an answer without success says, as far as it comes soon and anybody would read it."""
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(EXPLAINING):
            while len(body) < faults.LONGEST_BODY and (data := await read()):
                body += data
    return bytes(body[: faults.LONGEST_BODY])


async def _refused(provider: str, url: str, response: aiohttp.ClientResponse) -> ProviderError:
    body = await beginning(response.content.readany)
    return faults.from_status(provider, response.status, _lower(response.headers), body, url)


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


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
