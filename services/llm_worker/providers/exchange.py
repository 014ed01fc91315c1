"""One request and its answer on a connection: HTTP/1.1, read where the transport delivers it.

aiohttp makes the connections and keeps them.  While an exchange lasts it has one for
itself, and the bytes of the answer go through llhttp straight to whoever takes them:
no buffer, no future and no task switch a read, which was a third of what a token cost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context

import aiohttp
import httptools
from aiohttp.connector import Connection

from services.llm_worker.providers.unpacking import unpacker

LONGEST_HEAD = 64 * 1024
"""Bytes in a row that are no part of a body: an answer's head, and what stands behind it."""
LINGER = 1.0
"""Seconds for the last bytes of an answer of which nothing more is wanted."""
MOST_DROPPED = 64 * 1024
"""Bytes of them."""

Take = Callable[[bytes], bool]
"""Takes what has come of a body, and says whether that is enough."""
ReadInto = Callable[[Take], Awaitable[None]]
"""Hands what comes of a body to a taker, until that has enough or there is no more."""


class Exchange(asyncio.Protocol):
    """A request and its answer; :meth:`leave` it in any case.

    Raises:
        aiohttp.ClientError, OSError: the connection broke, or what came is no HTTP.
    """

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """By their names in lower case."""
        handler, transport = connection.protocol, connection.transport
        if handler is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        self._connection = connection
        self._handler = handler
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._feed: Callable[[bytes], None] = self._parser.feed_data
        self._overhead = self._dropped = 0
        self._parts: list[bytes] = []
        """What one read has brought of the body, or all reads before anybody took it."""
        self._take: Take | None = None
        self._unpack: Callable[[bytes], Iterator[bytes]] | None = None
        self._complete = False
        """All of the answer has come."""
        self._enough = False
        """Nobody wants more of it."""
        self._reusable = False
        self._fault: Exception | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._left = False
        transport.set_protocol(self)

    async def send(self, request: bytes) -> None:
        """Send the request, and wait for the head of the answer."""
        self._transport.write(request)
        await self._wait()
        if self._fault is not None:
            raise self._fault

    async def read_into(self, take: Take) -> None:
        """Have ``take`` called with what comes of the body, until that is enough or all.

        It is called in the caller's context, but not in its task.
        """
        context = copy_context()
        self._take = lambda data: context.run(take, data)
        if self._parts:
            self._hand_over(self._take)
        if not (self._enough or self._complete):
            await self._wait()
        if self._fault is not None and not self._enough:
            raise self._fault

    def leave(self) -> None:
        """Give the connection back, to be used again if the answer's end has come or comes soon."""
        if self._left:
            return
        if self._enough and not self._complete and self._fault is None:
            self._left = True
            self._lingering = self._loop.call_later(LINGER, self._give_back)
        else:
            self._give_back()

    # -- the transport's calls ------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                self._fail(aiohttp.ClientPayloadError(f"its answer is no HTTP ({error})"))
                return
            self._reusable = False  # what came behind the answer is nobody's
        if self._parts:
            self._overhead = 0
            if self._take is not None:
                self._hand_over(self._take)
        elif not self._complete:
            self._overhead += len(data)
            if self._overhead > LONGEST_HEAD:
                self._fail(aiohttp.ClientPayloadError("the head of its answer has no end"))
        if self._complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connection_lost(exc)
        self._connection.close()
        self._reusable = False
        if self._complete:
            return
        if exc is None and self.status and not self._has_length:
            self._complete = True
            self._finish()
        elif isinstance(exc, OSError):
            self._fail(exc)
        else:
            self._fail(aiohttp.ServerDisconnectedError())

    # -- the parser's calls -----------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.status:  # of another answer, for which nobody asked
            return
        if status < 200:  # it only says that the answer is under way
            self.headers.clear()
            return
        self.status = status
        self._unpack = unpacker(self.headers.get("content-encoding", ""))
        self._wake()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._reusable = not self._complete and self._parser.should_keep_alive()
            self._complete = True

    # -- what they come to ------------------------------------------------------------------

    @property
    def _has_length(self) -> bool:
        """Whether the head says how the body ends; else it ends with the connection."""
        return "content-length" in self.headers or "transfer-encoding" in self.headers

    def _hand_over(self, take: Take) -> None:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        try:
            if self._unpack is None:
                enough = take(data)
            else:
                enough = any(take(piece) for piece in self._unpack(data))
        except Exception as error:  # noqa: BLE001  (it is raised where the body is waited for)
            self._fail(error)
        else:
            if enough:
                self._enough = True
                self._take = self._drop
                self._wake()

    def _drop(self, data: bytes) -> bool:
        self._dropped += len(data)
        if self._dropped > MOST_DROPPED:
            raise aiohttp.ClientPayloadError("its answer has no end")
        return False

    def _finish(self) -> None:
        if self._lingering is not None:
            self._give_back()
        self._wake()

    def _fail(self, error: Exception) -> None:
        """Nothing more of it can be read, or is wanted."""
        self._fault = self._fault or error
        self._feed = _pass_over
        self._parts.clear()
        if self._lingering is not None:
            self._give_back()
        self._wake()

    async def _wait(self) -> None:
        if self._fault is None:
            self._waiter = self._loop.create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give_back(self) -> None:
        self._left = True
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._connection.closed:
            self._connection.close()
            return
        self._transport.set_protocol(self._handler)
        if self._complete and self._reusable:
            self._connection.release()
        else:
            self._connection.close()


def _pass_over(data: bytes) -> None:
    del data
