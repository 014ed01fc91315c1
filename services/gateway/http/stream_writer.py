"""The one loop of every HTTP stream: wait for what is new, write it as the client reads."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from aiohttp import web

from services.gateway.access.auth import ENDING
from services.gateway.connections import STALLED
from services.gateway.metrics import CONNECTIONS
from shared.bus import BusError
from shared.errors import NatterlogError
from shared.log import get_logger

log = get_logger()

T = TypeVar("T")

COMMENT_EVERY = 15.0
"""Seconds of silence after which a comment keeps a stream's connection open."""
SSE_COMMENT = b":\n\n"


class Line:
    """The connection to a client, and for how long one write has waited for it to read."""

    def __init__(self, request: web.Request) -> None:
        self._transport = request.transport
        self._loop = asyncio.get_running_loop()
        self._writing_since = 0.0
        self.wrote_at = self._loop.time()

    @property
    def is_writing(self) -> bool:
        return self._writing_since > 0

    def is_stalled(self, now: float) -> bool:
        return self.is_writing and now - self._writing_since > STALLED

    async def write(self, writing: Awaitable[None]) -> None:
        """Wait while the client does not read.

        Whoever writes makes the next frames only then, from whatever is new by that time.
        """
        self._writing_since = self.wrote_at = self._loop.time()
        await writing
        self._writing_since = 0.0

    def abort(self) -> None:
        """Cut it, so that the client knows that this was not the end."""
        if self._transport is not None:
            self._transport.abort()


class Waiter:
    """A request that waits for what is new; one of the gateway's connections."""

    def __init__(self) -> None:
        self.stopping = False
        """The gateway stops."""
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    def beat(self, now: float) -> None:
        del now

    def stop(self) -> None:
        self.stopping = True
        self._wake.set()

    async def next(
        self, read: Callable[[], Awaitable[list[T]]], *, within: float | None = None
    ) -> list[T]:
        """What ``read`` finds, as soon as it finds something.

        Empty when the gateway stops, or after ``within`` seconds.  Those cut off the
        waiting, never the reading, which stands behind what it has read.
        """
        due = None if within is None else self._loop.time() + within
        while True:
            self._wake.clear()
            if found := await read():
                return found
            if self.stopping:
                return []
            await self._keep_alive()
            if not await self._woken(due):
                return []

    async def _woken(self, due: float | None) -> bool:
        if due is None:
            return await self._wake.wait()
        try:
            async with asyncio.timeout_at(due):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def _keep_alive(self) -> None:
        """Send what keeps the connection open; called when there was nothing new for a while."""


class StreamWriter(Waiter):
    """One client's stream: begun, written to whenever something is new, and ended."""

    def __init__(
        self, request: web.Request, headers: Mapping[str, str], *, comment: bytes = SSE_COMMENT
    ) -> None:
        super().__init__()
        self.response = web.StreamResponse(headers=headers)
        self._request = request
        self._line = Line(request)
        self._comment = comment
        self._comment_due = False

    def beat(self, now: float) -> None:
        if self._line.is_stalled(now):
            self._line.abort()
        elif (
            self._comment
            and not self._line.is_writing
            and now - self._line.wrote_at >= COMMENT_EVERY
        ):
            self._comment_due = True
            self._wake.set()

    @asynccontextmanager
    async def begun(self) -> AsyncGenerator[None]:
        """Begin the stream; it ends with the block.

        A client that goes away ends it as well.  Where what is written cannot be read any
        more it is too late for a status: the line is cut, and the client comes back.
        """
        self._request[ENDING] = self._line.abort
        with CONNECTIONS.labels("stream").track_inprogress():
            try:
                await self.response.prepare(self._request)
                yield
                await self.response.write_eof()
            except ConnectionError:
                pass  # the client is gone; its run goes on
            except (NatterlogError, BusError) as error:
                log.info("stream.source_failed", error=str(error))
                self._line.abort()

    async def send(self, data: bytes) -> None:
        if data:
            self._comment_due = False
            await self._line.write(self.response.write(data))

    async def _keep_alive(self) -> None:
        if self._comment_due and self.response.prepared:
            await self.send(self._comment)
