"""The native API's sessions: opened, listed, changed, forked, erased (docs/api.md)."""

from aiohttp import web

from services.gateway.asking import an_id, choice, number, read_body
from services.gateway.context import USER, gateway_of
from services.gateway.dialects import assistant as words
from services.gateway.dialects.assistant import PREFIX
from services.gateway.dialects.assistant_asking import answer, searched, session_id_of, window
from shared.commands import ChooseBranch, DeleteSession, ForkSession, GetSession, ListSessions
from shared.events import SessionStatus
from shared.ids import new_id

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
        web.post(PREFIX + "/sessions/{session_id}/fork", fork),
        web.put(PREFIX + "/sessions/{session_id}/active", choose_branch),
    ]


async def create_session(request: web.Request) -> web.Response:
    gateway = gateway_of(request)
    body = await read_body(request, words.decode_new_session)
    command = words.create_session(body, request[USER].id, gateway.settings)
    opened = await gateway.store.ask(command)
    return answer(words.session_view(opened.session), status=201)


async def list_sessions(request: web.Request) -> web.Response:
    gateway = gateway_of(request)
    limit, offset = window(request)
    before = number(request, "cursor", 0) or None
    mode = request.query.get("mode")
    page = await gateway.store.ask(
        ListSessions(
            user_id=request[USER].id,
            query=searched(request),
            status=choice(request, "status", _STATUSES, "active"),
            modes=[mode] if mode else None,
            limit=limit,
            before=before,
            offset=offset,
        )
    )
    items = [words.session_view(session) for session in page.items]
    further = None if page.next is None else str(page.next)
    return answer(words.Page(items=items, next_cursor=further, total=page.total))


async def get_session(request: web.Request) -> web.Response:
    query = GetSession(user_id=request[USER].id, session_id=session_id_of(request))
    found = await gateway_of(request).store.ask(query)
    return answer(words.session_view(found.session))


async def change_session(request: web.Request) -> web.Response:
    session_id = session_id_of(request)
    body = await read_body(request, words.decode_session_change)
    command = words.update_session(body, request[USER].id, session_id)
    changed = await gateway_of(request).store.ask(command)
    return answer(words.session_view(changed.session))


async def delete_session(request: web.Request) -> web.Response:
    command = DeleteSession(user_id=request[USER].id, session_id=session_id_of(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


async def fork(request: web.Request) -> web.Response:
    session_id = session_id_of(request)
    body = await read_body(request, words.decode_message_choice)
    command = ForkSession(
        user_id=request[USER].id,
        session_id=session_id,
        message_id=an_id(body.message_id, "message"),
        new_session_id=new_id(),
    )
    opened = await gateway_of(request).store.ask(command)
    return answer(words.session_view(opened.session), status=201)


async def choose_branch(request: web.Request) -> web.Response:
    session_id = session_id_of(request)
    body = await read_body(request, words.decode_message_choice)
    command = ChooseBranch(
        user_id=request[USER].id,
        session_id=session_id,
        message_id=an_id(body.message_id, "message"),
    )
    changed = await gateway_of(request).store.ask(command)
    return answer(words.session_view(changed.session))
