"""Turns: a message and the reply to it, accepted, asked for anew, or called off.

A decision is made on the session as of its last known fact, and answered as soon as its
own fact is in the log: the tables come later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from services.store import file_queries, queries
from services.store.database import Database
from services.store.keys import answered_anew, digest, may_begin_again, same
from services.store.memory import HotSession, Memory
from services.store.model_names import ModelNames
from services.store.rows import MessageRow, RunRow
from services.store.session_log import SessionLog, SessionState, need_there
from services.store.watermark import Watermark
from shared import ids
from shared.commands import (
    Accepted,
    CancelRun,
    FeedState,
    GetRun,
    OpenFeed,
    Regenerate,
    RunAnswer,
    SendMessage,
    UnfinishedRun,
)
from shared.errors import Conflict, InvalidRequest, TooLarge
from shared.events import RunWaiting, TodoChat, Turn
from shared.settings import Settings
from shared.subjects import Address

FRESH = 60.0
"""Seconds for which a new run's id cannot be an old run's."""


class Decision(NamedTuple):
    """A turn is accepted: it begins at once, or waits while what runs is stopped or not."""

    turn: Turn
    waits: bool = False
    interrupts: Sequence[RunRow] = ()


def decide(state: SessionState, turn: Turn) -> Decision:
    """What becomes of a turn in a session in this state.

    Raises:
        Conflict: the session takes no turn, or none now.
    """
    session = state.session
    if session.mode == file_queries.MODE:  # it goes when no message refers to it, with all it has
        raise Conflict("This is a file; open a session to talk about it.")
    if session.status == "inactive":
        raise Conflict("This session is inactive; make it active to go on with it.")
    if not state.unfinished:
        return Decision(turn)
    if session.on_busy == "reject":
        raise Conflict("A reply is being written in this session; try again when it is complete.")
    waiting = msgspec.structs.replace(turn, parent_id=None)
    if session.on_busy == "queue":
        return Decision(waiting, waits=True)
    return Decision(waiting, waits=True, interrupts=state.unfinished)


def interrupted_by(state: SessionState, run: RunRow) -> list[RunRow]:
    """The runs that a turn was to stop when it was accepted."""
    if state.session.on_busy != "interrupt" or not run.waiting:
        return []
    return [other for other in state.unfinished if other.first_seq < run.first_seq]


class Turns:
    """The commands on turns; the facts they append are all that they change."""

    def __init__(
        self,
        log: SessionLog,
        memory: Memory,
        database: Database,
        applied: Watermark,
        model_names: ModelNames,
        settings: Settings,
    ) -> None:
        self._log = log
        self._memory = memory
        self._database = database
        self._applied = applied
        self._model_names = model_names
        self._settings = settings
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def send_message(self, request: SendMessage) -> Accepted:
        self.check_length(request.content)
        await self._check_referred(request)
        turn = Turn(
            user_message_id=ids.new_id(),
            assistant_message_id=ids.new_id(),
            content=request.content,
            attachments=request.attachments,
            model=request.model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            client_id=request.client_id,
            idempotency_key=request.idempotency_key,
            idempotency_digest=digest(request),
            system=request.system,
            notes=request.notes,
            context=request.context,
        )

        async def turn_in(state: SessionState) -> Turn:
            return msgspec.structs.replace(turn, parent_id=state.session.active_leaf)

        return await self.accept(
            request.user_id, request.session_id, turn, turn_in, run_id=request.run_id
        )

    async def _check_referred(self, request: SendMessage) -> None:
        """Make sure of the files and the message that it names.

        Raises:
            NotFound: one is not there, or another user's.
        """
        if request.attachments or request.context is not None:
            await self._applied.catch_up(request.min_seq)
        if request.attachments:
            await self._database.read(
                file_queries.check_there, request.user_id, request.attachments
            )
        if request.context is not None:
            await self._log.message(request.user_id, request.context)

    def check_length(self, content: str) -> None:
        most = self._settings.max_message
        if len(content) > most:
            raise TooLarge(
                f"A message may have {most} characters; this one has {len(content)}.",
                path="$.content",
            )

    async def regenerate(self, request: Regenerate) -> Accepted:
        session_id = request.session_id
        if session_id is None:
            if request.message_id is None:
                raise InvalidRequest("Name the session or the message.", path="$.message_id")
            session_id = (await self._log.message(request.user_id, request.message_id)).session_id
        turn = Turn(
            user_message_id="",
            assistant_message_id=ids.new_id(),
            content=None,
            idempotency_key=request.idempotency_key,
            idempotency_digest=digest(request),
        )

        async def turn_in(state: SessionState) -> Turn:
            await self._applied.wait_for(state.session.last_seq)
            question = await self._question(request, state)
            return msgspec.structs.replace(
                turn,
                user_message_id=question.id,
                parent_id=question.parent_id,
                attachments=question.attachments,
            )

        return await self.accept(request.user_id, session_id, turn, turn_in, run_id=request.run_id)

    async def _question(self, request: Regenerate, state: SessionState) -> MessageRow:
        """The user message that is to be answered anew."""
        message_id = request.message_id or state.session.active_leaf
        if message_id is None:
            raise Conflict("There is no message to answer yet.")
        message = await self._log.message(request.user_id, message_id)
        if message.session_id != state.session.id:
            raise queries.not_found("message")
        if message.role == "assistant" and message.parent_id is not None:
            message = await self._log.message(request.user_id, message.parent_id)
        if message.depth == 0:
            raise queries.never_sent()
        return message

    async def accept(
        self,
        user_id: str,
        session_id: str,
        turn: Turn,
        turn_in: Callable[[SessionState], Awaitable[Turn]],
        *,
        run_id: str = "",
    ) -> Accepted:
        """Append the turn's first fact, unless it is there, and answer.

        It may be there because this very request was asked before and not answered
        (its run's id says so), or because another one came with its key.
        """
        run_id = run_id or ids.new_id()
        need_id(run_id, "run_id")
        address = Address(user_id, session_id, run_id)

        async def attempt(state: SessionState) -> RunRow | None:
            begun = await self._begun(address, state)
            if begun is not None:
                for run in interrupted_by(state, begun):  # it may have died before this
                    await self._log.cancel(_address(run), "another message came")
                return None
            keyed = await self._keyed(user_id, turn)
            if keyed is not None and not may_begin_again(keyed):
                return keyed
            await self._model_names.check(turn.model or state.session.model)
            try:
                decision = decide(state, answered_anew(state, keyed, turn) or await turn_in(state))
            except Conflict:  # a refusal is no append, so the chain cannot tell that it is late
                await self._log.check_latest(address, state.session.last_seq)
                raise
            await self._log.append(address, _first_fact(decision), state.session.last_seq)
            for run in decision.interrupts:
                await self._log.cancel(_address(run), "another message came")
            return None

        name = f"{user_id} {turn.idempotency_key or run_id}"
        async with self._locks.setdefault(name, asyncio.Lock()):
            keyed = await self._log.decide(user_id, session_id, attempt)
        return await self._accepted(address if keyed is None else _address(keyed), keyed)

    async def _begun(self, address: Address, state: SessionState) -> RunRow | None:
        """The run with the id that is to begin one.

        Raises:
            Conflict: it is another session's.
        """
        began = self._memory.begun(address.run)
        hot = await self._log.hot(address.user, address.session)
        if began in (None, address) and (found := hot.run(address.run)) is not None:
            return found
        # A request that comes again does so within seconds, so a new id began nothing.
        if began is None and ids.age(address.run) < FRESH:
            return None
        found = await self._log.read_at(state.session.last_seq, queries.run_by_id, address.run)
        began = began if found is None else _address(found)
        if began not in (None, address):
            raise Conflict("This run id is taken; please choose another.")
        return found

    async def _keyed(self, user_id: str, turn: Turn) -> RunRow | None:
        """The run that the turn's key began; the last one, where others before it failed.

        Raises:
            KeyReused: it began another turn.
        """
        if turn.idempotency_key is None:
            return None
        began = self._memory.keyed(user_id, turn.idempotency_key)
        if began is None:
            known = await self._database.read(queries.keyed, user_id, turn.idempotency_key)
        else:
            known = await self._log.run(began)
        return None if known is None else same(known, turn)

    async def _accepted(self, address: Address, keyed: RunRow | None) -> Accepted:
        """The answer to who began a run, or asked for one that was begun before."""
        hot = await self._log.hot(address.user, address.session)
        run = hot.run(address.run)
        message = None if run is None else hot.message(run.user_message_id)
        if run is None or message is None:  # it is older than what memory keeps
            repeated = keyed is not None
            return await self._log.read_at(
                hot.seq, queries.accepted, address.run, repeated=repeated
            )
        return Accepted(
            run=run.record(),
            user_message=message.record(),
            assistant_message_id=run.assistant_message_id or "",
            seq=hot.seq,
            repeated=keyed is not None,
        )

    # -- runs -------------------------------------------------------------------------

    async def cancel_run(self, request: CancelRun) -> RunAnswer:
        need_there(request.run_id, "run")
        address = self._memory.begun(request.run_id)
        if address is None or address.user != request.user_id:
            await self._applied.catch_up(request.min_seq)
            run = await self._database.read(queries.find_run, request.user_id, request.run_id)
            address = _address(run)
        await self._log.cancel(address, "asked by the user")
        hot = await self._log.hot(address.user, address.session)
        now = hot.run(address.run)
        if now is None:
            again = GetRun(user_id=request.user_id, run_id=request.run_id)
            return await self._log.read_at(hot.seq, queries.get_run, again)
        return RunAnswer(run=now.record(), seq=hot.seq)

    async def open_feed(self, request: OpenFeed) -> FeedState:
        """Where the session stands, for whoever follows it from here."""
        return feed_state(
            await self._log.hot(request.user_id, request.session_id, min_seq=request.min_seq)
        )


def feed_state(hot: HotSession) -> FeedState:
    """Where a session stands (pure)."""
    unfinished = [_unfinished(run, hot) for run in hot.unfinished()]
    return FeedState(
        session=hot.session().record(),
        unfinished=[run for run in unfinished if run is not None],
        seq=hot.seq,
    )


def _unfinished(run: RunRow, hot: HotSession) -> UnfinishedRun | None:
    """What a feed shows of a run; nothing of a job."""
    question = hot.message(run.user_message_id)
    if question is None or not run.assistant_message_id:
        return None
    return UnfinishedRun(
        run_id=run.id,
        user_message=question.record(),
        assistant_message_id=run.assistant_message_id,
        attempt=run.attempt,
        waiting=run.waiting,
        continues=run.turn.continues if run.turn else None,
    )


def _first_fact(decision: Decision) -> RunWaiting | TodoChat:
    if decision.waits:
        return RunWaiting(at=ids.now(), turn=decision.turn)
    return TodoChat(at=ids.now(), n=0, turn=decision.turn)


def _address(run: RunRow) -> Address:
    return Address(run.user_id, run.session_id, run.id)


def need_id(text: str, field: str) -> None:
    """Refuse what is no id.

    Raises:
        InvalidRequest: it is none.
    """
    if not ids.is_id(text):
        raise InvalidRequest(f"{field} must be a UUID.", path=f"$.{field}")
