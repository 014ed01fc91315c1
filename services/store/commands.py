"""What changes something: each decides on a session's state and appends a fact.

A decision is made on the session as of its last applied fact, and the append is
refused when anything came after it (:mod:`services.store.chains`).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from services.store import file_queries, queries
from services.store.archive import Archive
from services.store.chains import Chains
from services.store.database import Database
from services.store.erase import Eraser
from services.store.histories import read_history
from services.store.keys import answered_anew, digest, may_begin_again, same
from services.store.model_names import ModelNames
from services.store.models import preferred_model
from services.store.projection import CHANGEABLE
from services.store.queries import SessionState
from services.store.rows import MessageRow, RunRow
from services.store.watermark import LONG, Watermark
from shared import ids
from shared.bus import Bus
from shared.chain import Overtaken
from shared.commands import (
    Accepted,
    CancelRun,
    CreateSession,
    DeleteSession,
    Done,
    GetRun,
    GetSession,
    Regenerate,
    RunAnswer,
    SendMessage,
    SessionAnswer,
    UpdateSession,
)
from shared.errors import Conflict, InvalidRequest, TooLarge
from shared.events import (
    AnyFact,
    CancelRequested,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
    Turn,
)
from shared.records import HIDDEN_MODES
from shared.settings import Settings
from shared.subjects import Address, Scope, session_address

T = TypeVar("T")


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


class Commands:
    """The store's commands; the facts they append are all that they change."""

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        database: Database,
        archive: Archive,
        chains: Chains,
        applied: Watermark,
        eraser: Eraser,
        model_names: ModelNames,
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._database = database
        self._archive = archive
        self._chains = chains
        self._applied = applied
        self._eraser = eraser
        self._model_names = model_names

    # -- sessions ---------------------------------------------------------------------

    async def create_session(self, request: CreateSession) -> SessionAnswer:
        history = await read_history(self._bus, request.history_file)
        model = request.model or await self._default_model(request.user_id)
        if history is None:  # else it may come from where there are other models
            await self._check_new_model(request, model)
        fact = SessionCreated(
            at=ids.now(),
            title=request.title,
            mode=request.mode,
            model=model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            system_prompt=request.system_prompt,
            context_tags=request.context_tags,
            on_busy=request.on_busy,
            enable_tools=request.enable_tools,
            client_ref=request.client_ref,
            history=history,
        )
        return await self.open_session(request.user_id, request.session_id, fact)

    async def open_session(
        self, user_id: str, session_id: str, fact: SessionCreated
    ) -> SessionAnswer:
        """Append a session's first fact, unless the same request came before."""
        need_id(session_id, "session_id")
        if self.was_deleted(session_id):
            raise Conflict("This session was deleted; please open another.")
        address = session_address(user_id, session_id)
        await self._database.read(queries.check_free, user_id, session_id)
        try:
            seq = await self._chains.append(address, fact, expected=0)
        except Overtaken as overtaken:  # it is there already: the same request came twice
            await self._chains.catch_up(overtaken)
            seq = 0
        await self._applied.wait_for(seq, within=LONG if fact.history else None)
        return await self._session(user_id, session_id)

    async def _check_new_model(self, request: CreateSession, model: str | None) -> None:
        """Make sure of what a session names, and of the default where its first run comes at once.

        Raises:
            ModelNotFound: there is no such model.
        """
        begins_at_once = request.mode in HIDDEN_MODES and request.mode != file_queries.MODE
        if request.model is not None:
            await self._model_names.check(model)
        elif begins_at_once:
            await self._model_names.check(model, path=None)

    async def _default_model(self, user_id: str) -> str | None:
        """The model of a session that names none, in whatever dialect it is opened.

        None where the settings leave it to what the providers offer: then each
        reply takes the first of those (the worker's registry).
        """
        chosen = await self._database.read(preferred_model, user_id)
        return chosen or self._settings.first_choice

    async def update_session(self, request: UpdateSession) -> SessionAnswer:
        changes = {f: getattr(request, f) for f in CHANGEABLE}
        changes = {f: value for f, value in changes.items() if value is not msgspec.UNSET}
        address = session_address(request.user_id, request.session_id)

        async def attempt() -> int:
            state = await self._state(request.user_id, request.session_id)
            if not changes:
                return 0
            if isinstance(model := changes.get("model"), str) and model != state.session.model:
                await self._model_names.check(model)
            fact = SessionUpdated(at=ids.now(), **changes)
            return await self._chains.append(address, fact, expected=state.session.last_seq)

        await self._applied.wait_for(await self._decide(request.session_id, attempt))
        return await self._session(request.user_id, request.session_id)

    async def delete_session(self, request: DeleteSession) -> Done:
        address = session_address(request.user_id, request.session_id)

        async def attempt() -> int:
            # an import that was given up is deleted like any session
            state = await self._state(request.user_id, request.session_id, importing=True)
            going = [] if state.session.importing else state.unfinished
            for run in going:
                await self._cancel(run.id, request.user_id, "the session was deleted")
            if going:  # the cancels went on the chain
                state = await self._state(request.user_id, request.session_id)
            fact = SessionDeleted(at=ids.now(), mode=state.session.mode)
            return await self._chains.append(address, fact, expected=state.session.last_seq)

        seq = await self._decide(request.session_id, attempt)
        await self._applied.wait_for(seq)
        await self._eraser.erase(request.session_id)
        return Done(seq=seq)

    # -- turns ------------------------------------------------------------------------

    async def send_message(self, request: SendMessage) -> Accepted:
        self.check_length(request.content)
        await self._database.read(file_queries.check_there, request.user_id, request.attachments)
        if request.context is not None:
            await self.message(request.user_id, request.context)
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
            session_id = (await self.message(request.user_id, request.message_id)).session_id
        turn = Turn(
            user_message_id="",
            assistant_message_id=ids.new_id(),
            content=None,
            idempotency_key=request.idempotency_key,
            idempotency_digest=digest(request),
        )

        async def turn_in(state: SessionState) -> Turn:
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
        message = await self.message(request.user_id, message_id)
        if message.session_id != state.session.id:
            raise queries.not_found("message")
        if message.role == "assistant" and message.parent_id is not None:
            message = await self.message(request.user_id, message.parent_id)
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
        """Append the turn's first fact, unless it is there; answer once it is applied.

        It may be there because this very request was asked before and not answered
        (its run's id says so), or because another one came with its key.
        """
        run_id = run_id or ids.new_id()
        need_id(run_id, "run_id")
        address = Address(user_id, session_id, run_id)

        async def attempt() -> tuple[int, RunRow | None]:
            state = await self._state(user_id, session_id, turn.idempotency_key, run_id)
            if state.begun is not None:
                _need_own(state.begun, address)
                for run in interrupted_by(state, state.begun):  # it may have died before this
                    await self._cancel(run.id, user_id, "another message came")
                return 0, None
            if state.keyed is not None and not may_begin_again(same(state.keyed, turn)):
                return 0, state.keyed
            await self._model_names.check(turn.model or state.session.model)
            try:
                decision = decide(state, answered_anew(state, turn) or await turn_in(state))
            except Conflict:  # a refusal is no append, so the chain cannot tell that it is late
                await self.check_latest(address, state.session.last_seq)
                raise
            seq = await self._append_turn(address, decision, state.session.last_seq)
            for run in decision.interrupts:
                await self._cancel(run.id, user_id, "another message came")
            return seq, None

        async with self._chains.lock(f"{user_id} {turn.idempotency_key or run_id}"):
            seq, keyed = await self._decide(session_id, attempt)
        await self._applied.wait_for(seq)
        answered = keyed.id if keyed else run_id
        return await self._database.read(queries.accepted, answered, repeated=bool(keyed))

    async def _append_turn(self, address: Address, decision: Decision, last_seq: int) -> int:
        if decision.waits:
            fact = RunWaiting(at=ids.now(), turn=decision.turn)
        else:
            fact = TodoChat(at=ids.now(), n=0, turn=decision.turn)
        return await self._chains.append(address, fact, expected=last_seq)

    # -- runs -------------------------------------------------------------------------

    async def cancel_run(self, request: CancelRun) -> RunAnswer:
        _need_there(request.run_id, "run")
        await self._cancel(request.run_id, request.user_id, "asked by the user")
        again = GetRun(user_id=request.user_id, run_id=request.run_id)
        return await self._database.read(queries.get_run, again)

    async def _cancel(self, run_id: str, user_id: str, reason: str) -> None:
        """Put a cancel on the run's chain and wait until it is applied; ended runs stay as is."""

        async def attempt() -> int:
            run = await self._database.read(queries.find_run, user_id, run_id)
            if run.ended_at is not None or run.cancelled:
                return 0
            address = Address(user_id, run.session_id, run_id)
            fact = CancelRequested(at=ids.now(), reason=reason)
            return await self._chains.append(address, fact, expected=run.last_seq, scope=Scope.RUN)

        await self._applied.wait_for(await self._decide(f"run {run_id}", attempt))

    # -- deciding ---------------------------------------------------------------------

    async def decide_on_session(
        self, user_id: str, session_id: str, attempt: Callable[[SessionState], Awaitable[T]]
    ) -> T:
        """What ``attempt`` answers, given the session's state, once nothing came in between."""

        async def on_state() -> T:
            return await attempt(await self._state(user_id, session_id))

        return await self._decide(session_id, on_state)

    async def append_to_session(self, address: Address, fact: AnyFact, last_seq: int) -> None:
        """Append a fact that nothing of the session may come before, and see it applied.

        Raises:
            Overtaken: the session went on since ``last_seq``.
        """
        seq = await self._chains.append(address, fact, expected=last_seq)
        await self._applied.wait_for(seq)

    async def check_latest(self, address: Address, last_seq: int) -> None:
        """Make sure that the session's last applied fact is its last one.

        Raises:
            Overtaken: a newer one is there; decide again.
        """
        await self._chains.check_latest(address, last_seq)

    def was_deleted(self, session_id: str) -> bool:
        """Whether this id was a session's that is deleted for good."""
        return session_id in self._archive.deleted

    async def _decide(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await self._chains.decide(name, attempt, where="in this session")

    async def _state(
        self,
        user_id: str,
        session_id: str,
        key: str | None = None,
        run_id: str | None = None,
        *,
        importing: bool = False,
    ) -> SessionState:
        _need_there(session_id, "session")
        return await self._database.read(
            queries.session_state, user_id, session_id, key, run_id, importing=importing
        )

    async def _session(self, user_id: str, session_id: str) -> SessionAnswer:
        request = GetSession(user_id=user_id, session_id=session_id)
        return await self._database.read(queries.get_session, request)

    async def message(self, user_id: str, message_id: str) -> MessageRow:
        _need_there(message_id, "message")
        return await self._database.read(queries.find_message, user_id, message_id)


def need_id(text: str, field: str) -> None:
    if not ids.is_id(text):
        raise InvalidRequest(f"{field} must be a UUID.", path=f"$.{field}")


def _need_there(text: str, what: str) -> None:
    """What is no id names nothing, and must not get into a subject."""
    if not ids.is_id(text):
        raise queries.not_found(what)


def _need_own(run: RunRow, address: Address) -> None:
    if (run.user_id, run.session_id) != (address.user, address.session):
        raise Conflict("This run id is taken; please choose another.")
