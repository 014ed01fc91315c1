"""The Channels front ends over HTTP: ``/ai-chat/api``, in Django REST framework's manner."""

from typing import Any

from aiohttp import web

from services.gateway.asking import an_id, read_body, read_query
from services.gateway.context import RUN_ID, USER, gateway_of
from services.gateway.describing import REPLYING, describe
from services.gateway.dialects import channels as words
from services.gateway.dialects.channels import PREFIX
from services.gateway.limits import check_text
from services.gateway.moments import question_of
from services.gateway.turns import check_success, ended, following
from shared.commands import GetSession, ListMessages, ListSessions, SendMessage
from shared.errors import Conflict, NotFound
from shared.ids import new_id


def routes() -> list[web.RouteDef]:
    session = PREFIX + "/sessions/{session_id}"
    return [
        web.get(f"{PREFIX}/sessions/", list_sessions),
        web.post(f"{PREFIX}/sessions/", create_session),
        web.get(f"{session}/", get_session),
        web.patch(f"{session}/", change_session),
        web.delete(f"{session}/", delete_session),
        web.get(f"{session}/messages/", list_messages),
        web.post(f"{session}/send_message/", send_message),
    ]


@describe(query=words.SessionsAsked, answers={200: words.Page[words.SessionView]})
async def list_sessions(request: web.Request) -> web.Response:
    """List the active sessions, or all of them."""
    asked = read_query(request, words.SessionsAsked)
    found = await gateway_of(request).store.ask(
        ListSessions(
            user_id=request[USER].id,
            status=None if asked.include_inactive else "active",
            limit=asked.size,
            offset=asked.offset,
        )
    )
    return _paged(request, [words.session_view(s) for s in found.items], found.total, asked)


@describe(body=words.NewSession, answers={201: words.SessionView})
async def create_session(request: web.Request) -> web.Response:
    """Open a session."""
    gateway = gateway_of(request)
    body = await read_body(request, words.decode_new_session)
    command = words.create_session(body, request[USER].id, gateway.settings)
    answer = await gateway.store.ask(command)
    return _json(words.session_view(answer.session), status=201)


@describe(answers={200: words.SessionView})
async def get_session(request: web.Request) -> web.Response:
    """Show a session."""
    query = GetSession(user_id=request[USER].id, session_id=_session_id(request))
    answer = await gateway_of(request).store.ask(query)
    return _json(words.session_view(answer.session))


@describe(body=words.SessionChange, answers={200: words.SessionView}, errors=(Conflict,))
async def change_session(request: web.Request) -> web.Response:
    """Change some fields of a session; ``is_active: true`` brings one back."""
    session_id = _session_id(request)
    body = await read_body(request, words.decode_session_change)
    command = words.update_session(body, request[USER].id, session_id)
    answer = await gateway_of(request).store.ask(command)
    return _json(words.session_view(answer.session))


@describe(answers={204: None})
async def delete_session(request: web.Request) -> web.Response:
    """Put a session away: it becomes inactive, and stays readable."""
    command = words.deactivate(request[USER].id, _session_id(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


@describe(query=words.PageAsked, answers={200: words.Page[words.MessageView]})
async def list_messages(request: web.Request) -> web.Response:
    """Show the conversation, oldest first."""
    asked = read_query(request, words.PageAsked)
    found = await gateway_of(request).store.ask(
        ListMessages(
            user_id=request[USER].id,
            session_id=_session_id(request),
            limit=asked.size,
            offset=asked.offset,
        )
    )
    return _paged(request, [words.message_view(m) for m in found.items], found.total, asked)


@describe(body=words.NewMessage, answers={200: words.TurnView}, errors=REPLYING)
async def send_message(request: web.Request) -> web.Response:
    """Send a message, and get its reply when it is complete."""
    gateway, user = gateway_of(request), request[USER].id
    session_id = _session_id(request)
    body = await read_body(request, words.decode_new_message)
    check_text(body.text, gateway.settings, path="$.message")
    key = f"{session_id}:{body.client_id}" if body.client_id else new_id()
    accepted = await gateway.store.ask(
        SendMessage(
            user_id=user,
            session_id=session_id,
            content=body.text,
            client_id=body.client_id,
            idempotency_key=key,
        ),
    )
    request[RUN_ID] = accepted.run.id
    async with following(gateway, user, accepted.run) as follower:
        reply = await ended(gateway, follower)
    check_success(reply)
    turn = words.TurnView(
        user_message=words.message_view(
            question_of(reply.run, reply.final) or accepted.user_message
        ),
        ai_message=words.message_view(reply.message),
    )
    return _json(turn)


# -- reading requests, writing answers ----------------------------------------------


def _session_id(request: web.Request) -> str:
    return an_id(request.match_info["session_id"], "session")


def _paged(
    request: web.Request, results: list[Any], count: int, asked: words.PageAsked
) -> web.Response:
    if asked.number > 1 and not results:
        raise NotFound("Invalid page.")
    url = str(request.url.with_query(None))
    query = dict(request.query)
    query.pop("token", None)
    page = words.page_view(
        results, count=count, number=asked.number, size=asked.size, url=url, query=query
    )
    return _json(page)


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=words.encode(body), status=status, content_type="application/json")
