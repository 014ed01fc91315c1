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
    decode_message,
    frames_of,
)
from services.gateway.http.describe import describe_socket
from services.gateway.http.requests import decode_json, require_id
from services.gateway.http.start_run import start
from services.gateway.http.websocket import Socket, Track, serve
from services.gateway.sessions.client_events import ClientEvent
from services.gateway.sessions.cursor import NOTHING_SEEN, Cursor
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import Follower
from services.gateway.sessions.typing_signals import Typing, tell_typing
from shared.commands import CancelRun, SendMessage
from shared.errors import InvalidRequest, NatterlogError


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
        self._handlers: dict[type[ClientMessage], Callable[[Any], Awaitable[None]]] = {
            Subscribe: self._on_subscribe,
            Unsubscribe: self._on_unsubscribe,
            Send: self._on_send,
            Cancel: self._on_cancel,
            TypingNow: self._on_typing,
            Ping: self._on_ping,
        }

    async def take(self, text: bytes) -> None:
        """Do what one message asks for; what is wrong with it is told, and the socket stays."""
        asked: ClientMessage | None = None
        try:
            known = asked = decode_json(text, decode_message)
            await self._handlers[type(known)](known)
        except NatterlogError as error:
            self._refuse(asked, error)

    async def leave(self) -> None:
        for session_id in list(self._subscriptions):
            await self._end(session_id)

    # -- messages -------------------------------------------------------------------

    async def _on_subscribe(self, asked: Subscribe) -> None:
        require_id(asked.session_id, "session")
        await self._end(asked.session_id)
        stack = AsyncExitStack()
        try:
            feed = await stack.enter_async_context(
                self._gateway.hub.feed(self._user, asked.session_id)
            )
            place = await self._place(feed, asked.cursor)
            if place is not None:
                self._say(feed, place, Subscribed)
            else:
                place = await self._tell_state(feed, with_messages=asked.cursor is not None)
        except BaseException:
            await stack.aclose()
            raise
        self._follow(feed, place, stack)

    async def _on_unsubscribe(self, asked: Unsubscribe) -> None:
        await self._end(asked.session_id)

    async def _on_send(self, asked: Send) -> None:
        require_id(asked.session_id, "session")
        check_text(asked.content, self._gateway.settings, path="$.content")
        key = f"{asked.session_id}:{asked.client_id}" if asked.client_id else None
        accepted = await start(
            self._socket.request,
            SendMessage(
                user_id=self._user,
                session_id=asked.session_id,
                content=asked.content,
                attachments=asked.attachments,
                model=asked.model,
                client_id=asked.client_id,
                idempotency_key=key,
            ),
        )
        if asked.session_id not in self._subscriptions:
            stack = AsyncExitStack()
            feed = await stack.enter_async_context(
                self._gateway.hub.feed(self._user, asked.session_id)
            )
            place = Cursor(accepted.run.first_seq - 1)
            self._say(feed, place, Subscribed)
            self._follow(feed, place, stack)
        elif accepted.repeated:
            track, _ = self._subscriptions[asked.session_id]
            track.send_again(accepted.run.first_seq, asked.client_id)

    async def _on_cancel(self, asked: Cancel) -> None:
        require_id(asked.run_id, "run")
        await self._gateway.store.ask(CancelRun(user_id=self._user, run_id=asked.run_id))

    async def _on_typing(self, asked: TypingNow) -> None:
        if asked.session_id not in self._subscriptions:
            raise InvalidRequest("Subscribe to the session first.", path="$.session_id")
        note = Typing(user=self._user, typing=asked.typing, socket=self._socket.id)
        tell_typing(self._gateway.bus, self._user, asked.session_id, note)

    async def _on_ping(self, asked: Ping) -> None:
        del asked
        self._socket.reply(wire.encode(Pong()))

    # -- subscriptions ----------------------------------------------------------------

    async def _place(self, feed: Feed, cursor: str | None) -> Cursor | None:
        """The cursor's place if this log has one; another gateway may know of more."""
        place = self._gateway.cursors.parse(cursor) if cursor else None
        if place is not None and place.seq > feed.seq:
            await feed.refilled()
        return place if place is not None and feed.has(place) else None

    async def _tell_state(self, feed: Feed, *, with_messages: bool) -> Cursor:
        """Tell where the session stands → the place to go on from.

        All of it is as of one fact, however far the session goes on meanwhile: that
        comes next.  Only the last of these frames carries that place: a client that is
        cut off between them comes back with one that brings all of them again.
        """
        place, unfinished = feed.state
        runs = [await feed.with_question(run) for run in unfinished]
        events: list[wire.Event] = [Subscribed()]
        if with_messages:
            events.append(Resync(messages=await feed.messages(place.seq)))
        events += [wire.message_start(run) for run in runs]
        for event in events:
            where = self._where(feed, place if event is events[-1] else NOTHING_SEEN)
            self._socket.reply(wire.encode(msgspec.structs.replace(event, **where)))
        return place

    def _follow(self, feed: Feed, place: Cursor, stack: AsyncExitStack) -> None:
        def translate(place: Cursor, event: ClientEvent) -> list[bytes]:
            return frames_of(event, **self._where(feed, place))

        def typist(note: Typing) -> None:
            if note.socket != self._socket.id:
                where = {"session_id": feed.session_id}
                frame = UserTyping(user=note.user, typing=note.typing, **where)
                self._socket.mention(wire.encode(frame))

        follower = Follower(feed, self._gateway.store, place, tells_branches=True)
        track = Track(self._socket, follower, translate)
        self._subscriptions[feed.session_id] = (track, stack)
        stack.callback(track.end)
        stack.enter_context(feed.typists.holding(typist))
        track.begin()

    async def _end(self, session_id: str) -> None:
        subscription = self._subscriptions.pop(session_id, None)
        if subscription is not None:
            await subscription[1].aclose()

    # -- frames -----------------------------------------------------------------------

    def _where(self, feed: Feed, place: Cursor) -> dict[str, str]:
        return {"session_id": feed.session_id, "cursor": self._gateway.cursors.format(place)}

    def _say(self, feed: Feed, place: Cursor, kind: type[Subscribed]) -> None:
        self._socket.reply(wire.encode(kind(**self._where(feed, place))))

    def _refuse(self, asked: ClientMessage | None, error: NatterlogError) -> None:
        session_id = getattr(asked, "session_id", None)
        client_id = getattr(asked, "client_id", None)
        frame = Refused(
            message=error.message,
            code=error.code,
            session_id=UNSET if session_id is None else session_id,
            client_id=UNSET if client_id is None else client_id,
            retry_after=UNSET if error.retry_after is None else error.retry_after,
        )
        self._socket.reply(wire.encode(frame))
