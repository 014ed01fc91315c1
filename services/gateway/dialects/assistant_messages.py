"""The native API's messages: sent, said in another way, answered anew, rated, listed, searched."""

from aiohttp import web

from services.gateway.asking import MOST, an_id, choice, missing, number, read_body
from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.dialects import assistant as words
from services.gateway.dialects.assistant import PREFIX
from services.gateway.dialects.assistant_asking import (
    answer,
    idempotency_key,
    message_id_of,
    numbered_page,
    numbered_window,
    searched,
    session_id_of,
    wants_stream,
)
from services.gateway.limits import check_text
from services.gateway.moments import question_of
from services.gateway.sse import stream
from services.gateway.turns import check_success, ended, following
from shared.commands import (
    Accepted,
    EditMessage,
    ListMessages,
    RateMessage,
    Regenerate,
    SearchMessages,
    SendMessage,
)
from shared.errors import InvalidRequest
from shared.ids import is_id


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{PREFIX}/messages", send_message),
        web.get(PREFIX + "/messages/{session_id}", list_messages),
        web.post(PREFIX + "/messages/{message_id}/regenerate", regenerate),
        web.post(PREFIX + "/messages/{message_id}/edit", edit),
        web.put(PREFIX + "/messages/{message_id}/feedback", rate),
        web.get(f"{PREFIX}/search", search),
    ]


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
                idempotency_key=idempotency_key(request),
            )
        )
        return await _answer_turn(request, gateway, accepted)


async def regenerate(request: web.Request) -> web.StreamResponse:
    gateway = gateway_of(request)
    message_id = message_id_of(request)
    accepted = await gateway.store.ask(
        Regenerate(
            user_id=request[USER].id,
            message_id=message_id,
            idempotency_key=idempotency_key(request),
        )
    )
    return await _answer_turn(request, gateway, accepted)


async def edit(request: web.Request) -> web.StreamResponse:
    gateway = gateway_of(request)
    message_id = message_id_of(request)
    body = await read_body(request, words.decode_edit)
    check_text(body.content, gateway.settings, path="$.content")
    accepted = await gateway.store.ask(
        EditMessage(
            user_id=request[USER].id,
            message_id=message_id,
            content=body.content,
            attachments=body.attachments,
            model=body.model,
            temperature=body.temperature,
            max_tokens=body.max_tokens,
            idempotency_key=idempotency_key(request),
        )
    )
    return await _answer_turn(request, gateway, accepted)


async def rate(request: web.Request) -> web.Response:
    message_id = message_id_of(request)
    body = await read_body(request, words.decode_feedback)
    rated = await gateway_of(request).store.ask(
        RateMessage(
            user_id=request[USER].id,
            message_id=message_id,
            rating=body.rating,
            comment=body.comment,
        )
    )
    return answer(rated.message)


async def _answer_turn(
    request: web.Request, gateway: Gateway, accepted: Accepted
) -> web.StreamResponse:
    request[RUN_ID] = accepted.run.id
    async with following(gateway, request[USER].id, accepted.run) as follower:
        if wants_stream(request):
            frames = words.SseFrames(gateway.cursors)
            return await stream(request, follower, frames)
        reply = await ended(gateway, follower)
    check_success(reply)
    asked = question_of(reply.run, reply.final) or accepted.user_message
    turn = words.TurnView(user_message=asked, assistant_message=reply.message)
    return answer(turn, status=201)


async def list_messages(request: web.Request) -> web.Response:
    limit, offset = numbered_window(request)
    page = await gateway_of(request).store.ask(
        ListMessages(
            user_id=request[USER].id,
            session_id=session_id_of(request),
            limit=limit,
            offset=offset,
            descending=choice(request, "order", {"asc": False, "desc": True}, "asc"),
            all_branches=choice(request, "branches", {"active": False, "all": True}, "active"),
        )
    )
    return answer(numbered_page([*page.items], offset, page.total))


async def search(request: web.Request) -> web.Response:
    query = searched(request)
    if query is None:
        raise InvalidRequest("Say what to search for.", path="$.q")
    if len(query) > words.QUERY_LENGTH:
        raise InvalidRequest(f"A search may have {words.QUERY_LENGTH} characters.", path="$.q")
    before = request.query.get("cursor") or None
    if before is not None and not is_id(before):
        raise missing("page")
    page = await gateway_of(request).store.ask(
        SearchMessages(
            user_id=request[USER].id,
            query=query,
            limit=min(number(request, "limit", 50), MOST),
            before=before,
        )
    )
    return answer(words.Page(items=page.items, next_cursor=page.next, total=page.total))
