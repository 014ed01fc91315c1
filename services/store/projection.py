"""Facts into rows: a pure function of the log (architecture.md, law 1).

:func:`project` is all that is ever done to the tables.  It never looks at a
clock, makes an id or asks anybody, so that replaying the log gives the same
rows, byte for byte.  How rows get out of the database and back is the business
of :mod:`services.store.applying`.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from services.store import resources as library
from services.store.resources import Library
from services.store.rows import MessageRow, RunRow, SessionRow, UsageRow
from services.store.titles import title_of
from shared import conversation, run_state
from shared.events import (
    BranchChosen,
    CancelRequested,
    Fact,
    FactImported,
    LibraryFact,
    MessageRated,
    RunClaimed,
    RunEnded,
    RunFact,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    SessionFact,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
    TodoProcess,
)
from shared.log_entry import LogEntry
from shared.subjects import Address

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

    def find(self, message_id: str) -> MessageRow | None:
        return self.messages.get(message_id)

    def depth_of(self, message_id: str) -> int | None:
        return self.depths.get(message_id)

    def put_message(self, message: MessageRow) -> None:
        before = self.messages.get(message.id)
        if before is not None and before.content != message.content:
            self.grown_messages.add(message.id)
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


def project(rows: Rows, entry: LogEntry) -> None:
    """Change ``rows`` as the fact says."""
    address, fact = entry.address, entry.fact
    if isinstance(fact, FactImported):
        import_fact(rows, entry, fact)
        return
    if isinstance(fact, LibraryFact):
        library.project(rows.library, address.user, fact)
        return
    session = rows.sessions.get(address.session)
    if session is not None and session.user_id != address.user:
        return  # an id that two users chose at the same moment: the first has it
    if isinstance(fact, RunEnded) and was_called(fact):
        known = None if session is None else session.id
        rows.usage[address.run] = _usage(address, known, fact)
    if isinstance(fact, SessionCreated):
        session = rows.sessions[address.session] = _new_session(entry, fact)
    if session is not None:  # else deleted; what comes late is being erased, but for its cost
        session.last_seq = entry.seq
        session.updated_at = fact.at
        PROJECTORS[type(fact)](rows, session, entry, fact)


def import_fact(rows: Rows, entry: LogEntry, imported: FactImported) -> None:
    """What happened elsewhere counts like what happened here, once all of it is here."""
    project(rows, entry.unwrapped())
    session = rows.sessions.get(entry.address.session)
    if session is not None and session.user_id == entry.address.user:
        session.importing = imported.position < imported.of - 1


def _delete(rows: Rows, session: SessionRow, entry: LogEntry, fact: SessionDeleted) -> None:
    del entry, fact
    rows.drop_session(session.id)


def _project_message(rows: Rows, session: SessionRow, entry: LogEntry, fact: SessionFact) -> None:
    del fact
    _converse(rows, session, None, entry)


def _project_run(rows: Rows, session: SessionRow, entry: LogEntry, fact: RunFact) -> None:
    run = rows.runs.get(entry.address.run)
    if run is None:
        run = rows.runs[entry.address.run] = _new_run(entry, fact)
    _converse(rows, session, run, entry)
    run.apply(entry.seq, fact)


def _converse(rows: Rows, session: SessionRow, run: RunRow | None, entry: LogEntry) -> None:
    """Let the fact change the session's messages; the first one names it if it has no title."""
    is_first = session.last_message_at is None
    new = conversation.apply(session, run, rows, entry)
    for message in new:
        rows.put_message(message)
    if is_first and session.title is None:
        first = next((message.content for message in new if message.role == "user"), "")
        session.title = title_of(first)


def _update(rows: Rows, session: SessionRow, entry: LogEntry, fact: SessionUpdated) -> None:
    del rows, entry
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


Projector = Callable[[Rows, SessionRow, LogEntry, Any], None]

PROJECTORS: dict[type[Fact], Projector] = {
    SessionCreated: _project_message,
    SessionUpdated: _update,
    BranchChosen: _project_message,
    MessageRated: _project_message,
    SessionDeleted: _delete,
    RunWaiting: _project_run,
    RunScheduled: _project_run,
    TodoChat: _project_run,
    TodoProcess: _project_run,
    TodoGenerate: _project_run,
    RunClaimed: _project_run,
    CancelRequested: _project_run,
    RunEnded: _project_run,
}
"""What each fact of a session does to the rows."""


# -- new rows ---------------------------------------------------------------------


def _new_session(entry: LogEntry, fact: SessionCreated) -> SessionRow:
    return SessionRow(
        id=entry.address.session,
        user_id=entry.address.user,
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
        last_seq=entry.seq,
    )


def _new_run(entry: LogEntry, fact: RunFact) -> RunRow:
    turn = fact.turn if isinstance(fact, RunWaiting | TodoChat) else None
    return RunRow(
        **run_state.first_fields(entry.seq, fact),
        id=entry.address.run,
        session_id=entry.address.session,
        user_id=entry.address.user,
        user_message_id=turn.user_message_id if turn else None,
        assistant_message_id=turn.assistant_message_id if turn else None,
        idempotency_key=turn.idempotency_key if turn else None,
        idempotency_digest=turn.idempotency_digest if turn else None,
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
        stop_reason=run_state.stop_reason(fact.status, fact.stop_reason),
    )
