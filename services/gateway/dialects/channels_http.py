"""The Channels front ends over HTTP: ``/ai-chat/api``, in Django REST framework's manner."""

from aiohttp import web

from services.gateway.asking import MOST, an_id, number, read_body
from services.gateway.context import RUN_ID, USER, gateway_of
from services.gateway.dialects import channels as words
from services.gateway.dialects.channels import PREFIX
from services.gateway.limits import check_text
from services.gateway.moments import question_of
from services.gateway.starting import start
from services.gateway.turns import check_success, ended, following
from shared.commands import GetSession, ListMessages, ListSessions, SendMessage
from shared.errors import NotFound
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


async def list_sessions(request: web.Request) -> web.Response:
    page, size = _page(request)
    everything = request.query.get("include_inactive", "").lower() in ("1", "true")
    found = await gateway_of(request).store.ask(
        ListSessions(
            user_id=request[USER].id,
            status=None if everything else "active",
            limit=size,
            offset=(page - 1) * size,
        )
    )
    return _paged(request, [words.session_view(s) for s in found.items], found.total, page, size)


async def create_session(request: web.Request) -> web.Response:
    gateway = gateway_of(request)
    body = await read_body(request, words.decode_new_session)
    command = words.create_session(body, request[USER].id, gateway.settings)
    answer = await gateway.store.ask(command)
    return _json(words.session_view(answer.session), status=201)


async def get_session(request: web.Request) -> web.Response:
    query = GetSession(user_id=request[USER].id, session_id=_session_id(request))
    answer = await gateway_of(request).store.ask(query)
    return _json(words.session_view(answer.session))


async def change_session(request: web.Request) -> web.Response:
    session_id = _session_id(request)
    body = await read_body(request, words.decode_session_change)
    command = words.update_session(body, request[USER].id, session_id)
    answer = await gateway_of(request).store.ask(command)
    return _json(words.session_view(answer.session))


async def delete_session(request: web.Request) -> web.Response:
    command = words.deactivate(request[USER].id, _session_id(request))
    await gateway_of(request).store.ask(command)
    return web.Response(status=204)


async def list_messages(request: web.Request) -> web.Response:
    page, size = _page(request)
    found = await gateway_of(request).store.ask(
        ListMessages(
            user_id=request[USER].id,
            session_id=_session_id(request),
            limit=size,
            offset=(page - 1) * size,
        )
    )
    return _paged(request, [words.message_view(m) for m in found.items], found.total, page, size)


async def send_message(request: web.Request) -> web.Response:
    gateway, user = gateway_of(request), request[USER].id
    session_id = _session_id(request)
    body = await read_body(request, words.decode_new_message)
    check_text(body.text, gateway.settings, path="$.message")
    key = f"{session_id}:{body.client_id}" if body.client_id else new_id()
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


def _page(request: web.Request) -> tuple[int, int]:
    size = min(number(request, "page_size", words.PAGE_SIZE), MOST)
    text = request.query.get("page", "1")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
        raise NotFound("Invalid page.")
    return int(text), size


def _paged(
    request: web.Request, results: list[object], count: int, page: int, size: int
) -> web.Response:
    if page > 1 and not results:
        raise NotFound("Invalid page.")
    url = str(request.url.with_query(None))
    query = dict(request.query)
    query.pop("token", None)
    return _json(
        words.page_view(results, count=count, number=page, size=size, url=url, query=query)
    )


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=words.encode(body), status=status, content_type="application/json")
