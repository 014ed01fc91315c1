"""The native WebSocket, ``/api/v1/chat/ws``: one socket, many sessions (docs/api.md)."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, get_args

import msgspec
from aiohttp import web
from msgspec import UNSET

from services.gateway.access.limits import check_text
from services.gateway.context import USER, Gateway, gateway_of
from services.gateway.dialects.assistant import replay, wire
from services.gateway.dialects.assistant.requests import known_cursor
from services.gateway.dialects.assistant.socket_wire import (
    Cancel,
    ClientMessage,
    Ping,
    Pong,
    Refused,
    Resync,
    Send,
    ServerMessage,
    Subscribe,
    Subscribed,
    TypingNow,
    Unsubscribe,
    UserTyping,
    addressed_in,
    decode_message,
    frames_of,
)
from services.gateway.http.describe import describe_socket
from services.gateway.http.requests import decode_frame, require_id
from services.gateway.http.start_run import start
from services.gateway.http.websocket import Socket, Track, serve
from services.gateway.sessions.client_events import ClientEvent, TurnAccepted
from services.gateway.sessions.cursor import NOTHING_SEEN, Cursor
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import Follower
from services.gateway.sessions.typing_signals import Typing, send_typing
from shared.commands import Accepted, CancelRun, SendMessage
from shared.errors import InvalidRequest, NatterlogError, Unavailable


def routes() -> list[web.RouteDef]:
    return [web.get(f"{wire.PREFIX}/ws", socket, allow_head=False)]


@describe_socket(
    receives=ClientMessage,
    sends=(*get_args(ServerMessage), Refused),
    replay=replay.socket,
)
async def socket(request: web.Request) -> web.WebSocketResponse:
    """One socket, many sessions.

    Each event names its session and has a cursor: come back with the last one, and
    exactly what is missing comes.
    """

    async def converse(socket: Socket) -> None:
        async with AsyncExitStack() as stack:
            client = _Client(gateway_of(request), request[USER].id, socket)
            stack.push_async_callback(client.leave)
            async for text in socket.texts():
                await client.take(text)

    return await serve(request, converse)


class _Client:
    """One socket's subscriptions."""

    def __init__(self, gateway: Gateway, user: str, socket: Socket) -> None:
        self._gateway = gateway
        self._user = user
        self._socket = socket
        self._subscriptions: dict[str, tuple[Track, AsyncExitStack]] = {}
        self._sending: tuple[str, str] | None = None
        """(session, client id) of the message that is being sent."""
        self._was_shown = False
        """Whether its turn was shown before the store's answer came.  Should that answer be lost,
        an error would be untrue: the client would send again what it sees already."""
        self._handlers: dict[type[ClientMessage], Callable[[Any], Awaitable[None]]] = {
            Subscribe: self._on_subscribe,
            Unsubscribe: self._on_unsubscribe,
            Send: self._on_send,
            Cancel: self._on_cancel,
            TypingNow: self._on_typing,
            Ping: self._on_ping,
        }

    async def take(self, text: bytes) -> None:
        """Do what one message asks for; what is refused is answered, and the socket stays."""
        self._sending, self._was_shown = None, False
        try:
            message = decode_frame(text, decode_message)
            await self._handlers[type(message)](message)
        except NatterlogError as error:
            only_the_answer_was_lost = self._was_shown and isinstance(error, Unavailable)
            if not only_the_answer_was_lost:
                self._refuse(text, error)

    async def leave(self) -> None:
        for session_id in list(self._subscriptions):
            await self._end(session_id)

    # -- messages -------------------------------------------------------------------

    async def _on_subscribe(self, message: Subscribe) -> None:
        require_id(message.session_id, "session")
        await self._end(message.session_id)
        stack = AsyncExitStack()
        try:
            feed = await stack.enter_async_context(
                self._gateway.hub.feed(self._user, message.session_id)
            )
            cursor = None
            if message.cursor:
                cursor = await known_cursor(self._gateway, feed, message.cursor)
            if cursor is not None:
                self._send_subscribed(feed, cursor)
            else:
                cursor = await self._send_snapshot(feed, with_messages=message.cursor is not None)
        except BaseException:
            await stack.aclose()
            raise
        self._follow(feed, cursor, stack)

    async def _on_unsubscribe(self, message: Unsubscribe) -> None:
        await self._end(message.session_id)

    async def _on_send(self, message: Send) -> None:
        require_id(message.session_id, "session")
        check_text(message.content, self._gateway.settings, path="$.content")
        key = f"{message.session_id}:{message.client_id}" if message.client_id else None
        if message.client_id:
            self._sending = (message.session_id, message.client_id)
        # The feed is opened while the store decides, so the first token waits for one of them.
        with self._gateway.hub.opening(self._user, message.session_id):
            accepted = await start(
                self._socket.request,
                SendMessage(
                    user_id=self._user,
                    session_id=message.session_id,
                    content=message.content,
                    attachments=message.attachments,
                    model=message.model,
                    client_id=message.client_id,
                    idempotency_key=key,
                ),
            )
            await self._show_accepted(message, accepted)

    async def _show_accepted(self, message: Send, accepted: Accepted) -> None:
        """Follow the message's session, if that is not done yet, from its turn on."""
        if message.session_id not in self._subscriptions:
            stack = AsyncExitStack()
            feed = await stack.enter_async_context(
                self._gateway.hub.feed(self._user, message.session_id)
            )
            cursor = Cursor(accepted.run.first_seq - 1)
            self._send_subscribed(feed, cursor)
            self._follow(feed, cursor, stack)
        elif accepted.repeated:
            track, _ = self._subscriptions[message.session_id]
            track.send_again(accepted.run.first_seq, message.client_id)

    async def _on_cancel(self, message: Cancel) -> None:
        require_id(message.run_id, "run")
        await self._gateway.store.ask(CancelRun(user_id=self._user, run_id=message.run_id))

    async def _on_typing(self, message: TypingNow) -> None:
        if message.session_id not in self._subscriptions:
            raise InvalidRequest("Subscribe to the session first.", path="$.session_id")
        signal = Typing(user=self._user, typing=message.typing, socket=self._socket.id)
        send_typing(self._gateway.bus, self._user, message.session_id, signal)

    async def _on_ping(self, message: Ping) -> None:
        del message
        self._socket.reply(wire.encode(Pong()))

    # -- subscriptions ----------------------------------------------------------------

    async def _send_snapshot(self, feed: Feed, *, with_messages: bool) -> Cursor:
        """Show where the session stands → the cursor to go on from.

        All of it is as of one fact, however far the session goes on meanwhile: that
        comes next.  Only the last of these frames carries that cursor: a client that is
        cut off between them comes back with one that brings all of them again.
        """
        cursor, unfinished = feed.state.snapshot
        runs = [await feed.with_question(run) for run in unfinished]
        events: list[wire.Event] = [Subscribed()]
        if with_messages:
            events.append(Resync(messages=await feed.messages(cursor.seq)))
        events += [wire.message_start(run) for run in runs]
        for event in events:
            where = self._where(feed, cursor if event is events[-1] else NOTHING_SEEN)
            self._socket.reply(wire.encode(msgspec.structs.replace(event, **where)))
        return cursor

    def _follow(self, feed: Feed, cursor: Cursor, stack: AsyncExitStack) -> None:
        def translate(cursor: Cursor, event: ClientEvent) -> list[bytes]:
            if isinstance(event, TurnAccepted) and self._sending is not None:
                shown = (feed.session_id, event.run.client_id)
                self._was_shown = self._was_shown or shown == self._sending
            return frames_of(event, **self._where(feed, cursor))

        def show_typing(signal: Typing) -> None:
            if signal.socket != self._socket.id:
                where = {"session_id": feed.session_id}
                frame = UserTyping(user=signal.user, typing=signal.typing, **where)
                self._socket.mention(wire.encode(frame))

        follower = Follower(feed, cursor, shows_branches=True)
        track = Track(self._socket, follower, translate)
        self._subscriptions[feed.session_id] = (track, stack)
        stack.enter_context(feed.typing.watching(show_typing))
        stack.enter_context(track.shown())

    async def _end(self, session_id: str) -> None:
        subscription = self._subscriptions.pop(session_id, None)
        if subscription is not None:
            await subscription[1].aclose()

    # -- frames -----------------------------------------------------------------------

    def _where(self, feed: Feed, cursor: Cursor) -> dict[str, str]:
        return {"session_id": feed.session_id, "cursor": self._gateway.cursors.format(cursor)}

    def _send_subscribed(self, feed: Feed, cursor: Cursor) -> None:
        self._socket.reply(wire.encode(Subscribed(**self._where(feed, cursor))))

    def _refuse(self, text: bytes, error: NatterlogError) -> None:
        """Tell the client which of its messages was refused, and what is wrong with it."""
        session_id, client_id = addressed_in(text)
        frame = Refused(
            message=error.message,
            code=error.code,
            path=UNSET if error.path is None else error.path,
            session_id=UNSET if session_id is None else session_id,
            client_id=UNSET if client_id is None else client_id,
            retry_after=UNSET if error.retry_after is None else error.retry_after,
        )
        self._socket.reply(wire.encode(frame))
