"""Recordings as the socket of a Channels session showed them."""

from aiohttp import web

from services.gateway.dialects.channels import wire
from services.gateway.http.requests import not_found
from services.gateway.http.websocket import Socket, serve
from services.gateway.replay.formats import ConversationFormat, Translate
from services.gateway.replay.recording import Recording
from services.gateway.replay.requests import requested_conversation, requested_speed
from services.gateway.replay.sockets import ShownConversation, answer_message
from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.errors import NatterlogError


async def session_socket(request: web.Request) -> web.WebSocketResponse:
    """``/ws/ai-chat/session/{id}/``."""
    requested_speed(request)

    async def converse(socket: Socket) -> None:
        recording = await requested_conversation(request)
        if request.match_info["session_id"] != recording.session_id:
            raise not_found("session")
        shown = ShownConversation(request, socket, recording, SESSION)
        pong = wire.encode(wire.Pong())
        shown.begin()
        try:
            async for text in socket.texts():
                answer_message(socket, text, pong=pong, refused=_refused)
        finally:
            shown.end()

    return await serve(request, converse)


def _refused(error: NatterlogError) -> bytes:
    return wire.encode(wire.refused(error))


def _greeting(recording: Recording, cursors: CursorCodec, cursor: Cursor) -> bytes:
    del cursors, cursor
    return wire.encode(wire.greeting(recording.session_id))


def _frames(recording: Recording, cursors: CursorCodec) -> Translate:
    del recording, cursors
    return wire.translate


SESSION = ConversationFormat(_greeting, _frames)
