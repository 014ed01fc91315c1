"""Facts into the database: read the rows that they are about, project, write the rows back.

What the facts do to the rows is :mod:`services.store.projection`'s, and pure;
here is the part that knows tables.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from services.store import resources as library
from services.store import search
from services.store.projection import Rows, project
from services.store.rows import MessageRow, message_row, run_row, session_row
from services.store.saving import upsert
from services.store.schema import (
    attachments,
    messages,
    projection,
    runs,
    sessions,
    usage_log,
)
from shared.events import AnyFact, BranchChosen, MessageRated, RunWaiting, TodoChat, inside
from shared.log_entry import LogEntry
from shared.subjects import NONE, parse


def apply(connection: sa.Connection, links: Iterable[LogEntry], upto: int) -> int:
    """Apply the facts that are new, note that all up to ``upto`` are, and answer it.

    Facts that were applied before are left out, so that doing it twice is
    doing it once.
    """
    applied = read_applied(connection)
    if upto <= applied:
        return applied
    new = [link for link in links if link.seq > applied]
    if new:
        rows = _load(connection, new)
        for link in new:
            project(rows, link)
        _save(connection, rows)
    connection.execute(_SET_APPLIED, {"upto": upto})
    return upto


def read_applied(connection: sa.Connection) -> int:
    """The last fact that the rows take into account."""
    return connection.execute(_APPLIED).scalar_one()


def read_epoch(connection: sa.Connection) -> str:
    """The log's incarnation that the rows belong to; empty before the first."""
    return connection.execute(sa.select(projection.c.epoch)).scalar_one()


def set_epoch(connection: sa.Connection, epoch: str) -> None:
    connection.execute(projection.update().values(epoch=epoch))


def clear(connection: sa.Connection) -> None:
    """Drop every row; the log can make them anew."""
    for table in (sessions, messages, attachments, usage_log, runs, *library.TABLES):
        connection.execute(table.delete())
    search.clear(connection)
    connection.execute(_SET_APPLIED, {"upto": 0})


def _load(connection: sa.Connection, links: list[LogEntry]) -> Rows:
    rows = Rows()
    rows.library = library.load(connection, links)
    addresses = [parse(link.subject) for link in links]
    for row in connection.execute(_SESSIONS, {"ids": list({a.session for a in addresses})}):
        session = session_row(row)
        rows.sessions[session.id] = session
        if session.active_leaf is not None:
            rows.depths[session.active_leaf] = session.depth
    run_ids = {a.run for a in addresses if a.run != NONE}
    if run_ids:
        for row in connection.execute(_RUNS, {"ids": list(run_ids)}):
            run = run_row(row)
            rows.runs[run.id] = run
    told = [inside(link.fact) for link in links]
    known = {fact.message_id for fact in told if isinstance(fact, MessageRated)}
    known |= _going_on(told, rows)
    if known:
        for row in connection.execute(_MESSAGES, {"ids": list(known)}):
            rows.messages[row.id] = message_row(row)
            rows.depths[row.id] = row.depth
    parents = _parents(told) - rows.depths.keys()
    if parents:
        for row in connection.execute(_DEPTHS, {"ids": list(parents)}):
            rows.depths[row.id] = row.depth
    return rows


def _going_on(facts: Iterable[AnyFact], rows: Rows) -> set[str]:
    """The replies that may have grown since."""
    turns = [fact.turn for fact in facts if isinstance(fact, RunWaiting | TodoChat)]
    turns += [run.turn for run in rows.runs.values() if run.turn is not None]
    return {turn.assistant_message_id for turn in turns if turn.continues is not None}


def _parents(facts: Iterable[AnyFact]) -> set[str]:
    """The messages whose depth decides how deep a new one is."""
    found: set[str] = set()
    for fact in facts:
        if isinstance(fact, TodoChat) and fact.n == 0:
            parent = fact.turn.parent_id
            if fact.turn.content is None:
                found.add(fact.turn.user_message_id)
            elif parent is not None:
                found.add(parent)
        elif isinstance(fact, BranchChosen):
            found.add(fact.leaf)
    return found


def _save(connection: sa.Connection, rows: Rows) -> None:
    if rows.deleted_sessions:
        ids = list(rows.deleted_sessions)
        search.forget(connection, ids)
        for table in (messages, attachments, runs):
            connection.execute(table.delete().where(table.c.session_id.in_(ids)))
        connection.execute(sessions.delete().where(sessions.c.id.in_(ids)))
        connection.execute(
            usage_log.update().where(usage_log.c.session_id.in_(ids)).values(session_id=None)
        )
    upsert(connection, sessions, rows.sessions.values())
    upsert(connection, runs, rows.runs.values())
    changed = [rows.messages[i] for i in sorted(rows.changed_messages)]
    _save_messages(connection, changed, rows.grown_messages)
    upsert(connection, usage_log, rows.usage.values())
    library.save(connection, rows.library)


def _save_messages(connection: sa.Connection, changed: list[MessageRow], grown: set[str]) -> None:
    known = set[str]()
    # In parts: one fact can bring more messages than a statement of SQLite's may name.
    for start in range(0, len(changed), _AT_ONCE):
        part = [message.id for message in changed[start : start + _AT_ONCE]]
        known |= set(connection.execute(_KNOWN, {"ids": part}).scalars())
    upsert(connection, messages, changed)
    new = [message for message in changed if message.id not in known]
    others = [message for message in changed if message.id in known & grown]
    search.drop(connection, [message.id for message in others])
    search.add(connection, [*new, *others])  # the words of all others are the same
    uses = [
        {"file_id": file, "message_id": message.id, "session_id": message.session_id}
        for message in new
        for file in dict.fromkeys(message.attachments)
    ]
    if uses:
        connection.execute(attachments.insert(), uses)


_AT_ONCE = 500
_APPLIED = sa.select(projection.c.applied)
_SET_APPLIED = projection.update().values(applied=sa.bindparam("upto"))
_SESSIONS = sa.select(sessions).where(sessions.c.id.in_(sa.bindparam("ids", expanding=True)))
_RUNS = sa.select(runs).where(runs.c.id.in_(sa.bindparam("ids", expanding=True)))
_MESSAGES = sa.select(messages).where(messages.c.id.in_(sa.bindparam("ids", expanding=True)))
_KNOWN = sa.select(messages.c.id).where(messages.c.id.in_(sa.bindparam("ids", expanding=True)))
_DEPTHS = sa.select(messages.c.id, messages.c.depth).where(
    messages.c.id.in_(sa.bindparam("ids", expanding=True))
)
