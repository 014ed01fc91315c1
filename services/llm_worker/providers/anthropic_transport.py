"""The way of Anthropic's SDK to its API: over natterlog's own connections.

Imported at the first use, because the SDK's HTTP client is slow to import.
"""

import httpx2

from services.llm_worker.providers.connections import Connections, check_success
from services.llm_worker.providers.exchange import Exchange

_OURS = {"accept-encoding", "connection", "content-length", "host"}
"""Headers that belong to the connection: of the SDK's they are left out."""


def http_client(provider: str, connections: Connections) -> httpx2.AsyncClient:
    """What the SDK's client sends with."""
    return httpx2.AsyncClient(
        transport=Transport(provider, connections),
        trust_env=False,  # outbound.py has read it
        follow_redirects=False,  # the conversation is for nobody else
    )


class Transport(httpx2.AsyncBaseTransport):
    """The SDK's requests over our connections; an answer's exchange is among its extensions."""

    def __init__(self, provider: str, connections: Connections) -> None:
        self._provider = provider
        self._connections = connections

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and wait for the head of an answer of success.

        Raises:
            ProviderError: it is an answer of another kind.
            aiohttp.ClientError, OSError: there is none.
        """
        url = str(request.url)
        headers = {name: value for name, value in request.headers.items() if name not in _OURS}
        body = await request.aread()
        exchange = await self._connections.request(request.method, url, headers, body)
        try:
            # before the SDK reads all of an error, or follows a redirect
            await check_success(self._provider, url, exchange)
        except BaseException:
            exchange.leave()
            raise
        return httpx2.Response(
            exchange.status, stream=_Body(exchange), extensions={"exchange": exchange}
        )


class _Body(httpx2.AsyncByteStream):
    """Of an answer whose bytes go past the SDK; closing it leaves the exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def aclose(self) -> None:
        self._exchange.leave()


def exchange_of(response: httpx2.Response) -> Exchange:
    """The exchange that an answer came by."""
    return response.extensions["exchange"]
