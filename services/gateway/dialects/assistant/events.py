"""A session's log, fact by fact, as JSON lines or server-sent events (docs/api.md, *The log*)."""

import asyncio
import re
from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from services.gateway.connections import STALLED
from services.gateway.context import USER, Gateway, gateway_of
from services.gateway.dialects.assistant import wire
from services.gateway.dialects.assistant.requests import accepts_events, session_id_of
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import LAST_EVENT_ID, Events, Lines, describe
from services.gateway.http.requests import read_query
from services.gateway.http.sse import COMMENT_EVERY, HEADERS
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.feed import Feed
from shared.bus import BusError
from shared.errors import InvalidRequest, NatterlogError
from shared.events import AnyFact, SessionDeleted
from shared.log import get_logger
from shared.log_entry import LogEntry

log = get_logger()

_LINES = {**HEADERS, "Content-Type": "application/x-ndjson; charset=utf-8"}


_PLACE = re.compile(r"^(\d{0,18}|[0-9a-f]{12}(-\d{1,19}){3})$", re.ASCII)
_Place = Annotated[str, Meta(extra_json_schema={"pattern": _PLACE.pattern})]


class EventsAsked(msgspec.Struct, frozen=True, kw_only=True):
    place: _Place = msgspec.field(default="", name="from")
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
    query=EventsAsked,
    headers=(LAST_EVENT_ID,),
    answers={200: (Lines(FactView), Events(FactView))},
)
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Show a session's log, fact by fact, from its start or from a place in it.

    JSON lines, or server-sent events if asked for.
    """
    gateway, session_id = gateway_of(request), session_id_of(request)
    asked = read_query(request, EventsAsked)
    last = request.headers.get("Last-Event-ID", "")
    after = _after(last if last and _PLACE.fullmatch(last) else asked.place, gateway)
    as_events = asked.stream or accepts_events(request)
    async with gateway.hub.feed(request[USER].id, session_id) as feed:
        if after > feed.seq:
            await feed.refilled()  # another gateway may know of more than this one
        tail = _Tail(request, gateway, feed, after, as_events=as_events)
        with gateway.connections.holding(tail):
            return await tail.write(follow=asked.follow)


def view_of(link: LogEntry) -> FactView:
    tag = type(link.fact).__struct_config__.tag
    return FactView(
        seq=link.seq, subject=link.subject, at=link.fact.at, type=str(tag), fact=link.fact
    )


class _Tail:
    """One client of a session's log; it ends with the log, or with the session."""

    def __init__(
        self, request: web.Request, gateway: Gateway, feed: Feed, after: int, *, as_events: bool
    ) -> None:
        self._request = request
        self._cursors = gateway.cursors
        self._feed = feed
        self._after = after
        self._as_events = as_events
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stopping = self._comment_due = False
        self._writing_since = 0.0
        self._wrote_at = self._loop.time()

    # -- what the pulse asks ------------------------------------------------------------

    def beat(self, now: float) -> None:
        if self._writing_since:
            if now - self._writing_since > STALLED:
                self._abort()
        elif self._as_events and now - self._wrote_at >= COMMENT_EVERY:
            self._comment_due = True
            self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    # -- writing ------------------------------------------------------------------------

    async def write(self, *, follow: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS if self._as_events else _LINES)
        self._feed.watchers.add(self._wake.set)
        try:
            await response.prepare(self._request)
            await self._write(response, follow=follow)
            await response.write_eof()
        except ConnectionError:
            pass  # the client is gone
        except (NatterlogError, BusError) as error:
            # Too late for a status: the client comes back with the last sequence that it has.
            log.info("events.source_failed", error=str(error))
            self._abort()
        finally:
            self._feed.watchers.discard(self._wake.set)
        return response

    async def _write(self, response: web.StreamResponse, *, follow: bool) -> None:
        end = self._feed.seq
        while not self._stopping:
            self._wake.clear()
            if self._after < self._feed.seq:
                links = await self._next()
                if not follow:
                    links = [link for link in links if link.seq <= end]
                await self._send(response, b"".join(map(self._frame, links)))
                if any(isinstance(link.fact, SessionDeleted) for link in links):
                    return
            elif self._comment_due:
                await self._send(response, b":\n\n")
            elif follow:
                await self._wake.wait()
            if not follow and self._after >= end:
                return

    async def _next(self) -> list[LogEntry]:
        """The facts that come next, from memory or from the log."""
        links = await self._feed.facts_after(self._after)
        # Without any, all that is older than what the feed keeps has been erased.
        self._after = links[-1].seq if links else max(self._after, self._feed.floor)
        return links

    def _frame(self, link: LogEntry) -> bytes:
        line = wire.encode(view_of(link))
        if not self._as_events:
            return line + b"\n"
        return b"id: %b\ndata: %b\n\n" % (self._cursors.format(Cursor(link.seq)).encode(), line)

    async def _send(self, response: web.StreamResponse, data: bytes) -> None:
        if not data:
            return
        self._writing_since = self._wrote_at = self._loop.time()
        self._comment_due = False
        await response.write(data)
        self._writing_since = 0.0

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _after(place: str, gateway: Gateway) -> int:
    """The last fact that the client has seen: 0 without one, or when the cursor is of another log.

    Raises:
        InvalidRequest: it names no place.
    """
    if not place:
        return 0
    if not _PLACE.fullmatch(place):
        raise InvalidRequest("Expected a sequence or a cursor.", path="$.from")
    if "-" not in place:
        return max(int(place) - 1, 0)
    known = gateway.cursors.parse(place)
    return 0 if known is None else known.seq
