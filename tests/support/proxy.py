"""A real HTTP proxy on loopback, which takes every name for one and the same server.

So tests can use names that nobody knows, and see what went through it::

    async with ProxyServer(fake.port, password="secret") as proxy:
        ...
        assert proxy.requests == ["CONNECT provider.example:443"]
"""

import asyncio
import base64
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Self

DEADLINE = 10.0


class ProxyServer:
    """Speaks CONNECT, and passes on plain requests; ``password`` is asked for if there is one.

    ``refuses`` is the status that it answers instead of passing anything on.
    """

    def __init__(self, port: int, *, password: str = "", refuses: int = 0) -> None:
        self._target = port
        self._password = password
        self._refuses = refuses
        self.requests: list[str] = []
        """The method and target of the first request of each connection."""
        self._open: set[asyncio.StreamWriter] = set()
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for writer in self._open:
            writer.close()
        while self._open:
            self._closed.clear()
            await asyncio.wait_for(self._closed.wait(), DEADLINE)

    @property
    def url(self) -> str:
        user = f"user:{self._password}@" if self._password else ""
        return f"http://{user}127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()
            self._open.discard(writer)
            self._closed.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, headers, head = await _read_head(reader)
        self.requests.append(f"{method} {target}")
        if status := self._refusal(headers):
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()
            return
        there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.write(head)
            await _first_to_end(_pass_on(reader, onward), _pass_on(there, writer))
        finally:
            onward.close()

    def _refusal(self, headers: Mapping[str, str]) -> int:
        expected = base64.b64encode(f"user:{self._password}".encode()).decode()
        if self._password and headers.get("proxy-authorization") != f"Basic {expected}":
            return 407
        return self._refuses


async def _read_head(
    reader: asyncio.StreamReader,
) -> tuple[str, str, dict[str, str], bytes]:
    """Method, target, headers, and the head as it is passed on: without what is the proxy's."""
    data = await reader.readuntil(b"\r\n\r\n")
    first, *lines = data[:-4].split(b"\r\n")
    method, target, version = first.decode().split(" ")
    kept = [line for line in lines if not line.lower().startswith(b"proxy-")]
    path = "/" + target.partition("://")[2].partition("/")[2]
    head = b"\r\n".join([f"{method} {path} {version}".encode(), *kept]) + b"\r\n\r\n"
    pairs = (line.decode().partition(":") for line in lines)
    return method, target, {name.lower(): value.strip() for name, _, value in pairs}, head


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _first_to_end(*both: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.create_task(each) for each in both]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
