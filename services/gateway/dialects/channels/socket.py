"""The Channels front ends' sockets: one session live, and the list of sessions."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, get_args

import msgspec
from aiohttp import web

from services.gateway.access.limits import NonBlank, check_text
from services.gateway.context import USER, Gateway, gateway_of
from services.gateway.dialects.channels import replay, wire
from services.gateway.http.describe import describe_socket
from services.gateway.http.requests import decode_frame, require_id
from services.gateway.http.start_run import start
from services.gateway.http.websocket import Socket, Track, serve
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import Follower
from services.gateway.sessions.typing_signals import Typing, send_typing
from shared.commands import Accepted, CancelRun, GetMessage, GetSession, Regenerate, SendMessage
from shared.errors import InvalidRequest, NatterlogError, NotFound
from shared.events import (
    Fact,
    RunEnded,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
    decode_fact,
)
from shared.records import HIDDEN_MODES
from shared.subjects import fact_kind, parse

# -- what clients send ----------------------------------------------------------


class Send(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="send_message"):
    """Send a message; the same `client_id` is the same message."""

    message: NonBlank | None = None
    content: NonBlank | None = None
    """Another name of `message`."""
    client_id: wire.ClientId | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stop"):
    """Stop the reply that is being written."""


class Again(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="regenerate"):
    """Have a message answered once more."""

    message_id: str | None = None
    """Without it: the last reply."""


class IsTyping(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="typing"):
    """Tell the session's other sockets."""


class StoppedTyping(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stop_typing"):
    """Tell the session's other sockets."""


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ping"):
    """Ask for a `pong`."""


ClientMessage = Send | Stop | Again | IsTyping | StoppedTyping | Ping
_decode = msgspec.json.Decoder(ClientMessage).decode


def routes() -> list[web.RouteDef]:
    return [
        web.get(wire.SESSION_SOCKET, session_socket, allow_head=False),
        web.get(wire.LIST_SOCKET, list_socket, allow_head=False),
    ]


# -- one session ------------------------------------------------------------------


@describe_socket(
    receives=ClientMessage, sends=get_args(wire.OnSession), replay=replay.session_socket
)
async def session_socket(request: web.Request) -> web.WebSocketResponse:
    """One session live; all of its sockets see the same, in the same order.

    A new connection is greeted, and told a reply that is being written with one chunk
    of all its text so far.  A reply that starts over is told by ``ai_typing`` and a
    chunk whose ``full_content`` is empty.
    """

    async def converse(socket: Socket) -> None:
        gateway, user = gateway_of(request), request[USER].id
        session_id = require_id(request.match_info["session_id"], "session")
        async with gateway.hub.feed(user, session_id) as feed:
            client = _Client(gateway, user, socket, feed)
            client.greet()
            with client.shown():
                async for text in socket.texts():
                    await client.take(text)

    return await serve(request, converse)


class _Client:
    """What one socket's client may ask for."""

    def __init__(self, gateway: Gateway, user: str, socket: Socket, feed: Feed) -> None:
        self._gateway = gateway
        self._user = user
        self._socket = socket
        self._feed = feed
        self._began = feed.state.snapshot
        follower = Follower(feed, self._began.cursor)
        self._track = Track(socket, follower, wire.translate, alone=True)
        self._handlers: dict[type[ClientMessage], Callable[[Any], Awaitable[None]]] = {
            Send: self._on_send_message,
            Stop: self._on_stop,
            Again: self._on_regenerate,
            IsTyping: self._on_typing,
            StoppedTyping: self._on_typing,
            Ping: self._on_ping,
        }

    def greet(self) -> None:
        """Greet, and say that a reply is being written right now; its text follows by itself."""
        self._send(wire.greeting(self._feed.session_id))
        if any(not run.waiting for run in self._began.unfinished):
            self._send(wire.AiTyping())

    @contextmanager
    def shown(self) -> Generator[None]:
        """Show the session, and who is typing in it, while the block runs."""
        with self._track.shown(), self._feed.typing.watching(self._show_typing):
            yield

    async def take(self, text: bytes) -> None:
        """Do what one message asks for; what is refused is answered, and the socket stays."""
        try:
            message: ClientMessage = decode_frame(text, _decode)
            await self._handlers[type(message)](message)
        except NatterlogError as error:
            self._send(wire.refused(error))

    def _show_typing(self, signal: Typing) -> None:
        if signal.socket != self._socket.id:
            frame = wire.UserTyping(user=signal.user, typing=signal.typing)
            self._socket.mention(wire.encode(frame))

    async def _on_send_message(self, message: Send) -> None:
        body = wire.NewMessage(message=message.message, content=message.content)
        check_text(body.text, self._gateway.settings, path="$.message")
        session_id, client_id = self._feed.session_id, message.client_id
        accepted = await start(
            self._socket.request,
            SendMessage(
                user_id=self._user,
                session_id=session_id,
                content=body.text,
                client_id=client_id,
                idempotency_key=f"{session_id}:{client_id}" if client_id else None,
            ),
        )
        await self._answer_sent_again(accepted, client_id)

    async def _answer_sent_again(self, accepted: Accepted, client_id: str | None) -> None:
        """Show whoever sent a message that was there already that it is, and its reply's end.

        What this socket sees by itself is not shown here: a message that is yet to come to
        it, and whatever is written or ends from now on.
        """
        run = accepted.run
        answered_anew = accepted.user_message.run_id != run.id
        seen = run.first_seq <= self._track.follower.cursor.seq
        if answered_anew or (accepted.repeated and seen):
            self._send(wire.user_message(accepted.user_message, client_id))
        if (
            run.ended_at is None
            or run.last_seq > self._began.cursor.seq
            or self._feed.state.unfinished
        ):
            return
        query = GetMessage(
            user_id=self._user,
            session_id=accepted.run.session_id,
            message_id=accepted.assistant_message_id,
        )
        reply = (await self._gateway.store.ask(query)).message
        for frame in wire.frames_of_end(reply, run.status, run.error):
            self._send(frame)

    async def _on_stop(self, message: Stop) -> None:
        del message
        runs = sorted(self._feed.state.unfinished.values(), key=lambda run: run.waiting)
        if runs:  # what is being written; between two replies what comes next
            await self._gateway.store.ask(CancelRun(user_id=self._user, run_id=runs[0].run_id))

    async def _on_regenerate(self, message: Again) -> None:
        message_id = message.message_id
        if message_id is not None:
            require_id(message_id, "message")
        await start(
            self._socket.request,
            Regenerate(
                user_id=self._user,
                session_id=self._feed.session_id,
                message_id=message_id,
            ),
        )

    async def _on_typing(self, message: IsTyping | StoppedTyping) -> None:
        signal = Typing(
            user=self._user, typing=isinstance(message, IsTyping), socket=self._socket.id
        )
        send_typing(self._gateway.bus, self._user, self._feed.session_id, signal)

    async def _on_ping(self, message: Ping) -> None:
        del message
        self._send(wire.Pong())

    def _send(self, frame: wire.Frame) -> None:
        self._socket.reply(wire.encode(frame))


# -- the list of sessions -----------------------------------------------------------


@describe_socket(receives=Ping, sends=get_args(wire.OnList))
async def list_socket(request: web.Request) -> web.WebSocketResponse:
    """The list of the user's sessions live, those of other dialects included."""

    async def converse(socket: Socket) -> None:
        gateway, user = gateway_of(request), request[USER].id
        sessions = ListedSessions(gateway, user, socket)
        async with gateway.hub.facts_of(user) as facts:
            with facts.watching(sessions.on_fact):
                greeting = wire.ConnectionEstablished(message="Connected to session updates")
                socket.reply(wire.encode(greeting))
                async for text in socket.texts():
                    _answer_ping(socket, text)

    return await serve(request, converse)


def _answer_ping(socket: Socket, text: bytes) -> None:
    try:
        # Not a decoder of Ping alone: that takes an object without a type for one.
        if not isinstance(decode_frame(text, _decode), Ping):
            raise InvalidRequest("Nothing but a ping can be said here.", path="$.type")
        socket.reply(wire.encode(wire.Pong()))
    except NatterlogError as error:
        socket.reply(wire.encode(wire.refused(error)))


def _is_hidden(data: bytes) -> bool:
    """Whether the erased session was one that is never announced."""
    fact = decode_fact(data)
    return isinstance(fact, SessionDeleted) and fact.mode in HIDDEN_MODES


CHANGES: dict[type[Fact], str] = {
    SessionCreated: "created",
    SessionUpdated: "updated",
    SessionDeleted: "deleted",
    RunWaiting: "updated",
    TodoChat: "updated",
    RunEnded: "updated",
}
"""What each of these facts does to its session."""
_CHANGES_BY_TAG = {str(kind.__struct_config__.tag): change for kind, change in CHANGES.items()}


class ListedSessions:
    """Which of the user's sessions changed since the socket was last written to."""

    def __init__(self, gateway: Gateway, user: str, socket: Socket) -> None:
        self._gateway = gateway
        self._user = user
        self._socket = socket
        self._changed: dict[str, tuple[str, int]] = {}
        """Session → how it changed, and up to which fact."""

    def on_fact(self, seq: int, subject: str, data: bytes) -> None:
        kind = fact_kind(subject)
        change = _CHANGES_BY_TAG.get(kind.removesuffix(".0"))  # of a turn the first todo alone
        if change is None:
            return
        session_id = parse(subject).session
        if change == "deleted" and _is_hidden(data):
            return
        before, _ = self._changed.get(session_id, ("", 0))
        if kind == "session.updated" and b'"status":"inactive"' in data:
            change = "deactivated"
        elif change == "updated":
            change = before or change
        self._changed[session_id] = (change, seq)
        self._socket.due(self)

    @property
    def more(self) -> bool:
        return bool(self._changed)

    async def frames(self) -> list[bytes]:
        if not self._changed:
            return []
        session_id = next(iter(self._changed))
        change, seq = self._changed.pop(session_id)
        frame = await self._frame(session_id, change, seq)
        return [] if frame is None else [wire.encode(frame)]

    async def _frame(self, session_id: str, change: str, seq: int) -> wire.Frame | None:
        if change == "deleted":
            return wire.SessionErased(session=wire.SessionId(id=session_id))
        query = GetSession(user_id=self._user, session_id=session_id, min_seq=seq)
        try:
            session = (await self._gateway.store.ask(query)).session
        except NotFound:  # erased meanwhile, and that comes next
            return None
        if session.mode in HIDDEN_MODES:
            return None
        view = wire.session_view(session)
        if change == "created":
            return wire.SessionCreated(session=view)
        if change == "deactivated" and not view.is_active:
            return wire.SessionDeleted(session=view)
        return wire.SessionUpdated(session=view)
