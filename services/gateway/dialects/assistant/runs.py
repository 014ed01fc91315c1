"""The native API's runs: how one stands, its stream, its end before its time (docs/api.md)."""

from aiohttp import web

from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.dialects.assistant import replay, wire
from services.gateway.dialects.assistant.requests import answer
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import LAST_EVENT_ID, Events, describe
from services.gateway.http.follow_run import following
from services.gateway.http.requests import read_query, require_id
from services.gateway.http.sse import stream
from services.gateway.sessions.client_events import ReplyReset
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.follower import Follower
from shared.commands import CancelRun, GetRun
from shared.errors import Conflict
from shared.records import Run


def routes() -> list[web.RouteDef]:
    return [
        web.get(PREFIX + "/runs/{run_id}", get_run),
        web.get(PREFIX + "/runs/{run_id}/stream", stream_run, allow_head=False),
        web.post(PREFIX + "/runs/{run_id}/cancel", cancel_run),
    ]


@describe(answers={200: wire.RunStateView})
async def get_run(request: web.Request) -> web.Response:
    """Show how a run stands."""
    return answer(wire.run_view(await _run(request)))


@describe(answers={200: wire.RunStateView})
async def cancel_run(request: web.Request) -> web.Response:
    """Stop a run, in whatever state it is; one that has ended stays as it is."""
    command = CancelRun(user_id=request[USER].id, run_id=_run_id(request))
    done = await gateway_of(request).store.ask(command)
    return answer(wire.run_view(done.run))


@describe(
    query=wire.RunStreamAsked,
    headers=(LAST_EVENT_ID,),
    answers={200: Events(wire.RunEvent), 204: None},
    errors=(Conflict,),
    replay=replay.stream_run,
)
async def stream_run(request: web.Request) -> web.StreamResponse:
    """Follow a run, from its start or from a cursor, during and after it.

    What follows is exactly what is missing; if that cannot be told, a ``reset``
    comes first and then everything.  After the run's last event: 204.
    """
    gateway = gateway_of(request)
    run = await _run(request)
    asked = read_query(request, wire.RunStreamAsked)
    cursor = request.headers.get("Last-Event-ID") or asked.cursor
    frames = wire.SseFrames(gateway.cursors, thoughts=asked.thoughts)
    request[RUN_ID] = run.id
    async with following(gateway, request[USER].id, run) as follower:
        if not cursor:
            return await stream(request, follower, frames)
        place = await _known_place(gateway, follower, run.id, cursor)
        if place is None:
            # Nothing of what was shown counts any more: void it, then tell all of it.
            void = wire.event_of(ReplyReset())
            first = frames.frame(Cursor(0), void) if void else b""
            return await stream(request, follower, frames, first=first)
        if await _is_last(gateway, follower, run, place):
            return web.Response(status=204)
        follower.place = max(place, follower.place)
        return await stream(request, follower, frames)


async def _known_place(
    gateway: Gateway, follower: Follower, run_id: str, cursor: str
) -> Cursor | None:
    """The cursor's place if this log has one; another gateway may know of more than this one."""
    place = gateway.cursors.parse(cursor)
    if place is not None and place.seq > follower.feed.seq:
        await follower.feed.refilled()
    return place if place is not None and follower.feed.has(place, run_id) else None


async def _is_last(gateway: Gateway, follower: Follower, run: Run, place: Cursor) -> bool:
    """Whether the run has ended and ``place`` is behind its end."""
    feed = follower.feed
    if run.id in feed.unfinished:
        return False
    query = GetRun(user_id=feed.user, run_id=run.id, min_seq=feed.seq)
    now = (await gateway.store.ask(query)).run
    return now.ended_at is not None and place.seq >= now.last_seq


async def _run(request: web.Request) -> Run:
    query = GetRun(user_id=request[USER].id, run_id=_run_id(request))
    return (await gateway_of(request).store.ask(query)).run


def _run_id(request: web.Request) -> str:
    return require_id(request.match_info["run_id"], "run")
