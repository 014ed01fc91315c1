"""The native API's runs: how one stands, its stream, its end before its time (docs/api.md)."""

from aiohttp import web

from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.dialects.assistant import replay, wire
from services.gateway.dialects.assistant.requests import answer, known_cursor
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import LAST_EVENT_ID, Events, describe
from services.gateway.http.requests import read_query, require_id
from services.gateway.http.sse import stream
from services.gateway.sessions.client_events import ReplyReset
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.feed import Feed
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
    query=wire.RunStreamQuery,
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
    query = read_query(request, wire.RunStreamQuery)
    text = request.headers.get("Last-Event-ID") or query.cursor
    frames = wire.SseFrames(gateway.cursors, thoughts=query.thoughts)
    request[RUN_ID] = run.id
    async with gateway.hub.feed(request[USER].id, run.session_id) as feed:
        follower = Follower(feed, Cursor(run.first_seq - 1), run_id=run.id)
        if not text:
            return await stream(request, follower, frames)
        cursor = await known_cursor(gateway, feed, text, run_id=run.id)
        if cursor is None:
            # Nothing of what was shown counts any more: void it, then show all of it.
            void = wire.event_of(ReplyReset())
            first = frames.frame(Cursor(0), void) if void else b""
            return await stream(request, follower, frames, first=first)
        if await _is_last(gateway, feed, run, cursor):
            return web.Response(status=204)
        follower.cursor = max(cursor, follower.cursor)
        return await stream(request, follower, frames)


async def _is_last(gateway: Gateway, feed: Feed, run: Run, cursor: Cursor) -> bool:
    """Whether the run has ended and ``cursor`` is behind its end."""
    if run.id in feed.state.unfinished:
        return False
    query = GetRun(user_id=feed.user, run_id=run.id, min_seq=feed.state.seq)
    now = (await gateway.store.ask(query)).run
    return now.ended_at is not None and cursor.seq >= now.last_seq


async def _run(request: web.Request) -> Run:
    query = GetRun(user_id=request[USER].id, run_id=_run_id(request))
    return (await gateway_of(request).store.ask(query)).run


def _run_id(request: web.Request) -> str:
    return require_id(request.match_info["run_id"], "run")
