"""A session's log, fact by fact, as JSON lines or server-sent events (docs/api.md, *The log*)."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from services.gateway.context import USER, Gateway, gateway_of
from services.gateway.dialects.assistant import wire
from services.gateway.dialects.assistant.requests import accepts_events, session_id_of
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import LAST_EVENT_ID, Events, Lines, describe
from services.gateway.http.requests import read_query
from services.gateway.http.sse import HEADERS
from services.gateway.http.stream_writer import SSE_COMMENT, StreamWriter
from services.gateway.sessions.cursor import Cursor, CursorCodec
from services.gateway.sessions.feed import Feed
from shared.errors import InvalidRequest
from shared.events import AnyFact, SessionDeleted
from shared.log_entry import LogEntry

_LINES = {**HEADERS, "Content-Type": "application/x-ndjson; charset=utf-8"}


_START = re.compile(r"^(\d{0,18}|[0-9a-f]{12}(-\d{1,19}){3})$", re.ASCII)
_Start = Annotated[str, Meta(extra_json_schema={"pattern": _START.pattern})]


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    start: _Start = msgspec.field(default="", name="from")
    """A sequence, to begin with it, or a cursor, to begin behind it."""
    stream: bool = False
    """Server-sent events instead of JSON lines, as `Accept: text/event-stream` does."""
    follow: bool = False
    """Go on with what happens from now on."""


class FactView(msgspec.Struct, frozen=True, kw_only=True):
    """A fact with what its place in the log says of it."""

    seq: int
    subject: str
    at: datetime
    type: str
    fact: AnyFact


def routes() -> list[web.RouteDef]:
    return [
        web.get(PREFIX + "/sessions/{session_id}/events", stream_events, allow_head=False),
    ]


@describe(
    query=EventsQuery,
    headers=(LAST_EVENT_ID,),
    answers={200: (Lines(FactView), Events(FactView))},
)
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Show a session's log, fact by fact, from its start or from a place in it.

    JSON lines, or server-sent events if asked for.
    """
    gateway, session_id = gateway_of(request), session_id_of(request)
    query = read_query(request, EventsQuery)
    last = request.headers.get("Last-Event-ID", "")
    after = _after(last if last and _START.fullmatch(last) else query.start, gateway)
    as_events = query.stream or accepts_events(request)
    async with gateway.hub.feed(request[USER].id, session_id) as feed:
        if after > feed.state.seq:
            await feed.refilled()  # another gateway may know of more than this one
        frame = partial(_event, gateway.cursors) if as_events else _line
        tail = _Tail(feed, after, frame, follow=query.follow)
        comment = SSE_COMMENT if as_events else b""
        writer = StreamWriter(request, HEADERS if as_events else _LINES, comment=comment)
        with gateway.connections.registered(writer), feed.watchers.watching(writer.wake):
            async with writer.begun():
                await tail.write(writer)
        return writer.response


def _line(entry: LogEntry) -> bytes:
    return wire.encode(view_of(entry)) + b"\n"


def _event(cursors: CursorCodec, entry: LogEntry) -> bytes:
    cursor = cursors.format(Cursor(entry.seq)).encode()
    return b"id: %b\ndata: %b\n\n" % (cursor, wire.encode(view_of(entry)))


def view_of(entry: LogEntry) -> FactView:
    tag = type(entry.fact).__struct_config__.tag
    return FactView(
        seq=entry.seq, subject=entry.subject, at=entry.fact.at, type=str(tag), fact=entry.fact
    )


class _Tail:
    """One client of a session's log; it ends with the log, or with the session."""

    def __init__(
        self, feed: Feed, after: int, frame: Callable[[LogEntry], bytes], *, follow: bool
    ) -> None:
        self._feed = feed
        self._after = after
        self._frame = frame
        self._follow = follow
        self._end = feed.state.seq

    async def write(self, writer: StreamWriter) -> None:
        following = partial(writer.next, self._next)
        read = following if self._follow else self._next
        while not self._is_over and (entries := await read()):
            await writer.send(b"".join(map(self._frame, entries)))
            if any(isinstance(entry.fact, SessionDeleted) for entry in entries):
                return

    @property
    def _is_over(self) -> bool:
        return not self._follow and self._after >= self._end

    async def _next(self) -> list[LogEntry]:
        """The facts that come next, from memory or from the log; of one that ends, to its end."""
        while self._after < self._feed.state.seq:
            entries = await self._feed.facts_after(self._after)
            # Without any, all that is older than what the feed keeps has been erased.
            floor = max(self._after, self._feed.state.floor)
            self._after = entries[-1].seq if entries else floor
            if not self._follow:
                entries = [entry for entry in entries if entry.seq <= self._end]
            if entries:
                return entries
        return []


def _after(start: str, gateway: Gateway) -> int:
    """The last fact that the client has seen: 0 without one, or when the cursor is of another log.

    Raises:
        InvalidRequest: it is neither a sequence nor a cursor.
    """
    if not start:
        return 0
    if not _START.fullmatch(start):
        raise InvalidRequest("Expected a sequence or a cursor.", path="$.from")
    if "-" not in start:
        return max(int(start) - 1, 0)
    known = gateway.cursors.parse(start)
    return 0 if known is None else known.seq
