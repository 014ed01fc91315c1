"""The content front ends' socket: one job from its first step to its result."""

from aiohttp import web

from services.gateway.context import USER, Gateway, gateway_of
from services.gateway.dialects.content import replay, wire
from services.gateway.http.describe import describe_socket
from services.gateway.http.requests import decode_frame, not_found, read_query, require_id
from services.gateway.http.websocket import GONE, NORMAL, Socket, serve
from services.gateway.jobs.feed import JobFeed
from services.gateway.jobs.state import JobState
from shared.commands import CancelRun
from shared.errors import NatterlogError
from shared.events import PipelinePlan


def routes() -> list[web.RouteDef]:
    return [web.get(wire.SOCKET, socket, allow_head=False)]


@describe_socket(
    receives=wire.ClientMessage,
    sends=wire.Frame.__subclasses__(),
    query=wire.Watched,
    replay=replay.socket,
)
async def socket(request: web.Request) -> web.WebSocketResponse:
    """One job from its first step to its result, whenever the client connects.

    After the end the socket is closed.  Any number of clients may watch.
    """
    streaming = read_query(request, wire.Watched).stream

    async def converse(socket: Socket) -> None:
        gateway, user = gateway_of(request), request[USER].id
        session_id = require_id(request.match_info["session_id"], "job")
        async with gateway.jobs.of(user) as feed:
            state = await feed.find(session_id=session_id)
            if not isinstance(state.plan, PipelinePlan):
                raise not_found("job")
            client = _Client(gateway, user, socket, feed, state, streaming=streaming)
            with feed.watchers.watching(client.on_change), socket.showing(client):
                async for text in socket.texts():
                    await client.take(text)

    return await serve(request, converse)


class _Client:
    """What one socket's client has been shown, and what it may ask for."""

    def __init__(
        self,
        gateway: Gateway,
        user: str,
        socket: Socket,
        feed: JobFeed,
        state: JobState,
        *,
        streaming: bool,
    ) -> None:
        self._gateway = gateway
        self._user = user
        self._socket = socket
        self._feed = feed
        self._state = state
        self._shown = wire.Shown(streaming=streaming)

    def on_change(self, run_id: str) -> None:
        if run_id == self._state.run_id:
            self._socket.due(self)

    @property
    def more(self) -> bool:
        return False

    async def frames(self) -> list[bytes]:
        """What is new, from the first step on; after the job's end the socket is closed."""
        frames = wire.frames_of(self._state, self._shown)
        if self._shown.ended:
            self._socket.close(NORMAL, "The job has ended.")
        elif self._state.run_id not in self._feed.jobs:
            self._socket.close(GONE, "The job was deleted.")
        return [wire.encode(frame) for frame in frames]

    async def take(self, text: bytes) -> None:
        """Do what one message asks for; what is refused is answered, and the socket stays."""
        try:
            message: wire.ClientMessage = decode_frame(text, wire.decode_message)
            match message:
                case wire.Cancel():
                    command = CancelRun(user_id=self._user, run_id=self._state.run_id)
                    await self._gateway.store.ask(command)
                case wire.Ping():
                    self._socket.reply(wire.encode(wire.Pong()))
        except NatterlogError as error:
            self._socket.reply(wire.encode(wire.refused(error)))
