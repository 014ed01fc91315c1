"""Recordings over sockets: what is shown, and what a front end is answered that talks to it."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager

import msgspec
from aiohttp import web

from services.gateway.context import gateway_of
from services.gateway.http.requests import decode_frame
from services.gateway.http.websocket import Socket, Track
from services.gateway.replay.formats import ConversationFormat, TranslateJob
from services.gateway.replay.player import JobReplay, Replay
from services.gateway.replay.recording import Recording
from services.gateway.replay.requests import requested_speed
from services.gateway.sessions.cursor import Cursor
from shared.errors import Conflict, NatterlogError


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Any message of a client; few of them mean something to a recording."""

    type: str
    session_id: str | None = None
    cursor: str | None = None


decode_message = msgspec.json.Decoder(ClientMessage).decode
_IGNORED = frozenset(("typing", "stop_typing", "subscribe", "unsubscribe"))
"""What front ends send by themselves, and what means nothing here."""


def answer_message(
    socket: Socket, text: bytes, *, pong: bytes, refused: Callable[[NatterlogError], bytes]
) -> None:
    """Answer a front end that takes a recording for its live socket."""
    try:
        message = decode_frame(text, decode_message)
        if message.type == "ping":
            socket.reply(pong)
        elif message.type not in _IGNORED:
            raise Conflict("This is a replay: nothing is sent, stopped or begun.")
    except NatterlogError as error:
        socket.reply(refused(error))


class ShownConversation:
    """A recorded conversation on a socket, from its opening on."""

    def __init__(
        self,
        request: web.Request,
        socket: Socket,
        recording: Recording,
        shown_as: ConversationFormat,
    ) -> None:
        self._cursors = gateway_of(request).cursors
        self._speed = requested_speed(request)
        self._socket = socket
        self._recording = recording
        self._format = shown_as
        self._shown = ExitStack()

    def begin(self, cursor: Cursor | None = None) -> None:
        """Show it from ``cursor`` on, or from its start once more."""
        self.end()
        branches = self._format.shows_branches
        replay = Replay(self._recording, self._speed, cursor, shows_branches=branches)
        translate = self._format.translator(self._recording, self._cursors)
        self._socket.reply(self._format.opening(self._recording, self._cursors, replay.cursor))
        self._shown.enter_context(closing(replay.playing))
        self._shown.enter_context(Track(self._socket, replay, translate).shown())

    def end(self) -> None:
        self._shown.close()


@contextmanager
def shown_job(
    request: web.Request, socket: Socket, recording: Recording, translate: TranslateJob
) -> Generator[None]:
    """Show a recorded job on a socket while the block runs.

    Raises:
        NotFound: it is no job.
    """
    shown = JobReplay(recording, requested_speed(request), translate, lambda: socket.due(shown))
    with closing(shown.playing), socket.showing(shown):
        yield
