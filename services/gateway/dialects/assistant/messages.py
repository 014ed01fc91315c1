"""The native API's messages: sent, said in another way, answered anew, rated, listed, searched."""

from aiohttp import web

from services.gateway.access.limits import check_text
from services.gateway.context import RUN_ID, USER, gateway_of
from services.gateway.dialects.assistant import replay, wire
from services.gateway.dialects.assistant.requests import (
    answer,
    as_of_seq,
    check_searched,
    idempotency_key,
    message_id_of,
    next_cursor,
    session_id_of,
    wants_stream,
)
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import IDEMPOTENCY_KEY, REPLYING, Events, describe
from services.gateway.http.follow_run import check_success, follow_run, wait_for_end
from services.gateway.http.requests import not_found, read_body, read_query, require_id
from services.gateway.http.sse import stream
from services.gateway.http.start_run import start
from services.gateway.sessions.client_events import question_of
from shared.commands import (
    Accepted,
    ContinueReply,
    EditMessage,
    ListMessages,
    RateMessage,
    Regenerate,
    SearchMessages,
    SendMessage,
)
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import is_id
from shared.records import Hit, Message

_TURN = {201: wire.TurnView, 200: Events(wire.RunEvent)}


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{PREFIX}/messages", send_message),
        web.get(PREFIX + "/messages/{session_id}", list_messages),
        web.post(PREFIX + "/messages/{message_id}/regenerate", regenerate),
        web.post(PREFIX + "/messages/{message_id}/continue", continue_reply),
        web.post(PREFIX + "/messages/{message_id}/edit", edit),
        web.put(PREFIX + "/messages/{message_id}/feedback", rate),
        web.get(f"{PREFIX}/search", search),
    ]


@describe(
    query=wire.ReplyQuery,
    body=wire.NewMessage,
    headers=(IDEMPOTENCY_KEY,),
    answers=_TURN,
    errors=REPLYING,
    replay=replay.stream_run,
)
async def send_message(request: web.Request) -> web.StreamResponse:
    """Send a message, and get its reply.

    With ``?stream=true`` or ``Accept: text/event-stream`` it is streamed, else the
    answer waits for its end.  Closing the stream stops nothing: the run goes on.
    """
    gateway = gateway_of(request)
    streaming = wants_stream(request)
    body = await read_body(request, wire.decode_new_message)
    require_id(body.session_id, "session")
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
                idempotency_key=idempotency_key(request),
            ),
        )
        return await _answer_turn(request, accepted, streaming=streaming)


@describe(
    query=wire.ReplyQuery,
    headers=(IDEMPOTENCY_KEY,),
    answers=_TURN,
    errors=REPLYING,
    replay=replay.stream_run,
)
async def regenerate(request: web.Request) -> web.StreamResponse:
    """Answer a message once more, as a sibling of its reply."""
    return await _answer_again(request, Regenerate)


@describe(
    query=wire.ReplyQuery,
    headers=(IDEMPOTENCY_KEY,),
    answers=_TURN,
    errors=REPLYING,
    replay=replay.stream_run,
)
async def continue_reply(request: web.Request) -> web.StreamResponse:
    """Have a reply go on that was cut at a limit, or cancelled: the same message grows.

    It must be the last of its branch.  The stream tells the whole of it, the old text
    first; a continuation that fails leaves the message as it was.
    """
    return await _answer_again(request, ContinueReply)


@describe(
    query=wire.ReplyQuery,
    body=wire.Edit,
    headers=(IDEMPOTENCY_KEY,),
    answers=_TURN,
    errors=REPLYING,
    replay=replay.stream_run,
)
async def edit(request: web.Request) -> web.StreamResponse:
    """Say a message in another way: a branch beside it, with a reply of its own."""
    gateway = gateway_of(request)
    streaming = wants_stream(request)
    message_id = message_id_of(request)
    body = await read_body(request, wire.decode_edit)
    check_text(body.content, gateway.settings, path="$.content")
    accepted = await start(
        request,
        EditMessage(
            user_id=request[USER].id,
            message_id=message_id,
            content=body.content,
            attachments=body.attachments,
            model=body.model,
            temperature=body.temperature,
            max_tokens=body.max_tokens,
            idempotency_key=idempotency_key(request),
        ),
    )
    return await _answer_turn(request, accepted, streaming=streaming)


@describe(body=wire.Feedback, answers={200: Message}, errors=(Conflict,))
async def rate(request: web.Request) -> web.Response:
    """Say what a reply is worth; a rating of null takes it back."""
    message_id = message_id_of(request)
    body = await read_body(request, wire.decode_feedback)
    rated = await gateway_of(request).store.ask(
        RateMessage(
            user_id=request[USER].id,
            message_id=message_id,
            rating=body.rating,
            comment=body.comment,
        )
    )
    return answer(rated.message)


async def _answer_again(
    request: web.Request, command: type[Regenerate | ContinueReply]
) -> web.StreamResponse:
    """Begin another run about a message that is there, and answer with its turn."""
    streaming = wants_stream(request)
    accepted = await start(
        request,
        command(
            user_id=request[USER].id,
            message_id=message_id_of(request),
            idempotency_key=idempotency_key(request),
        ),
    )
    return await _answer_turn(request, accepted, streaming=streaming)


async def _answer_turn(
    request: web.Request, accepted: Accepted, *, streaming: bool
) -> web.StreamResponse:
    gateway = gateway_of(request)
    request[RUN_ID] = accepted.run.id
    async with follow_run(gateway, request[USER].id, accepted.run) as follower:
        if streaming:
            thoughts = read_query(request, wire.ReplyQuery).thoughts
            frames = wire.SseFrames(gateway.cursors, thoughts=thoughts)
            return await stream(request, follower, frames)
        reply = await wait_for_end(gateway, follower)
    check_success(reply)
    question = question_of(reply.run) or accepted.user_message
    turn = wire.TurnView(user_message=question, assistant_message=reply.message)
    return answer(turn, status=201)


@describe(query=wire.MessagesQuery, answers={200: wire.Page[Message]})
async def list_messages(request: web.Request) -> web.Response:
    """Show the conversation: the active branch, messages that wait at its end."""
    query = read_query(request, wire.MessagesQuery)
    page = await gateway_of(request).store.ask(
        ListMessages(
            user_id=request[USER].id,
            session_id=session_id_of(request),
            limit=query.most,
            offset=query.start,
            descending=query.order == "desc",
            all_branches=query.branches == "all",
            at=as_of_seq(request, query.at),
        )
    )
    return answer(
        wire.Page(
            items=page.items,
            next_cursor=next_cursor(query.start, len(page.items), page.total),
            total=page.total,
        )
    )


@describe(query=wire.SearchQuery, answers={200: wire.Page[Hit]}, errors=(NotFound,))
async def search(request: web.Request) -> web.Response:
    """Find messages by their words, the newest first.

    All of the words must be there; what stands in quotes must stand so.  The last
    word may be the beginning of one.
    """
    query = read_query(request, wire.SearchQuery)
    text = check_searched(query.q)
    if text is None:
        raise InvalidRequest("Say what to search for.", path="$.q")
    if query.cursor and not is_id(query.cursor):
        raise not_found("page")
    page = await gateway_of(request).store.ask(
        SearchMessages(
            user_id=request[USER].id,
            query=text,
            limit=query.window.most,
            offset=query.window.offset,
            before=query.cursor or None,
        )
    )
    return answer(wire.Page(items=page.items, next_cursor=page.next, total=page.total))
