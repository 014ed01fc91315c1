"""The document front ends' socket: everything about the user's jobs."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from services.gateway.context import USER, Gateway, gateway_of
from services.gateway.dialects.documents import replay, wire
from services.gateway.http.describe import describe_socket
from services.gateway.http.requests import decode_frame, not_found, require_id
from services.gateway.http.websocket import Socket, serve
from services.gateway.jobs.feed import JobFeed
from services.gateway.jobs.state import JobState
from shared.commands import CancelRun
from shared.errors import Conflict, NatterlogError
from shared.events import DocumentPlan


def routes() -> list[web.RouteDef]:
    return [web.get(wire.SOCKET, socket, allow_head=False)]


@describe_socket(
    receives=wire.ClientMessage, sends=wire.Frame.__subclasses__(), replay=replay.socket
)
async def socket(request: web.Request) -> web.WebSocketResponse:
    """Everything about the user's jobs.

    First how things stand: of each unfinished job, and of those that ended in the
    last ten minutes, a ``job_update``, one ``ai_chunk`` with all the text there is,
    then its end.  After that whatever is new.
    """

    async def converse(socket: Socket) -> None:
        gateway, user = gateway_of(request), request[USER].id
        async with gateway.jobs.of(user) as feed:
            client = _Client(gateway, user, socket, feed)
            with feed.watchers.watching(client.on_change), socket.showing(client):
                client.show_all()
                async for text in socket.texts():
                    await client.take(text)

    return await serve(request, converse)


class _Client:
    """What one socket's client has been shown, and what it may ask for.

    It remembers how far it has come in each job and no text: a client that reads slowly is sent
    fewer and larger pieces.
    """

    def __init__(self, gateway: Gateway, user: str, socket: Socket, feed: JobFeed) -> None:
        self._gateway = gateway
        self._user = user
        self._socket = socket
        self._feed = feed
        self._due: dict[str, None] = {}
        self._shown: dict[str, wire.Shown] = {}
        self._wanted: frozenset[str] | None = None
        """The jobs that the client narrowed to; None: all."""
        self._handlers: dict[type[wire.ClientMessage], Callable[[Any], Awaitable[None]]] = {
            wire.Subscribe: self._on_subscribe,
            wire.Cancel: self._on_cancel,
            wire.Ping: self._on_ping,
        }

    # -- what is shown ------------------------------------------------------------------

    def show_all(self) -> None:
        """Show every job that the feed has, oldest first, before anything new."""
        for run_id in sorted(self._feed.jobs):
            self.on_change(run_id)

    def on_change(self, run_id: str) -> None:
        if self._wanted is None or run_id in self._wanted:
            self._due[run_id] = None
            self._socket.due(self)

    @property
    def more(self) -> bool:
        return bool(self._due)

    async def frames(self) -> list[bytes]:
        """What is new of the job whose turn it is."""
        if not self._due:
            return []
        run_id = next(iter(self._due))
        del self._due[run_id]
        state = self._feed.jobs.get(run_id)
        if state is None:
            self._shown.pop(run_id, None)
            return []
        if not isinstance(state.plan, DocumentPlan):
            return []
        shown = self._shown.setdefault(run_id, wire.Shown())
        return [wire.encode(frame) for frame in wire.frames_of(state, shown)]

    # -- what clients send --------------------------------------------------------------

    async def take(self, text: bytes) -> None:
        """Do what one message asks for; what is refused is answered, and the socket stays."""
        try:
            message = decode_frame(text, wire.decode_message)
            await self._handlers[type(message)](message)
        except NatterlogError as error:
            self._send(wire.refused(error))

    async def _on_subscribe(self, message: wire.Subscribe) -> None:
        """Narrow to these jobs, and show them however long ago they ended; none: all again."""
        for job_id in message.job_ids:
            await self._find(job_id)
        self._wanted = frozenset(message.job_ids) if message.job_ids else None
        self._due = {run_id: None for run_id in self._due if run_id in (self._wanted or self._due)}
        for run_id in sorted(self._wanted or self._feed.jobs):
            self.on_change(run_id)

    async def _on_cancel(self, message: wire.Cancel) -> None:
        state = await self._find(message.job_id)
        if state.ending is not None:
            raise Conflict("The job has ended.")
        await self._gateway.store.ask(CancelRun(user_id=self._user, run_id=state.run_id))

    async def _on_ping(self, message: wire.Ping) -> None:
        del message
        self._send(wire.Pong())

    async def _find(self, job_id: str) -> JobState:
        state = await self._feed.find(run_id=require_id(job_id, "job"))
        if not isinstance(state.plan, DocumentPlan):
            raise not_found("job")
        return state

    def _send(self, frame: wire.Frame) -> None:
        self._socket.reply(wire.encode(frame))
