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

    def write_at_once(self, make: Callable[[], bytes]) -> bool:
        """Write what ``make`` makes, without a task and past aiohttp; False: nothing was written.

        Only where the client has taken everything so far: one that does not keep up is
        waited for, and then gets all that is new in one piece.
        """
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        try:
            data = make()
        except Exception:
            log.exception("stream.frame_failed")
            self.abort()  # what it was made of counts as shown
            return True
        if not data:
            return False
        self.wrote_at = self._loop.time()
        transport.write(data)
        return True

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
        self._waits = False
        """Nothing is being read or written."""
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
        self._waits = True
        try:
            async with asyncio.timeout_at(due):
                return await self._wake.wait()
        except TimeoutError:
            return False
        finally:
            self._waits = False

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
        self._has_begun = False
        """The head has left, and a body may follow."""
        self._chunked = False
        self._new_text: Callable[[], bytes] = bytes

    def write_at_once(self, new_text: Callable[[], bytes]) -> None:
        """From now on, write what ``new_text`` makes as soon as there is something new.

        It makes nothing where there is more to show than a reply's text: :meth:`next` does.
        """
        self._new_text = new_text

    def wake(self) -> None:
        may = self._has_begun and self._waits and not self._wake.is_set()
        if not (may and self._line.write_at_once(self._text)):
            self._wake.set()

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
            self._chunked = self.response.headers.get("Transfer-Encoding") == "chunked"
            self._has_begun = self._request.method != "HEAD"

    def _text(self) -> bytes:
        """What is new of a reply's text, as it goes over the line."""
        data = self._new_text()
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._chunked else data

    async def _keep_alive(self) -> None:
        if self._comment_due and self.response.prepared:
            await self.send(self._comment)
