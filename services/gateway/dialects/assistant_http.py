"""The native API over HTTP: ``/api/v1/chat`` (docs/api.md)."""

from aiohttp import web

from services.gateway.asking import an_id, read_body, read_query
from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.cursor import Place
from services.gateway.describing import (
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    REPLYING,
    Events,
    describe,
)
from services.gateway.dialects import assistant as words
from services.gateway.dialects.assistant import PREFIX
from services.gateway.follower import Follower
from services.gateway.limits import check_text
from services.gateway.moments import ReplyReset, question_of
from services.gateway.presets import find_preset, with_preset
from services.gateway.sse import stream
from services.gateway.starting import start
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
from shared.errors import Conflict, NotFound
from shared.ids import new_id
from shared.records import Message, Run

_TURN = {201: words.TurnView, 200: Events(words.StreamEvent)}


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


@describe(body=words.NewSession, answers={201: words.SessionView}, errors=(NotFound,))
async def create_session(request: web.Request) -> web.Response:
    """Open a session."""
    gateway = gateway_of(request)
    user = request[USER].id
    body = await read_body(request, words.decode_new_session)
    if body.preset_id is not None:
        preset = await find_preset(gateway, user, body.preset_id, path="$.preset_id")
        body = with_preset(body, preset)
    answer = await gateway.store.ask(words.create_session(body, user, gateway.settings))
    return _json(words.session_view(answer.session), status=201)


@describe(query=words.SessionsAsked, answers={200: words.Page[words.SessionView]})
async def list_sessions(request: web.Request) -> web.Response:
    """List the sessions, the one last written to first."""
    gateway = gateway_of(request)
    asked = read_query(request, words.SessionsAsked)
    page = await gateway.store.ask(
        ListSessions(
            user_id=request[USER].id,
            query=asked.q or None,
            status=None if asked.status == "all" else asked.status,
            modes=[asked.mode] if asked.mode else None,
            limit=asked.most,
            before=asked.cursor or None,
            offset=asked.offset,
        )
    )
    items = [words.session_view(session) for session in page.items]
    further = None if page.next is None else str(page.next)
    return _json(words.Page(items=items, next_cursor=further, total=page.total))


@describe(query=words.SessionAsked, answers={200: words.SessionView})
async def get_session(request: web.Request) -> web.Response:
    """Show a session, as it is or as it was."""
    at = _then(request, read_query(request, words.SessionAsked).at)
    query = GetSession(user_id=request[USER].id, session_id=_session_id(request), at=at)
    answer = await gateway_of(request).store.ask(query)
    return _json(words.session_view(answer.session))


@describe(body=words.SessionChange, answers={200: words.SessionView}, errors=(Conflict,))
async def change_session(request: web.Request) -> web.Response:
    """Change some fields of a session; what is not sent stays."""
    session_id = _session_id(request)
    body = await read_body(request, words.decode_session_change)
    command = words.update_session(body, request[USER].id, session_id)
    answer = await gateway_of(request).store.ask(command)
    return _json(words.session_view(answer.session))


@describe(answers={204: None})
async def delete_session(request: web.Request) -> web.Response:
    """Erase a session and every word of it.

    A reply that is being written is cancelled first.
    """
    command = DeleteSession(user_id=request[USER].id, session_id=_session_id(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


# -- messages ---------------------------------------------------------------------


@describe(
    query=words.ReplyAsked,
    body=words.NewMessage,
    headers=(IDEMPOTENCY_KEY,),
    answers=_TURN,
    errors=REPLYING,
)
async def send_message(request: web.Request) -> web.StreamResponse:
    """Send a message, and get its reply.

    With ``?stream=true`` or ``Accept: text/event-stream`` it is streamed, else the
    answer waits for its end.  Closing the stream stops nothing: the run goes on.
    """
    gateway = gateway_of(request)
    streaming = _wants_stream(request)
    body = await read_body(request, words.decode_new_message)
    an_id(body.session_id, "session")
    check_text(body.content, gateway.settings, path="$.content")
    # The feed is opened while the store decides, so the first token waits for one of them.
    with gateway.hub.opening(request[USER].id, body.session_id):
        accepted = await start(
            request,
            SendMessage(
                user_id=request[USER].id,
                session_id=body.session_id,
                content=body.content,
                attachments=body.attachments,
                model=body.model,
                temperature=body.temperature,
                max_tokens=body.max_tokens,
                idempotency_key=_idempotency_key(request),
            ),
        )
        return await _answer_turn(request, accepted, streaming=streaming)


@describe(query=words.ReplyAsked, headers=(IDEMPOTENCY_KEY,), answers=_TURN, errors=REPLYING)
async def regenerate(request: web.Request) -> web.StreamResponse:
    """Answer a message once more, as a sibling of its reply."""
    streaming = _wants_stream(request)
    message_id = an_id(request.match_info["message_id"], "message")
    accepted = await start(
        request,
        Regenerate(
            user_id=request[USER].id,
            message_id=message_id,
            idempotency_key=_idempotency_key(request),
        ),
    )
    return await _answer_turn(request, accepted, streaming=streaming)


async def _answer_turn(
    request: web.Request, accepted: Accepted, *, streaming: bool
) -> web.StreamResponse:
    gateway = gateway_of(request)
    request[RUN_ID] = accepted.run.id
    async with following(gateway, request[USER].id, accepted.run) as follower:
        if streaming:
            frames = words.SseFrames(gateway.cursors)
            return await stream(request, follower, frames)
        reply = await ended(gateway, follower)
    check_success(reply)
    asked = question_of(reply.run, reply.final) or accepted.user_message
    turn = words.TurnView(user_message=asked, assistant_message=reply.message)
    return _json(turn, status=201)


@describe(query=words.MessagesAsked, answers={200: words.Page[Message]})
async def list_messages(request: web.Request) -> web.Response:
    """Show the conversation: the active branch, messages that wait at its end."""
    asked = read_query(request, words.MessagesAsked)
    offset = asked.cursor or asked.offset
    page = await gateway_of(request).store.ask(
        ListMessages(
            user_id=request[USER].id,
            session_id=_session_id(request),
            limit=asked.most,
            offset=offset,
            descending=asked.order == "desc",
            at=_then(request, asked.at),
        )
    )
    after = offset + len(page.items)
    more = bool(page.items) and after < page.total
    return _json(
        words.Page(items=page.items, next_cursor=str(after) if more else None, total=page.total)
    )


# -- runs -------------------------------------------------------------------------


@describe(answers={200: words.RunStateView})
async def get_run(request: web.Request) -> web.Response:
    """Show how a run stands."""
    return _json(words.run_view(await _run(request)))


@describe(answers={200: words.RunStateView})
async def cancel_run(request: web.Request) -> web.Response:
    """Stop a run, in whatever state it is; one that has ended stays as it is."""
    command = CancelRun(user_id=request[USER].id, run_id=_run_id(request))
    answer = await gateway_of(request).store.ask(command)
    return _json(words.run_view(answer.run))


@describe(
    query=words.RunStreamAsked,
    headers=(LAST_EVENT_ID,),
    answers={200: Events(words.StreamEvent), 204: None},
    errors=(Conflict,),
)
async def stream_run(request: web.Request) -> web.StreamResponse:
    """Follow a run, from its start or from a cursor, during and after it.

    What follows is exactly what is missing; if that cannot be told, a ``reset``
    comes first and then everything.  After the run's last event: 204.
    """
    gateway = gateway_of(request)
    run = await _run(request)
    asked = read_query(request, words.RunStreamAsked)
    cursor = request.headers.get("Last-Event-ID") or asked.cursor
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


def _then(request: web.Request, cursor: str | None) -> int | None:
    """The moment that is asked about: a cursor's last fact; None for now.

    Raises:
        NotFound: it is a cursor of another log.
    """
    if cursor is None:
        return None
    place = gateway_of(request).cursors.parse(cursor)
    if place is None:
        raise NotFound("This log has no such place: the cursor is another's.")
    return place.seq


def _idempotency_key(request: web.Request) -> str:
    """The client's key, or one of our own, which makes our own second try harmless."""
    return request.headers.get("Idempotency-Key") or new_id()


def _wants_stream(request: web.Request) -> bool:
    asked = read_query(request, words.ReplyAsked)
    return asked.stream or "text/event-stream" in request.headers.get("Accept", "")


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=words.encode(body), status=status, content_type="application/json")
