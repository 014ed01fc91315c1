"""A server that answers with whatever bytes a test likes, true HTTP or not."""

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Answering = Callable[[str], AsyncIterable[bytes]]
"""The bytes that answer a request for a path, head and all, in the pieces in which they leave."""


class RawServer:
    """``async with RawServer(answer) as server``; each connection has one request."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self.paths: list[str] = []
        """What was asked for."""
        self.sent = 0
        """Bytes that anybody took."""
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(self._talks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a task of its own: asyncio complains of one of its own that is cancelled
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        await asyncio.wait({talk})
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            _, _, length = head.partition("content-length: ")
            await reader.readexactly(int(length.partition("\r")[0] or 0))
            path = head.split(" ", 2)[1]
            self.paths.append(path)
            async for piece in self._answer(path):
                writer.write(piece)
                await writer.drain()
                self.sent += len(piece)


def head(status: int = 200, **fields: object) -> bytes:
    """The head of an answer; underscores stand for hyphens."""
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
