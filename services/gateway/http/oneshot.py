"""One prompt and one reply on one connection, for clients that know no cursor.

Without a session it is a run in a session of its own, and ends with its connection:
closing it is the only way of such clients to say stop.  Within a session it is a turn
like any other; its run goes on whatever becomes of the client.

Such a stream cannot be taken up again, and has no frame for a reply that starts over.
So it ends with an error where that happens after the first text, and its status waits
for that text: what fails before it fails with its own status.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import msgspec
from aiohttp import web

from services.gateway.context import RUN_ID, USER, Gateway, gateway_of
from services.gateway.http.follow_run import check_success, follow_run, wait_for_end
from services.gateway.http.start_run import RunPermit, run_permit
from services.gateway.http.stream_writer import StreamWriter
from services.gateway.sessions.client_events import (
    ClientEvent,
    ReplyEnded,
    ReplyReset,
    SessionGone,
    TextAdded,
)
from services.gateway.sessions.follower import ClientEvents, Follower
from services.gateway.single_flight import Flight
from shared.bus import BusError
from shared.commands import Accepted, CancelRun, CreateSession, GetSession, SendMessage
from shared.errors import Cancelled, NatterlogError, NotFound, ProviderFailed, Unavailable
from shared.ids import new_id
from shared.log import get_logger
from shared.records import Session

log = get_logger()

MODE = "adhoc"
"""Of the sessions that one-shot runs make for themselves."""
HOLD = 15.0
"""Seconds for which the status waits for the first text."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be answered, in no dialect; None: as the session has it."""

    content: str
    session_id: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    system: str | None = None
    notes: list[str] = []
    """What of the request is not honoured, one sentence each."""
    idempotency_key: str | None = None


class StreamFormat(Protocol):
    """How a dialect shows a reply while it is being written."""

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
class FollowedRun:
    """A run that is followed to its end, live or recorded."""

    gateway: Gateway
    follower: Follower
    over: bool = False
    """It has ended: there is nothing left to stop."""


@dataclass(kw_only=True)
class OneShotRun(FollowedRun):
    """A prompt that was accepted."""

    session: Session
    accepted: Accepted


@asynccontextmanager
async def one_shot_run(request: web.Request, prompt: Prompt) -> AsyncGenerator[OneShotRun]:
    """Have a prompt answered; left before its end, a run without a session is stopped.

    Raises:
        NotFound, Conflict, InvalidRequest, TooLarge, RateLimited: it was not accepted.
        Unavailable: the store or the log does not answer.
    """
    async with run_permit(request) as permit, _begun(request, permit, prompt) as run:
        yield run


@asynccontextmanager
async def _begun(
    request: web.Request, permit: RunPermit, prompt: Prompt
) -> AsyncGenerator[OneShotRun]:
    gateway, user = gateway_of(request), request[USER].id
    session = await _session(gateway, user, prompt)
    # A client may go while the store decides: then there is a run to be stopped.
    accepting = Flight(_send(permit, user, session, prompt), name="one-shot-accept")
    run: OneShotRun | None = None
    try:
        with gateway.hub.opening(user, session.id):
            accepted = await accepting.result()
            request[RUN_ID] = accepted.run.id
            async with follow_run(gateway, user, accepted.run) as follower:
                run = OneShotRun(
                    gateway=gateway, session=session, accepted=accepted, follower=follower
                )
                yield run
    finally:
        if prompt.session_id is None and not (run is not None and run.over):
            # In a task of its own, because a line that breaks in the middle of a write
            # cancels this one only now.
            await Flight(_stop(gateway, user, accepting), name="one-shot-stop").result()


async def whole_reply(run: OneShotRun) -> ReplyEnded:
    """Wait for all of the reply.

    Raises:
        NatterlogError: the run failed, or was cancelled by somebody else.
    """
    reply = await wait_for_end(run.gateway, run.follower)
    run.over = True
    check_complete(reply)
    return reply


async def stream_reply(
    request: web.Request, run: FollowedRun, shown_as: StreamFormat
) -> web.StreamResponse:
    """Answer with the reply while it is being written.

    Raises:
        NatterlogError: it failed before its first text, so this has a status.
    """
    headers = {"Content-Type": shown_as.content_type, "X-Accel-Buffering": "no"}
    writer = StreamWriter(request, headers, comment=shown_as.comment)
    with (
        run.gateway.connections.registered(writer),
        run.follower.source.watchers.watching(writer.wake),
    ):
        first = await _first_events(writer, run)
        async with writer.begun():
            await _write_reply(writer, run, shown_as, first)
    return writer.response


# -- accepting and stopping ---------------------------------------------------------


async def _session(gateway: Gateway, user: str, prompt: Prompt) -> Session:
    """The session of the run: the client's, or a new one of its own."""
    if prompt.session_id is not None:
        query = GetSession(user_id=user, session_id=prompt.session_id)
        return (await gateway.store.ask(query)).session
    opening = CreateSession(
        user_id=user,
        session_id=new_id(),
        mode=MODE,
        model=prompt.model,
        temperature=prompt.temperature,
        max_tokens=prompt.max_tokens,
        system_prompt=prompt.system,
    )
    return (await gateway.store.ask(opening)).session


async def _send(permit: RunPermit, user: str, session: Session, prompt: Prompt) -> Accepted:
    message = SendMessage(
        user_id=user,
        session_id=session.id,
        content=prompt.content,
        notes=prompt.notes,
        idempotency_key=prompt.idempotency_key,
    )
    if prompt.session_id is not None:  # a session of its own has all of it already
        message = msgspec.structs.replace(
            message,
            model=prompt.model,
            temperature=prompt.temperature,
            max_tokens=prompt.max_tokens,
            system=prompt.system,
        )
    return await permit.start(message)


async def _stop(gateway: Gateway, user: str, accepting: Flight[Accepted]) -> None:
    """Stop a run whose client has gone, as soon as it is known."""
    if not await accepting.landed():
        return  # nothing was begun
    run_id = (await accepting.result()).run.id
    try:
        await gateway.store.ask(CancelRun(user_id=user, run_id=run_id))
    except (NatterlogError, BusError) as error:
        log.warning("one_shot.not_stopped", run_id=run_id, error=str(error))


def check_complete(reply: ReplyEnded) -> None:
    """Check that the answer is a whole reply.

    Raises:
        NatterlogError: this one failed, or was cancelled.
    """
    check_success(reply)
    if reply.final.status == "cancelled":
        raise Cancelled("The reply was cancelled.")


# -- the stream ---------------------------------------------------------------------


async def _first_events(writer: StreamWriter, run: FollowedRun) -> ClientEvents:
    """What the stream begins with; nothing yet if the first text takes too long.

    Raises:
        NatterlogError: the run ended without any.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + HOLD
    while events := await writer.next(run.follower.next_events, within=due - loop.time()):
        for _, event in events:
            match event:
                case TextAdded():
                    return events
                case ReplyEnded():
                    run.over = True
                    check_complete(event)
                    return events
                case SessionGone():
                    run.over = True
                    raise _gone()
                case _:
                    pass
    if writer.stopping:
        raise _restarting()
    return []


async def _write_reply(
    writer: StreamWriter, run: FollowedRun, shown_as: StreamFormat, events: ClientEvents
) -> None:
    """Write the reply to its end, or why there will be none."""
    encoder = ReplyEncoder(shown_as)
    writer.write_at_once(lambda: encoder.frames(run.follower.new_text()))
    try:
        while True:
            frames = encoder.frames(events)
            run.over = run.over or encoder.over  # before the client can go away
            await writer.send(frames)
            if encoder.done:
                return
            events = await writer.next(run.follower.next_events)
            if not events:
                await writer.send(shown_as.failure(_restarting()))
                return
    except (NatterlogError, BusError) as error:
        log.info("one_shot.source_failed", error=str(error))
        await writer.send(shown_as.failure(_unreadable()))


class ReplyEncoder:
    """Encodes a run's events for a client that knows no cursor, up to its end."""

    def __init__(self, shown_as: StreamFormat) -> None:
        self.shown = False
        """Whether any text was."""
        self.done = False
        """Nothing more is shown."""
        self.over = False
        """The run has ended."""
        self._format = shown_as

    def frames(self, events: ClientEvents) -> bytes:
        return b"".join(self.frame(event) for _, event in events)

    def frame(self, event: ClientEvent) -> bytes:
        if self.done:
            return b""
        match event:
            case TextAdded(text=text, offset=offset):
                self.shown = True
                return self._format.text(text[offset:])
            case ReplyReset() if self.shown:
                self.done = True
                return self._format.failure(_lost())
            case ReplyEnded():
                self.done = self.over = True
                return self._end(event)
            case SessionGone():
                self.done = self.over = True
                return self._format.failure(_gone())
            case _:
                return b""

    def _end(self, reply: ReplyEnded) -> bytes:
        try:
            check_complete(reply)
        except NatterlogError as error:
            return self._format.failure(error)
        return self._format.end(reply)


def _gone() -> NatterlogError:
    return NotFound("The session was deleted.")


def _lost() -> NatterlogError:
    return ProviderFailed("The reply was lost while it was being written; please ask again.")


def _restarting() -> NatterlogError:
    return Unavailable("The gateway is restarting; please ask again.", retry_after=1.0)


def _unreadable() -> NatterlogError:
    return Unavailable("The log cannot be read at the moment; please ask again.", retry_after=2.0)
