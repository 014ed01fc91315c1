"""WebSockets, once for all dialects: one writer each, heartbeats, close codes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from aiohttp import WSMsgType, web

from services.gateway.access.auth import ENDING
from services.gateway.context import USER, gateway_of
from services.gateway.errors import to_natterlog_error
from services.gateway.http.stream_writer import Line
from services.gateway.metrics import CONNECTIONS
from services.gateway.sessions.client_events import ClientEvent, SessionGone
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.follower import Follower
from shared import errors
from shared.bus import BusError
from shared.errors import NatterlogError
from shared.ids import new_id
from shared.log import get_logger

log = get_logger()

PING_EVERY = 20.0
UNANSWERED = 2
"""Pings without an answer after which a peer counts as dead."""
NORMAL, RESTART, TRY_LATER, DEFECT = 1000, 1012, 1013, 1011
BINARY, UNAUTHORIZED, GONE, TOO_MANY = 4400, 4401, 4404, 4429
_CLOSE_WAIT = 2.0
_MOST_REPLIES = 64

_CODES: dict[type[NatterlogError], int] = {
    errors.Unauthorized: UNAUTHORIZED,
    errors.NotFound: GONE,
    errors.RateLimited: TOO_MANY,
    errors.Unavailable: TRY_LATER,
}

Translate = Callable[[Cursor, ClientEvent], list[bytes]]


class FrameSource(Protocol):
    """Something that a socket shows."""

    @property
    def more(self) -> bool:
        """Whether there is something new already."""
        ...

    async def frames(self) -> list[bytes]:
        """The frames for what is new; asked for when the socket was woken and can write."""
        ...


class Socket:
    """One client's WebSocket: nobody but :meth:`write` and :meth:`write_at_once` writes to it."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request) -> None:
        self.id = new_id()
        self.request = request
        self._ws = ws
        self._line = Line(request)
        self._wake = asyncio.Event()
        self._waits = False
        """The writer has nothing to do."""
        self._answered = asyncio.Event()
        self._answered.set()
        self._replies: deque[bytes] = deque()
        self._due: dict[FrameSource, None] = {}
        self._closing: tuple[int, str] | None = None
        self._ping_due = False
        self._next_ping = self._line.wrote_at + PING_EVERY
        self._unanswered = 0

    # -- reading --------------------------------------------------------------------

    async def texts(self) -> AsyncIterator[bytes]:
        """The client's messages; ends when the socket does."""
        while True:
            # A client that asks without reading the answers is not asked for more.
            await self._answered.wait()
            message = await self._ws.receive()
            self._unanswered = 0
            if message.type is WSMsgType.TEXT:
                yield message.data.encode()
            elif message.type is WSMsgType.PING:
                await self._ws.pong(message.data)
            elif message.type is WSMsgType.BINARY:
                self.close(BINARY, "Binary frames mean nothing here.")
            elif message.type is not WSMsgType.PONG:
                return

    # -- writing --------------------------------------------------------------------

    def reply(self, frame: bytes) -> None:
        """Send a frame that belongs to no source, before whatever a source has."""
        self._replies.append(frame)
        if len(self._replies) >= _MOST_REPLIES:
            self._answered.clear()
        self._wake.set()

    def mention(self, frame: bytes) -> None:
        """Like :meth:`reply`, for what may be left out when the client does not keep up."""
        if len(self._replies) < _MOST_REPLIES:
            self.reply(frame)

    def due(self, source: FrameSource) -> None:
        """The source has something new."""
        self._due[source] = None
        self._wake.set()

    def write_at_once(self, new_frames: Callable[[], list[bytes]]) -> bool:
        """Write frames without waiting for anybody; False: nothing was written."""
        if not self._waits or self._wake.is_set() or self._ws.closed:
            return False
        return self._line.write_at_once(lambda: b"".join(map(on_the_wire, new_frames())))

    @contextmanager
    def showing(self, source: FrameSource) -> Generator[None]:
        """Show what the source has, and whatever is due of it, while the block runs."""
        self.due(source)
        try:
            yield
        finally:
            self._due.pop(source, None)

    def close(self, code: int, reason: str) -> None:
        """Close soon, after the replies."""
        self._closing = self._closing or (code, reason)
        self._wake.set()

    @property
    def closing(self) -> bool:
        return self._closing is not None

    def stop(self) -> None:
        self.close(RESTART, "The gateway is restarting.")

    def refuse(self) -> None:
        """The credential does not count any more: nothing else is sent."""
        self._due.clear()
        self.close(UNAUTHORIZED, "This token does not count any more.")

    def beat(self, now: float) -> None:
        if self._line.is_stalled(now):
            self._line.abort()
        elif now >= self._next_ping:
            self._next_ping = now + PING_EVERY
            if self._unanswered >= UNANSWERED:
                self._line.abort()
            self._unanswered += 1
            self._ping_due = True
            self._wake.set()

    async def write(self) -> None:
        """Write replies, pings and what is new, until the socket is to be closed."""
        try:
            while self._closing is None:
                await self._woken()
                await self._write_all()
            await self._write_replies()
        except ConnectionError:
            return  # the client is gone
        except (NatterlogError, BusError) as error:
            log.info("socket.source_failed", error=str(error))
            self.close(TRY_LATER, to_natterlog_error(error).message)

    async def _woken(self) -> None:
        self._waits = True
        try:
            await self._wake.wait()
        finally:
            self._waits = False
        self._wake.clear()

    async def hang_up(self) -> None:
        """Close with the code that says why, and wait for the client's own close frame.

        Only when nobody reads from it any more: otherwise aiohttp does not wait
        for the answer, and a client that writes it finds the line dead.
        """
        code, reason = self._closing or (NORMAL, "")
        await self._ws.close(code=code, message=reason.encode()[:120])

    async def _write_all(self) -> None:
        await self._write_replies()
        if self._ping_due:
            self._ping_due = False
            await self._ws.ping()
        while self._due and self._closing is None:
            source = next(iter(self._due))
            del self._due[source]
            for frame in await source.frames():
                await self._send(frame)
            if source.more:
                self._due[source] = None
            if self._replies:
                await self._write_replies()

    async def _write_replies(self) -> None:
        while self._replies:
            await self._send(self._replies.popleft())
        self._answered.set()

    async def _send(self, frame: bytes) -> None:
        await self._line.write(self._ws.send_frame(frame, WSMsgType.TEXT))


class Track:
    """A session on a socket: a follower, and the dialect's frames for what it sees."""

    def __init__(
        self, socket: Socket, follower: Follower, translate: Translate, *, alone: bool = False
    ) -> None:
        self.follower = follower
        self._socket = socket
        self._translate = translate
        self._alone = alone
        """Whether the socket has no other purpose than this session."""

    @contextmanager
    def shown(self) -> Generator[None]:
        """Show the session on its socket while the block runs."""
        with self.follower.source.watchers.watching(self._wake), self._socket.showing(self):
            yield

    def send_again(self, first_seq: int, client_id: str | None) -> None:
        """The client sent a message that is there already: bring it up to date, in its turn."""
        self.follower.send_again(first_seq, client_id)
        self._wake()

    def _wake(self) -> None:
        if not self._socket.write_at_once(self._new_text):
            self._socket.due(self)

    def _new_text(self) -> list[bytes]:
        """The frames for what is new of a reply's text; none where there is more to show."""
        events = self.follower.new_text()
        return [frame for cursor, event in events for frame in self._translate(cursor, event)]

    @property
    def more(self) -> bool:
        return self.follower.is_behind

    async def frames(self) -> list[bytes]:
        found: list[bytes] = []
        for cursor, event in await self.follower.next_events():
            found += self._translate(cursor, event)
            if self._alone and isinstance(event, SessionGone):
                self._socket.close(GONE, "The session was deleted.")
        return found


def on_the_wire(text: bytes) -> bytes:
    """A frame of text, whole and unmasked, as RFC 6455 has it."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


Converse = Callable[[Socket], Awaitable[None]]


async def serve(request: web.Request, converse: Converse) -> web.WebSocketResponse:
    """Upgrade, let ``converse`` talk with the client, and close with a code that says why.

    What is refused after the upgrade is refused by a close code, because a browser
    cannot read the status of a refused upgrade.

    Raises:
        InvalidRequest: this is no WebSocket's handshake.
    """
    gateway = gateway_of(request)
    ws = web.WebSocketResponse(
        timeout=_CLOSE_WAIT,
        autoping=False,
        compress=False,
        max_msg_size=gateway.settings.max_frame + 1,
    )
    try:
        await ws.prepare(request)
    except web.HTTPBadRequest as error:
        raise errors.InvalidRequest("Here a WebSocket is expected.") from error
    except ConnectionError:  # the client is gone, and aiohttp will find that out once more
        return ws
    socket = Socket(ws, request)
    request[ENDING] = socket.refuse
    with gateway.connections.registered(socket), CONNECTIONS.labels("socket").track_inprogress():
        writer = asyncio.create_task(socket.write(), name="socket-writer")
        talk = asyncio.create_task(_talk(request, socket, converse), name="socket-reader")
        try:
            await asyncio.wait([writer, talk], return_when=asyncio.FIRST_COMPLETED)
            if socket.closing:
                await asyncio.wait([writer])  # what was answered before still goes out
        finally:
            await _end(talk, writer)
        await socket.hang_up()
    return ws


def is_handshake(request: web.Request) -> bool:
    """Whether the client asks for a WebSocket, and rightly so."""
    return web.WebSocketResponse().can_prepare(request).ok


async def refuse(request: web.Request, error: NatterlogError) -> web.WebSocketResponse:
    """Accept the socket, only to close it with a code that says why."""
    ws = web.WebSocketResponse(timeout=_CLOSE_WAIT, compress=False)
    await ws.prepare(request)
    # Too many guesses are no matter of how many sockets there are.
    code = TRY_LATER if isinstance(error, errors.RateLimited) else _code_of(error)
    await ws.close(code=code, message=error.message.encode()[:120])
    return ws


async def _talk(request: web.Request, socket: Socket, converse: Converse) -> None:
    try:
        with gateway_of(request).sockets.one_more(request[USER].id):
            await converse(socket)
    except NatterlogError as error:
        socket.close(_code_of(error), error.message)
    except BusError as error:
        socket.close(TRY_LATER, to_natterlog_error(error).message)
    except Exception:
        log.exception("socket.failed")
        socket.close(DEFECT, "Something went wrong here; the log says what.")


def _code_of(error: NatterlogError) -> int:
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), DEFECT)


async def _end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
