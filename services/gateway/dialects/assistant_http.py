"""The native API over HTTP: ``/api/v1/chat`` (docs/api.md)."""

from aiohttp import web

from services.gateway.asking import MOST, an_id, choice, number, read_body
from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.cursor import Place
from services.gateway.dialects import assistant as words
from services.gateway.dialects.assistant import PREFIX
from services.gateway.follower import Follower
from services.gateway.limits import check_text
from services.gateway.moments import ReplyReset, question_of
from services.gateway.sse import stream
from services.gateway.turns import check_success, ended, following
from shared.commands import (
    Accepted,
    CancelRun,
    DeleteSession,
    GetRun,
    GetSession,
    ListMessages,
    ListSessions,
    Regenerate,
    SendMessage,
)
from shared.errors import InvalidRequest
from shared.events import SessionStatus
from shared.ids import new_id
from shared.records import Run

_STATUSES: dict[str, SessionStatus | None] = {
    "active": "active",
    "inactive": "inactive",
    "all": None,
}


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{PREFIX}/sessions", create_session),
        web.get(f"{PREFIX}/sessions", list_sessions),
        web.get(PREFIX + "/sessions/{session_id}", get_session),
        web.patch(PREFIX + "/sessions/{session_id}", change_session),
        web.delete(PREFIX + "/sessions/{session_id}", delete_session),
        web.post(f"{PREFIX}/messages", send_message),
        web.get(PREFIX + "/messages/{session_id}", list_messages),
        web.post(PREFIX + "/messages/{message_id}/regenerate", regenerate),
        web.get(PREFIX + "/runs/{run_id}", get_run),
        web.get(PREFIX + "/runs/{run_id}/stream", stream_run, allow_head=False),
        web.post(PREFIX + "/runs/{run_id}/cancel", cancel_run),
    ]


# -- sessions ---------------------------------------------------------------------


async def create_session(request: web.Request) -> web.Response:
    gateway = gateway_of(request)
    body = await read_body(request, words.decode_new_session)
    command = words.create_session(body, request[USER].id, gateway.settings)
    answer = await gateway.store.ask(command)
    return _json(words.session_view(answer.session), status=201)


async def list_sessions(request: web.Request) -> web.Response:
    gateway = gateway_of(request)
    limit, offset = _window(request)
    before = number(request, "cursor", 0) or None
    mode = request.query.get("mode")
    page = await gateway.store.ask(
        ListSessions(
            user_id=request[USER].id,
            query=request.query.get("q") or None,
            status=choice(request, "status", _STATUSES, "active"),
            modes=[mode] if mode else None,
            limit=limit,
            before=before,
            offset=offset,
        )
    )
    items = [words.session_view(session) for session in page.items]
    further = None if page.next is None else str(page.next)
    return _json(words.Page(items=items, next_cursor=further, total=page.total))


async def get_session(request: web.Request) -> web.Response:
    query = GetSession(user_id=request[USER].id, session_id=_session_id(request), at=_then(request))
    answer = await gateway_of(request).store.ask(query)
    return _json(words.session_view(answer.session))


async def change_session(request: web.Request) -> web.Response:
    session_id = _session_id(request)
    body = await read_body(request, words.decode_session_change)
    command = words.update_session(body, request[USER].id, session_id)
    answer = await gateway_of(request).store.ask(command)
    return _json(words.session_view(answer.session))


async def delete_session(request: web.Request) -> web.Response:
    command = DeleteSession(user_id=request[USER].id, session_id=_session_id(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


# -- messages ---------------------------------------------------------------------


async def send_message(request: web.Request) -> web.StreamResponse:
    gateway = gateway_of(request)
    body = await read_body(request, words.decode_new_message)
    an_id(body.session_id, "session")
    check_text(body.content, gateway.settings, path="$.content")
    # The feed is opened while the store decides, so the first token waits for one of them.
    with gateway.hub.opening(request[USER].id, body.session_id):
        accepted = await gateway.store.ask(
            SendMessage(
                user_id=request[USER].id,
                session_id=body.session_id,
                content=body.content,
                attachments=body.attachments,
                model=body.model,
                temperature=body.temperature,
                max_tokens=body.max_tokens,
                idempotency_key=_idempotency_key(request),
            )
        )
        return await _answer_turn(request, gateway, accepted)


async def regenerate(request: web.Request) -> web.StreamResponse:
    gateway = gateway_of(request)
    message_id = an_id(request.match_info["message_id"], "message")
    accepted = await gateway.store.ask(
        Regenerate(
            user_id=request[USER].id,
            message_id=message_id,
            idempotency_key=_idempotency_key(request),
        )
    )
    return await _answer_turn(request, gateway, accepted)


async def _answer_turn(
    request: web.Request, gateway: Gateway, accepted: Accepted
) -> web.StreamResponse:
    request[RUN_ID] = accepted.run.id
    async with following(gateway, request[USER].id, accepted.run) as follower:
        if _wants_stream(request):
            frames = words.SseFrames(gateway.cursors)
            return await stream(request, follower, frames)
        reply = await ended(gateway, follower)
    check_success(reply)
    asked = question_of(reply.run, reply.final) or accepted.user_message
    turn = words.TurnView(user_message=asked, assistant_message=reply.message)
    return _json(turn, status=201)


async def list_messages(request: web.Request) -> web.Response:
    limit, offset = _window(request)
    if "cursor" in request.query:
        offset = number(request, "cursor", 0, least=0)
    page = await gateway_of(request).store.ask(
        ListMessages(
            user_id=request[USER].id,
            session_id=_session_id(request),
            limit=limit,
            offset=offset,
            descending=choice(request, "order", {"asc": False, "desc": True}, "asc"),
            at=_then(request),
        )
    )
    after = offset + len(page.items)
    more = bool(page.items) and after < page.total
    return _json(
        words.Page(items=page.items, next_cursor=str(after) if more else None, total=page.total)
    )


# -- runs -------------------------------------------------------------------------


async def get_run(request: web.Request) -> web.Response:
    return _json(words.run_view(await _run(request)))


async def cancel_run(request: web.Request) -> web.Response:
    command = CancelRun(user_id=request[USER].id, run_id=_run_id(request))
    answer = await gateway_of(request).store.ask(command)
    return _json(words.run_view(answer.run))


async def stream_run(request: web.Request) -> web.StreamResponse:
    gateway = gateway_of(request)
    run = await _run(request)
    cursor = request.headers.get("Last-Event-ID") or request.query.get("cursor")
    frames = words.SseFrames(gateway.cursors)
    request[RUN_ID] = run.id
    async with following(gateway, request[USER].id, run) as follower:
        if not cursor:
            return await stream(request, follower, frames)
        place = await _known_place(gateway, follower, run.id, cursor)
        if place is None:
            # Nothing of what was shown counts any more: void it, then tell all of it.
            void = words.event_of(ReplyReset())
            first = frames.frame(Place(0), void) if void else b""
            return await stream(request, follower, frames, first=first)
        if await _is_last(gateway, follower, run, place):
            return web.Response(status=204)
        follower.place = max(place, follower.place)
        return await stream(request, follower, frames)


async def _known_place(
    gateway: Gateway, follower: Follower, run_id: str, cursor: str
) -> Place | None:
    """The cursor's place if this log has one; another gateway may know of more than this one."""
    place = gateway.cursors.parse(cursor)
    if place is not None and place.seq > follower.feed.seq:
        await follower.feed.refilled()
    return place if place is not None and follower.feed.has(place, run_id) else None


async def _is_last(gateway: Gateway, follower: Follower, run: Run, place: Place) -> bool:
    """Whether the run has ended and ``place`` is behind its end."""
    feed = follower.feed
    if run.id in feed.unfinished:
        return False
    query = GetRun(user_id=feed.user, run_id=run.id, min_seq=feed.seq)
    answer = await gateway.store.ask(query)
    return answer.run.ended_at is not None and place.seq >= answer.run.last_seq


# -- reading requests, writing answers ----------------------------------------------


async def _run(request: web.Request) -> Run:
    query = GetRun(user_id=request[USER].id, run_id=_run_id(request))
    return (await gateway_of(request).store.ask(query)).run


def _run_id(request: web.Request) -> str:
    return an_id(request.match_info["run_id"], "run")


def _session_id(request: web.Request) -> str:
    return an_id(request.match_info["session_id"], "session")


def _then(request: web.Request) -> int | None:
    """The moment that is asked about: a cursor's last fact; None for now.

    Raises:
        InvalidRequest: it is no cursor, or one of another log.
    """
    text = request.query.get("at")
    if text is None:
        return None
    place = gateway_of(request).cursors.parse(text)
    if place is None:
        raise InvalidRequest("This is no cursor, or one of another log.", path="$.at")
    return place.seq


def _idempotency_key(request: web.Request) -> str:
    """The client's key, or one of our own, which makes our own second try harmless."""
    return request.headers.get("Idempotency-Key") or new_id()


def _wants_stream(request: web.Request) -> bool:
    asked = request.query.get("stream", "").lower() in ("true", "1")
    return asked or "text/event-stream" in request.headers.get("Accept", "")


def _window(request: web.Request) -> tuple[int, int]:
    """Limit and offset, from ``limit`` or from ``page`` and ``page_size``."""
    if "page" in request.query or "page_size" in request.query:
        limit = min(number(request, "page_size", 50), MOST)
        return limit, (number(request, "page", 1) - 1) * limit
    return min(number(request, "limit", 50), MOST), 0


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=words.encode(body), status=status, content_type="application/json")
