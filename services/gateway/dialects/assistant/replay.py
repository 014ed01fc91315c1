"""Recordings as the native API showed them: on the stream of a run, and on the socket."""

from contextlib import closing

from aiohttp import web

from services.gateway.context import gateway_of
from services.gateway.dialects.assistant import socket_wire, wire
from services.gateway.http.requests import decode_frame, read_query
from services.gateway.http.sse import RETRY, stream
from services.gateway.http.websocket import Socket, serve
from services.gateway.replay.formats import ConversationFormat, Translate
from services.gateway.replay.player import Replay
from services.gateway.replay.recording import Recording
from services.gateway.replay.requests import (
    requested_conversation,
    requested_reply,
    requested_speed,
)
from services.gateway.replay.sockets import (
    ClientMessage,
    ShownConversation,
    answer_message,
    decode_message,
)
from services.gateway.sessions.client_events import ClientEvent
from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.errors import InvalidRequest, NatterlogError, NotFound

# -- the stream of a run --------------------------------------------------------------


async def stream_run(request: web.Request) -> web.StreamResponse:
    """``/runs/{run_id}/stream``, and whatever begins a run and streams it."""
    speed, recording = requested_speed(request), await requested_reply(request)
    cursor = _stream_cursor(request)
    if cursor is not None and cursor.seq >= recording.last_seq:
        return web.Response(status=204)
    replay = Replay(recording, speed, cursor)
    with closing(replay.playing):
        query = read_query(request, wire.StreamQuery)
        frames = wire.SseFrames(gateway_of(request).cursors, thoughts=query.thoughts)
        return await stream(request, replay, frames)


def _stream_cursor(request: web.Request) -> Cursor | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("cursor")
    if not text:
        return None
    cursor = gateway_of(request).cursors.parse(text)
    if cursor is None:
        raise InvalidRequest("That cursor is none of this log's.", path="$.cursor")
    return cursor


def _retry(recording: Recording, cursors: CursorCodec, cursor: Cursor) -> bytes:
    del recording, cursors, cursor
    return RETRY


def _events(recording: Recording, cursors: CursorCodec) -> Translate:
    del recording
    frames = wire.SseFrames(cursors)

    def translate(cursor: Cursor, event: ClientEvent) -> list[bytes]:
        frame = frames(cursor, event)
        return [] if frame is None else [frame]

    return translate


STREAM = ConversationFormat(_retry, _events, one_run=True)


# -- the socket -------------------------------------------------------------------------


async def socket(request: web.Request) -> web.WebSocketResponse:
    """``/api/v1/chat/ws``: as live, it begins when the client subscribes to the session."""
    requested_speed(request)

    async def converse(socket: Socket) -> None:
        recording = await requested_conversation(request)
        shown = ShownConversation(request, socket, recording, SOCKET)
        pong = wire.encode(socket_wire.Pong())
        try:
            async for text in socket.texts():
                message = _subscribe(text)
                if message is None:
                    answer_message(socket, text, pong=pong, refused=_refused)
                elif message.session_id != recording.session_id:
                    socket.reply(_refused(NotFound("This replay shows another session.")))
                else:
                    shown.begin(_cursor_in(request, recording, message.cursor))
        finally:
            shown.end()

    return await serve(request, converse)


def _subscribe(text: bytes) -> ClientMessage | None:
    try:
        message = decode_frame(text, decode_message)
    except InvalidRequest:
        return None
    return message if message.type == "subscribe" else None


def _cursor_in(request: web.Request, recording: Recording, text: str | None) -> Cursor | None:
    """Where the client was cut off; None when its cursor is of elsewhere, or of the end."""
    cursor = gateway_of(request).cursors.parse(text) if text else None
    if cursor is None or not recording.first_seq - 1 <= cursor.seq < recording.last_seq:
        return None
    return cursor


def _refused(error: NatterlogError) -> bytes:
    return wire.encode(socket_wire.Refused(message=error.message, code=error.code))


def _subscribed(recording: Recording, cursors: CursorCodec, cursor: Cursor) -> bytes:
    where = {"session_id": recording.session_id, "cursor": cursors.format(cursor)}
    return wire.encode(socket_wire.Subscribed(**where))


def _frames(recording: Recording, cursors: CursorCodec) -> Translate:
    def translate(cursor: Cursor, event: ClientEvent) -> list[bytes]:
        where = {"session_id": recording.session_id, "cursor": cursors.format(cursor)}
        return socket_wire.frames_of(event, **where)

    return translate


SOCKET = ConversationFormat(_subscribed, _frames, shows_branches=True)
