"""The Channels front ends over HTTP: ``/ai-chat/api``, in Django REST framework's manner."""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager

from aiohttp import web

from services.gateway.access.limits import check_text
from services.gateway.context import RUN_ID, USER, gateway_of
from services.gateway.dialects.channels import wire
from services.gateway.dialects.channels.drf import Page, PageQuery
from services.gateway.dialects.channels.drf_http import Listed, json, page, read_fields
from services.gateway.dialects.channels.wire import PREFIX
from services.gateway.http.describe import REPLYING, JsonOrForm, describe
from services.gateway.http.follow_run import check_success, follow_run, wait_for_end
from services.gateway.http.requests import read_query, require_id
from services.gateway.http.start_run import start
from services.gateway.sessions.client_events import question_of
from shared.commands import (
    GetSession,
    GetStatistics,
    ListMessages,
    ListSessions,
    SendMessage,
)
from shared.errors import Conflict, NatterlogError, NotFound
from shared.records import Statistics

_CHANGE = JsonOrForm(wire.SessionChange)


def routes() -> list[web.RouteDef]:
    session = PREFIX + "/sessions/{session_id}"
    return [
        web.get(f"{PREFIX}/sessions/", list_sessions),
        web.post(f"{PREFIX}/sessions/", create_session),
        web.get(f"{session}/", get_session),
        web.put(f"{session}/", replace_session),
        web.patch(f"{session}/", change_session),
        web.delete(f"{session}/", delete_session),
        web.get(f"{session}/messages/", list_messages),
        web.post(f"{session}/send_message/", send_message),
        web.get(f"{PREFIX}/health/stats/", statistics),
    ]


@describe(query=wire.SessionsQuery, answers={200: Page[wire.SessionView]}, errors=(NotFound,))
async def list_sessions(request: web.Request) -> web.Response:
    """List the active sessions, or all of them; the one last written to first."""
    store, user = gateway_of(request).store, request[USER].id
    query = read_query(request, wire.SessionsQuery)
    status = None if query.include_inactive else "active"

    def read(limit: int, offset: int) -> Awaitable[Listed]:
        return store.ask(ListSessions(user_id=user, status=status, limit=limit, offset=offset))

    return await page(request, query, read, wire.session_view)


@describe(body=JsonOrForm(wire.NewSession), answers={201: wire.SessionView})
async def create_session(request: web.Request) -> web.Response:
    """Open a session."""
    gateway = gateway_of(request)
    body = await read_fields(request, wire.NEW_SESSION)
    command = wire.create_session(body, request[USER].id, gateway.settings)
    answer = await gateway.store.ask(command)
    return json(wire.session_view(answer.session), status=201)


@describe(answers={200: wire.SessionView})
async def get_session(request: web.Request) -> web.Response:
    """Show a session."""
    answer = await gateway_of(request).store.ask(_get_session(request))
    return json(wire.session_view(answer.session))


@describe(body=_CHANGE, answers={200: wire.SessionView}, errors=(Conflict,))
async def change_session(request: web.Request) -> web.Response:
    """Change some fields of a session; ``is_active: true`` brings one back."""
    return await _changed(request)


@describe(body=_CHANGE, answers={200: wire.SessionView}, errors=(Conflict,))
async def replace_session(request: web.Request) -> web.Response:
    """Change a session; it has no field that must be there, so what is left out stays."""
    return await _changed(request)


async def _changed(request: web.Request) -> web.Response:
    async with _session_first(request):
        body = await read_fields(request, wire.SESSION_CHANGE)
    command = wire.update_session(body, request[USER].id, _session_id(request))
    answer = await gateway_of(request).store.ask(command)
    return json(wire.session_view(answer.session))


@describe(answers={204: None})
async def delete_session(request: web.Request) -> web.Response:
    """Put a session away: it becomes inactive, and stays readable."""
    command = wire.deactivate(request[USER].id, _session_id(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


@describe(query=PageQuery, answers={200: Page[wire.MessageView]})
async def list_messages(request: web.Request) -> web.Response:
    """Show the conversation, oldest first."""
    store, session = gateway_of(request).store, _get_session(request)
    query = read_query(request, PageQuery)

    def read(limit: int, offset: int) -> Awaitable[Listed]:
        return store.ask(
            ListMessages(
                user_id=session.user_id,
                session_id=session.session_id,
                limit=limit,
                offset=offset,
            )
        )

    return await page(request, query, read, wire.message_view)


@describe(body=JsonOrForm(wire.NewMessage), answers={200: wire.TurnView}, errors=REPLYING)
async def send_message(request: web.Request) -> web.Response:
    """Send a message, and get its reply when it is complete."""
    gateway, user = gateway_of(request), request[USER].id
    session_id = _session_id(request)
    async with _session_first(request):
        body = await read_fields(request, wire.NEW_MESSAGE)
        check_text(body.text, gateway.settings, path="$.message")
    key = f"{session_id}:{body.client_id}" if body.client_id else None
    accepted = await start(
        request,
        SendMessage(
            user_id=user,
            session_id=session_id,
            content=body.text,
            client_id=body.client_id,
            idempotency_key=key,
        ),
    )
    request[RUN_ID] = accepted.run.id
    async with follow_run(gateway, user, accepted.run) as follower:
        reply = await wait_for_end(gateway, follower)
    check_success(reply)
    turn = wire.TurnView(
        user_message=wire.message_view(question_of(reply.run) or accepted.user_message),
        ai_message=wire.message_view(reply.message),
    )
    return json(turn)


@describe(answers={200: Statistics})
async def statistics(request: web.Request) -> web.Response:
    """Count what the user has, and what it took."""
    query = GetStatistics(user_id=request[USER].id)
    answer = await gateway_of(request).store.ask(query)
    return json(answer.statistics)


# -- reading requests ---------------------------------------------------------------


def _session_id(request: web.Request) -> str:
    return require_id(request.match_info["session_id"], "session")


def _get_session(request: web.Request) -> GetSession:
    return GetSession(user_id=request[USER].id, session_id=_session_id(request))


@asynccontextmanager
async def _session_first(request: web.Request) -> AsyncGenerator[None]:
    """Say that a session is not there before anything that is wrong with what was sent to it.

    Raises:
        NotFound: there is no such session.
    """
    get_session = _get_session(request)
    try:
        yield
    except NatterlogError:
        await gateway_of(request).store.ask(get_session)
        raise
