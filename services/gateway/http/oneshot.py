"""Calls: one question and one answer on one connection, for clients that know no cursor.

A call without a session is a run in a session of its own, and ends with its
connection: closing it is the only way of such clients to say stop.  A call within
a session is a turn like any other; its run goes on whatever becomes of the client.

Such a stream cannot be taken up again, and has no word for a reply that starts
over.  So it ends with an error where that happens after the first words, and its
status waits for those words: what fails before them fails with its own status.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import msgspec
from aiohttp import web

from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.http.follow_run import check_success, ended, following
from services.gateway.http.sse import EventStream
from services.gateway.http.start_run import RunPermit, run_permit
from services.gateway.sessions.client_events import (
    ClientEvent,
    ReplyEnded,
    ReplyReset,
    SessionGone,
    TextAdded,
)
from services.gateway.sessions.follower import Follower
from shared.bus import BusError
from shared.commands import Accepted, CancelRun, CreateSession, GetSession, SendMessage
from shared.errors import Cancelled, NatterlogError, NotFound, ProviderFailed, Unavailable
from shared.ids import new_id
from shared.log import get_logger
from shared.records import Session

log = get_logger()

MODE = "adhoc"
"""Of the sessions that calls without one make for themselves."""
HOLD = 15.0
"""Seconds for which the status waits for the first words."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a call wants, in no dialect; None: as the session has it."""

    content: str
    session_id: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    system: str | None = None
    notes: list[str] = []
    """What of the wish is not honoured, one sentence each."""
    idempotency_key: str | None = None


class Wire(Protocol):
    """How a dialect tells a reply while it is being written."""

    content_type: str
    comment: bytes
    """What keeps a silent connection open; empty where the clients would stumble over it."""

    def text(self, piece: str) -> bytes:
        """The reply grew."""
        ...

    def end(self, reply: ReplyEnded) -> bytes:
        """The reply is complete."""
        ...

    def failure(self, error: NatterlogError) -> bytes:
        """There will be no more of it."""
        ...


@dataclass(kw_only=True)
class Followed:
    """A run that is followed to its end, live or recorded."""

    gateway: Gateway
    follower: Follower
    over: bool = False
    """It has ended: there is nothing left to stop."""


@dataclass(kw_only=True)
class Call(Followed):
    """A call that was accepted."""

    session: Session
    accepted: Accepted


@asynccontextmanager
async def one_shot_run(request: web.Request, asked: Asked) -> AsyncGenerator[Call]:
    """Have ``asked`` answered; left before its end, a call without a session is stopped.

    Raises:
        NotFound, Conflict, InvalidRequest, TooLarge, RateLimited: it was not accepted.
        Unavailable: the store or the log does not answer.
    """
    async with run_permit(request) as permit, _calling(request, permit, asked) as call:
        yield call


@asynccontextmanager
async def _calling(request: web.Request, permit: RunPermit, asked: Asked) -> AsyncGenerator[Call]:
    gateway, user = gateway_of(request), request[USER].id
    session = await _session(gateway, user, asked)
    accepting = asyncio.create_task(_send(permit, user, session, asked), name="call-accept")
    accepting.add_done_callback(_seen)
    call: Call | None = None
    try:
        with gateway.hub.opening(user, session.id):
            # A client may go while the store decides: then there is a run to be stopped.
            accepted = await asyncio.shield(accepting)
            request[RUN_ID] = accepted.run.id
            async with following(gateway, user, accepted.run) as follower:
                call = Call(gateway=gateway, session=session, accepted=accepted, follower=follower)
                yield call
    finally:
        if asked.session_id is None and not (call is not None and call.over):
            await _stop(gateway, user, accepting)


async def whole(call: Call) -> ReplyEnded:
    """Wait for all of the reply.

    Raises:
        NatterlogError: the run failed, or was cancelled by somebody else.
    """
    reply = await ended(call.gateway, call.follower)
    call.over = True
    check_complete(reply)
    return reply


async def streamed(request: web.Request, call: Followed, wire: Wire) -> web.StreamResponse:
    """Answer with the reply while it is being written.

    Raises:
        NatterlogError: it failed before its first words, so this has a status.
    """
    stream = _CallStream(request, call, wire)
    with call.gateway.connections.holding(stream):
        return await stream.answer(request)


# -- accepting and stopping ---------------------------------------------------------


async def _session(gateway: Gateway, user: str, asked: Asked) -> Session:
    """The session of the call: the client's, or a new one of its own."""
    if asked.session_id is not None:
        query = GetSession(user_id=user, session_id=asked.session_id)
        return (await gateway.store.ask(query)).session
    opening = CreateSession(
        user_id=user,
        session_id=new_id(),
        mode=MODE,
        model=asked.model,
        temperature=asked.temperature,
        max_tokens=asked.max_tokens,
        system_prompt=asked.system,
    )
    return (await gateway.store.ask(opening)).session


async def _send(permit: RunPermit, user: str, session: Session, asked: Asked) -> Accepted:
    message = SendMessage(
        user_id=user,
        session_id=session.id,
        content=asked.content,
        notes=asked.notes,
        idempotency_key=asked.idempotency_key,
    )
    if asked.session_id is not None:  # a session of its own has all of it already
        message = msgspec.structs.replace(
            message,
            model=asked.model,
            temperature=asked.temperature,
            max_tokens=asked.max_tokens,
            system=asked.system,
        )
    return await permit.ask(message)


async def _stop(gateway: Gateway, user: str, accepting: asyncio.Task[Accepted]) -> None:
    """Stop a run whose client has gone, as soon as it is known."""
    await asyncio.wait({accepting})
    if accepting.cancelled() or accepting.exception() is not None:
        return  # nothing was begun
    run_id = accepting.result().run.id
    try:
        await gateway.store.ask(CancelRun(user_id=user, run_id=run_id))
    except (NatterlogError, BusError) as error:
        log.warning("call.not_stopped", run_id=run_id, error=str(error))


def _seen(accepting: asyncio.Task[Accepted]) -> None:
    """Whoever waited for it may have left."""
    if not accepting.cancelled():
        accepting.exception()


def check_complete(reply: ReplyEnded) -> None:
    """A call's answer is a whole reply.

    Raises:
        NatterlogError: this one failed, or was cancelled.
    """
    check_success(reply)
    if reply.final.status == "cancelled":
        raise Cancelled("The reply was cancelled.")


# -- the stream ---------------------------------------------------------------------


class ReplyEncoder:
    """What of a run's moments a call's client is told, until it is done."""

    def __init__(self, wire: Wire) -> None:
        self.shown = False
        """Whether any words were."""
        self.done = False
        """Nothing more is told."""
        self.over = False
        """The run has ended."""
        self._wire = wire

    def frame(self, moment: ClientEvent) -> bytes:
        if self.done:
            return b""
        match moment:
            case TextAdded(text=text, offset=offset):
                self.shown = True
                return self._wire.text(text[offset:])
            case ReplyReset() if self.shown:
                self.done = True
                return self._wire.failure(_lost())
            case ReplyEnded():
                self.done = self.over = True
                return self._end(moment)
            case SessionGone():
                self.done = self.over = True
                return self._wire.failure(_gone())
            case _:
                return b""

    def _end(self, reply: ReplyEnded) -> bytes:
        try:
            check_complete(reply)
        except NatterlogError as error:
            return self._wire.failure(error)
        return self._wire.end(reply)


class _CallStream(EventStream):
    """One call's stream: first its status, then its text, then its end."""

    def __init__(self, request: web.Request, call: Followed, wire: Wire) -> None:
        super().__init__(request)
        self._call = call
        self._wire = wire
        self._telling = ReplyEncoder(wire)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        watchers = self._call.follower.feed.watchers
        watchers.add(self._wake.set)
        try:
            moments = await self._first()
            response = web.StreamResponse(
                headers={"Content-Type": self._wire.content_type, "X-Accel-Buffering": "no"}
            )
            try:
                await response.prepare(request)
                await self._tell(response, moments)
                await response.write_eof()
            except ConnectionError:
                pass  # the client is gone
            return response
        finally:
            watchers.discard(self._wake.set)

    async def _first(self) -> list[ClientEvent]:
        """What the stream begins with; nothing yet if the first words take too long.

        Raises:
            NatterlogError: the run ended without any.
        """
        due = self._loop.time() + HOLD
        while (left := due - self._loop.time()) > 0:
            self._wake.clear()
            moments = await self._news()
            for moment in moments:
                match moment:
                    case TextAdded():
                        return moments
                    case ReplyEnded():
                        self._call.over = True
                        check_complete(moment)
                        return moments
                    case SessionGone():
                        self._call.over = True
                        raise _gone()
                    case _:
                        pass
            if self._stopping:
                raise _restarting()
            if not moments:
                await _either(self._wake, left)
        return []

    async def _tell(self, response: web.StreamResponse, moments: list[ClientEvent]) -> None:
        """Tell the reply to its end, or why there will be none."""
        try:
            while True:
                frames = b"".join(map(self._telling.frame, moments))
                self._call.over = self._call.over or self._telling.over
                if not moments and self._stopping:
                    await self._send(response, self._wire.failure(_restarting()))
                    return
                if not frames and self._comment_due:
                    frames = self._wire.comment
                if frames:
                    await self._send(response, frames)
                if self._telling.done:
                    return
                self._wake.clear()
                moments = await self._news()
                if not moments and not self._stopping:
                    await self._wake.wait()
        except (NatterlogError, BusError) as error:
            log.info("call.source_failed", error=str(error))
            await self._send(response, self._wire.failure(_unreadable()))

    async def _news(self) -> list[ClientEvent]:
        return [moment for _, moment in await self._call.follower.news()]


async def _either(wake: asyncio.Event, seconds: float) -> None:
    """Wait for a wake-up or until so many seconds are over."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass


def _gone() -> NatterlogError:
    return NotFound("The session was deleted.")


def _lost() -> NatterlogError:
    return ProviderFailed("The reply was lost while it was being written; please ask again.")


def _restarting() -> NatterlogError:
    return Unavailable("The gateway is restarting; please ask again.", retry_after=1.0)


def _unreadable() -> NatterlogError:
    return Unavailable("The log cannot be read at the moment; please ask again.", retry_after=2.0)
