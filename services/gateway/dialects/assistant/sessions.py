"""The native API's sessions: opened, listed, changed, forked, erased (docs/api.md)."""

from aiohttp import web

from services.gateway.context import USER, gateway_of
from services.gateway.dialects.assistant import wire
from services.gateway.dialects.assistant.requests import (
    answer,
    as_of_seq,
    check_searched,
    session_id_of,
)
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import describe
from services.gateway.http.requests import read_body, read_change, read_query, require_id
from services.gateway.presets import find_preset, with_preset
from shared.commands import ChooseBranch, DeleteSession, ForkSession, GetSession, ListSessions
from shared.errors import Conflict, ModelNotFound, NotFound
from shared.ids import new_id


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{PREFIX}/sessions", create_session),
        web.get(f"{PREFIX}/sessions", list_sessions),
        web.get(PREFIX + "/sessions/{session_id}", get_session),
        web.patch(PREFIX + "/sessions/{session_id}", change_session),
        web.delete(PREFIX + "/sessions/{session_id}", delete_session),
        web.post(PREFIX + "/sessions/{session_id}/fork", fork),
        web.put(PREFIX + "/sessions/{session_id}/active", choose_branch),
    ]


@describe(body=wire.NewSession, answers={201: wire.SessionView}, errors=(NotFound, ModelNotFound))
async def create_session(request: web.Request) -> web.Response:
    """Open a session."""
    gateway = gateway_of(request)
    user = request[USER].id
    body = await read_body(request, wire.decode_new_session)
    if body.preset_id is not None:
        preset = await find_preset(gateway.store, user, body.preset_id, path="$.preset_id")
        body = with_preset(body, preset)
    opened = await gateway.store.ask(wire.create_session(body, user, gateway.settings))
    return answer(wire.session_view(opened.session), status=201)


@describe(query=wire.SessionsQuery, answers={200: wire.Page[wire.SessionView]})
async def list_sessions(request: web.Request) -> web.Response:
    """List the sessions, the one last written to first."""
    gateway = gateway_of(request)
    query = read_query(request, wire.SessionsQuery)
    page = await gateway.store.ask(
        ListSessions(
            user_id=request[USER].id,
            query=check_searched(query.q),
            status=None if query.status == "all" else query.status,
            modes=[query.mode] if query.mode else None,
            limit=query.most,
            before=query.cursor or None,
            offset=query.offset,
        )
    )
    items = [wire.session_view(session) for session in page.items]
    next_cursor = None if page.next is None else str(page.next)
    return answer(wire.Page(items=items, next_cursor=next_cursor, total=page.total))


@describe(query=wire.SessionQuery, answers={200: wire.SessionView})
async def get_session(request: web.Request) -> web.Response:
    """Show a session, as it is or as it was."""
    at = as_of_seq(request, read_query(request, wire.SessionQuery).at)
    query = GetSession(user_id=request[USER].id, session_id=session_id_of(request), at=at)
    found = await gateway_of(request).store.ask(query)
    return answer(wire.session_view(found.session))


@describe(
    body=wire.SessionChange, answers={200: wire.SessionView}, errors=(Conflict, ModelNotFound)
)
async def change_session(request: web.Request) -> web.Response:
    """Change some fields of a session; what is not sent stays."""
    session_id = session_id_of(request)
    body = await read_change(request, wire.decode_session_change, wire.SessionChange())
    command = wire.update_session(body, request[USER].id, session_id)
    changed = await gateway_of(request).store.ask(command)
    return answer(wire.session_view(changed.session))


@describe(answers={204: None})
async def delete_session(request: web.Request) -> web.Response:
    """Erase a session and every word of it.

    A reply that is being written is cancelled first.
    """
    command = DeleteSession(user_id=request[USER].id, session_id=session_id_of(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


@describe(body=wire.MessageChoice, answers={201: wire.SessionView}, errors=(Conflict,))
async def fork(request: web.Request) -> web.Response:
    """Open a session that begins with this one's branch up to a message.

    The messages are copied under new ids, so that either session can be deleted.
    """
    session_id = session_id_of(request)
    body = await read_body(request, wire.decode_message_choice)
    command = ForkSession(
        user_id=request[USER].id,
        session_id=session_id,
        message_id=require_id(body.message_id, "message"),
        new_session_id=new_id(),
    )
    opened = await gateway_of(request).store.ask(command)
    return answer(wire.session_view(opened.session), status=201)


@describe(body=wire.MessageChoice, answers={200: wire.SessionView}, errors=(Conflict,))
async def choose_branch(request: web.Request) -> web.Response:
    """Make the branch through a message the active one, up to its newest message.

    Refused while a reply is being written in this session.
    """
    session_id = session_id_of(request)
    body = await read_body(request, wire.decode_message_choice)
    command = ChooseBranch(
        user_id=request[USER].id,
        session_id=session_id,
        message_id=require_id(body.message_id, "message"),
    )
    changed = await gateway_of(request).store.ask(command)
    return answer(wire.session_view(changed.session))
