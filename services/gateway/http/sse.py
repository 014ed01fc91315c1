"""Server-sent events: one stream, one follower, for every dialect that speaks them."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from services.gateway.access.auth import ENDING
from services.gateway.connections import STALLED
from services.gateway.context import gateway_of
from services.gateway.metrics import CONNECTIONS
from services.gateway.sessions.client_events import ClientEvent, ReplyEnded, SessionGone
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.follower import Follower
from shared.bus import BusError
from shared.errors import NatterlogError
from shared.log import get_logger

log = get_logger()

COMMENT_EVERY = 15.0
_COMMENT = b":\n\n"
RETRY = b"retry: 2000\n\n"
"""What every stream begins with."""
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

Frame = Callable[[Cursor, ClientEvent], bytes | None]


class EventStream:
    """One client's stream; it ends with its run."""

    def __init__(self, request: web.Request) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = request.transport
        self._wake = asyncio.Event()
        self._stopping = False
        self._comment_due = False
        self._writing_since = 0.0
        self._wrote_at = self._loop.time()

    def beat(self, now: float) -> None:
        if self._writing_since:
            if now - self._writing_since > STALLED:
                self.abort()
        elif now - self._wrote_at >= COMMENT_EVERY:
            self._comment_due = True
            self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def abort(self) -> None:
        """Cut the line, so that the client knows that this was not the end."""
        if self._transport is not None:
            self._transport.abort()

    async def write(self, response: web.StreamResponse, follower: Follower, frame: Frame) -> None:
        """Write what is new until the run has ended, the client has gone or the gateway stops."""
        watchers = follower.feed.watchers
        watchers.add(self._wake.set)
        try:
            await self._send(response, RETRY)
            while not self._stopping:
                self._wake.clear()
                news = await follower.news()
                frames = [made for place, moment in news if (made := frame(place, moment))]
                if frames:
                    await self._send(response, b"".join(frames))
                if any(isinstance(moment, ReplyEnded | SessionGone) for _, moment in news):
                    return
                if news:
                    continue
                if self._comment_due:
                    await self._send(response, _COMMENT)
                await self._wake.wait()
        finally:
            watchers.discard(self._wake.set)

    async def _send(self, response: web.StreamResponse, data: bytes) -> None:
        # write() waits while the client does not read, so the next frames are
        # made only then, from whatever is new by that time.
        self._writing_since = self._wrote_at = self._loop.time()
        self._comment_due = False
        await response.write(data)
        self._writing_since = 0.0


async def stream(
    request: web.Request,
    follower: Follower,
    frame: Frame,
    *,
    first: bytes = b"",
) -> web.StreamResponse:
    """Answer ``request`` with what ``follower`` sees, in the frames of a dialect."""
    response = web.StreamResponse(headers=HEADERS)
    events = EventStream(request)
    request[ENDING] = events.abort
    with (
        gateway_of(request).connections.holding(events),
        CONNECTIONS.labels("stream").track_inprogress(),
    ):
        try:
            await response.prepare(request)
            if first:
                await response.write(first)
            await events.write(response, follower, frame)
            await response.write_eof()
        except ConnectionError:
            pass  # the client is gone; its run goes on
        except (NatterlogError, BusError) as error:
            # Too late for a status: the client comes back with its cursor.
            log.info("sse.source_failed", error=str(error))
            events.abort()
    return response
