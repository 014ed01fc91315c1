"""Facts into rows: a pure function of the log (architecture.md, law 1).

:func:`project` is all that is ever done to the tables.  It never looks at a
clock, makes an id or asks anybody, so that replaying the log gives the same
rows, byte for byte.  How rows get out of the database and back is the business
of :mod:`services.store.applying`.
"""

from datetime import datetime
from typing import Any

import msgspec

from services.store import past, steps
from services.store import resources as library
from services.store.resources import Library
from services.store.rows import MessageRow, RunRow, SessionRow, UsageRow
from services.store.titles import title_of
from shared import conversation
from shared.events import (
    BranchChosen,
    CancelRequested,
    FactImported,
    LibraryFact,
    MessageRated,
    RunClaimed,
    RunEnded,
    RunFact,
    RunScheduled,
    RunWaiting,
    SessionChange,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
)
from shared.log_entry import LogEntry
from shared.subjects import Address, parse

# -- the rows that some facts are about -------------------------------------------


class Rows:
    """The rows that a few facts change, as they are while the facts are applied."""

    def __init__(self) -> None:
        self.sessions: dict[str, SessionRow] = {}
        self.runs: dict[str, RunRow] = {}
        self.messages: dict[str, MessageRow] = {}
        self.usage: dict[str, UsageRow] = {}
        self.depths: dict[str, int] = {}
        """How deep in its branch a message is, for those that others may follow."""
        self.changed_messages: set[str] = set()
        self.grown_messages: set[str] = set()
        """Those whose text is another than before."""
        self.deleted_sessions: set[str] = set()
        self.library = Library()

    def put_message(self, message: MessageRow) -> None:
        self.messages[message.id] = message
        self.depths[message.id] = message.depth
        self.changed_messages.add(message.id)

    def drop_session(self, session_id: str) -> None:
        self.sessions.pop(session_id, None)
        for run in [r for r in self.runs.values() if r.session_id == session_id]:
            del self.runs[run.id]
        for message in [m for m in self.messages.values() if m.session_id == session_id]:
            del self.messages[message.id]
            self.changed_messages.discard(message.id)
            self.grown_messages.discard(message.id)
        for usage in self.usage.values():
            if usage.session_id == session_id:
                usage.session_id = None
        self.deleted_sessions.add(session_id)


# -- the rules --------------------------------------------------------------------


def project(rows: Rows, link: LogEntry) -> None:
    """Change ``rows`` as the fact says."""
    address = parse(link.subject)
    fact = link.fact
    if isinstance(fact, FactImported):
        _import(rows, link, fact)
        return
    if isinstance(fact, LibraryFact):
        library.project(rows.library, address.user, link.seq, fact)
        return
    session = rows.sessions.get(address.session)
    if session is not None and session.user_id != address.user:
        return  # an id that two users chose at the same moment: the first has it
    if isinstance(fact, RunEnded) and was_called(fact):
        known = None if session is None else session.id
        rows.usage[address.run] = _usage(address, known, fact)
    if isinstance(fact, SessionCreated):
        _open(rows, link.seq, address, fact)
    elif session is not None:  # else deleted; what comes late is being erased, but for its cost
        session.last_seq = link.seq
        session.updated_at = fact.at
        _project_session(rows, session, link.seq, address, fact)


def _open(rows: Rows, seq: int, address: Address, fact: SessionCreated) -> None:
    session = rows.sessions[address.session] = _new_session(seq, address, fact)
    for message in past.begin(session, fact.history):
        rows.put_message(message)


def _project_session(
    rows: Rows,
    session: SessionRow,
    seq: int,
    address: Address,
    fact: SessionChange | RunFact,
) -> None:
    match fact:
        case SessionUpdated():
            _update(session, fact)
        case BranchChosen():
            _choose(rows, session, fact)
        case MessageRated():
            _rate(rows, session, fact)
        case SessionDeleted():
            rows.drop_session(session.id)
        case _:
            _project_run(rows, session, seq, address, fact)


def _import(rows: Rows, link: LogEntry, imported: FactImported) -> None:
    """What happened elsewhere counts like what happened here, once all of it is here."""
    address = parse(link.subject)
    project(rows, link.unwrapped())
    session = rows.sessions.get(address.session)
    if session is not None and session.user_id == address.user:
        session.importing = imported.position < imported.of - 1


def _project_run(
    rows: Rows, session: SessionRow, seq: int, address: Address, fact: RunFact
) -> None:
    run = rows.runs.get(address.run)
    if run is None:
        run = rows.runs[address.run] = _new_run(seq, address, fact)
    run.last_seq = seq
    match fact:
        case RunWaiting():
            _wait(rows, session, run, fact)
        case TodoChat():
            _begin(rows, session, run, fact)
        case RunScheduled() | TodoProcess() | TodoGenerate():
            steps.go_on(run, fact)
        case RunClaimed():
            run.status, run.attempt, run.worker = "running", seq, fact.worker
            steps.claimed(run, fact.at)
            if fact.prompt is not None:
                run.provider, run.model = fact.prompt.provider, fact.prompt.model
        case CancelRequested():
            run.cancelled = True
        case RunEnded():
            _end(rows, session, run, fact)


def _wait(rows: Rows, session: SessionRow, run: RunRow, fact: RunWaiting) -> None:
    run.waiting = True
    if fact.turn.content is not None:
        session.waiting += 1
        _said(session, fact.turn.content, fact.at)
        rows.put_message(_user_message(run, fact.turn, fact.turn.content, depth=0))


def _begin(rows: Rows, session: SessionRow, run: RunRow, fact: TodoChat) -> None:
    turn = fact.turn
    waited, run.waiting, run.turn = run.waiting, False, turn
    if turn.content is None:
        run.user_depth = rows.depths.get(turn.user_message_id, 1)
    else:
        run.user_depth = _depth(rows, turn.parent_id) + 1
        rows.put_message(_user_message(run, turn, turn.content, depth=run.user_depth))
        if waited:
            session.waiting -= 1
        else:
            _said(session, turn.content, fact.at)
    session.active_leaf, session.depth = turn.user_message_id, run.user_depth
    if turn.continues is not None:  # its reply is there, and stays until it has grown
        session.active_leaf, session.depth = turn.assistant_message_id, run.user_depth + 1


def _end(rows: Rows, session: SessionRow, run: RunRow, fact: RunEnded) -> None:
    run.status, run.ended_at = fact.status, fact.at
    run.sha256, run.length = fact.sha256, fact.length
    run.usage, run.error = fact.usage, fact.error
    run.stop_reason = conversation.stop_reason(fact.status, fact.stop_reason)
    if run.plan is not None:
        steps.over(run, run.plan, fact)
    if run.turn is None:
        return
    if run.turn.continues is not None:
        run.waiting = False
        _grow(rows, session, run, run.turn, fact)
        return
    if run.waiting and run.turn.content is not None:
        session.waiting -= 1
        rows.put_message(_user_message(run, run.turn, run.turn.content, depth=0))
    depth = 0 if run.waiting else run.user_depth + 1
    rows.put_message(_reply(session, run, run.turn, fact, depth))
    session.last_message_at = fact.at
    if not run.waiting and session.active_leaf == run.user_message_id:
        session.active_leaf, session.depth = run.assistant_message_id, depth
    run.waiting = False


def _grow(rows: Rows, session: SessionRow, run: RunRow, turn: Turn, fact: RunEnded) -> None:
    """A reply that went on takes the place of what it was."""
    before = rows.messages.get(turn.assistant_message_id)
    if before is None or before.session_id != session.id:
        return  # told of by an import: no other session's message is touched
    if turn.continues is None or not conversation.grows(turn.continues, fact):
        return
    grown = _reply(session, run, turn, fact, before.depth)
    grown.seq = before.seq
    rows.put_message(grown)
    rows.grown_messages.add(grown.id)
    session.last_message_at = fact.at


def _said(session: SessionRow, content: str, at: datetime) -> None:
    """A message came; the first one names a session that has no title."""
    if session.title is None and session.last_message_at is None:
        session.title = title_of(content)
    session.last_message_at = at


def _choose(rows: Rows, session: SessionRow, fact: BranchChosen) -> None:
    if fact.leaf in rows.depths:
        session.active_leaf, session.depth = fact.leaf, rows.depths[fact.leaf]


def _rate(rows: Rows, session: SessionRow, fact: MessageRated) -> None:
    message = rows.messages.get(fact.message_id)
    if message is None or message.session_id != session.id:
        return
    said = {"rating": fact.rating, "comment": fact.comment}
    feedback = {name: value for name, value in said.items() if value is not None}
    message.feedback = feedback if fact.rating else None
    rows.put_message(message)


def _update(session: SessionRow, fact: SessionUpdated) -> None:
    for field in CHANGEABLE:
        value = getattr(fact, field)
        if value is not msgspec.UNSET:
            setattr(session, field, value)


CHANGEABLE = (
    "title",
    "status",
    "model",
    "temperature",
    "max_tokens",
    "system_prompt",
    "context_tags",
    "on_busy",
    "enable_tools",
)


def _depth(rows: Rows, message_id: str | None) -> int:
    return 0 if message_id is None else rows.depths.get(message_id, 0)


# -- new rows ---------------------------------------------------------------------


def _new_session(seq: int, address: Address, fact: SessionCreated) -> SessionRow:
    return SessionRow(
        id=address.session,
        user_id=address.user,
        title=fact.title,
        context_tags=fact.context_tags,
        system_prompt=fact.system_prompt,
        mode=fact.mode,
        status="active",
        created_at=fact.at,
        updated_at=fact.at,
        model=fact.model,
        temperature=fact.temperature,
        max_tokens=fact.max_tokens,
        on_busy=fact.on_busy,
        enable_tools=fact.enable_tools,
        client_ref=fact.client_ref,
        last_seq=seq,
    )


def _new_run(seq: int, address: Address, fact: RunFact) -> RunRow:
    turn = fact.turn if isinstance(fact, RunWaiting | TodoChat) else None
    run = RunRow(
        id=address.run,
        session_id=address.session,
        user_id=address.user,
        waiting=False,
        created_at=fact.at,
        turn=turn,
        user_message_id=turn.user_message_id if turn else None,
        assistant_message_id=turn.assistant_message_id if turn else None,
        idempotency_key=turn.idempotency_key if turn else None,
        idempotency_digest=turn.idempotency_digest if turn else None,
        first_seq=seq,
        last_seq=seq,
    )
    if isinstance(fact, RunScheduled | TodoProcess | TodoGenerate):
        steps.accept(run, fact)
    return run


def _user_message(run: RunRow, turn: Turn, content: str, *, depth: int) -> MessageRow:
    """The user's message of a run, in a branch (``depth``) or outside any (0)."""
    unsent = "waiting" if run.ended_at is None else "cancelled"
    return MessageRow(
        id=turn.user_message_id,
        session_id=run.session_id,
        user_id=run.user_id,
        role="user",
        content=content,
        created_at=run.created_at,
        parent_id=turn.parent_id if depth else None,
        depth=depth,
        status="completed" if depth else unsent,
        attachments=turn.attachments,
        model=None,
        run_id=run.id,
        seq=run.first_seq,
    )


def _reply(session: SessionRow, run: RunRow, turn: Turn, fact: RunEnded, depth: int) -> MessageRow:
    reply = conversation.reply(
        fact,
        message_id=turn.assistant_message_id,
        parent_id=turn.user_message_id,
        session_id=session.id,
        run_id=run.id,
        before=turn.continues,
    )
    fields: dict[str, Any] = msgspec.structs.asdict(reply) | {"thoughts": fact.thoughts}
    return MessageRow(
        **fields,
        user_id=session.user_id,
        depth=depth,
        seq=run.last_seq,
        provider=fact.provider,
    )


def was_called(final: RunEnded) -> bool:
    """Whether a model was called for a run that ended so: then its usage is logged."""
    worked_on = final.attempt or final.results
    return bool(worked_on) and (final.model is not None or final.usage is not None)


def _usage(address: Address, session_id: str | None, fact: RunEnded) -> UsageRow:
    usage = fact.usage
    return UsageRow(
        id=address.run,
        user_id=address.user,
        session_id=session_id,
        provider=fact.provider,
        model=fact.model,
        status=fact.status,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        cache_creation_input_tokens=usage.cache_creation_input_tokens if usage else None,
        cache_read_input_tokens=usage.cache_read_input_tokens if usage else None,
        cost=fact.cost,
        latency_ms=fact.latency_ms,
        first_delta_ms=fact.first_delta_ms,
        created_at=fact.at,
        stop_reason=conversation.stop_reason(fact.status, fact.stop_reason),
    )
