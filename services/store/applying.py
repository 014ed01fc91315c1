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
from shared import conversation
from shared.log_entry import LogEntry
from shared.subjects import NONE


def apply(connection: sa.Connection, entries: Iterable[LogEntry], upto: int) -> int:
    """Apply the facts that are new, note that all up to ``upto`` are, and answer it.

    Facts that were applied before are left out, so that doing it twice is
    doing it once.
    """
    applied = read_applied(connection)
    if upto <= applied:
        return applied
    new = [entry for entry in entries if entry.seq > applied]
    if new:
        rows = _load(connection, new)
        for entry in new:
            project(rows, entry)
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


def _load(connection: sa.Connection, entries: list[LogEntry]) -> Rows:
    rows = Rows()
    rows.library = library.load(connection, entries)
    sessions_of_facts = list({entry.address.session for entry in entries})
    for row in connection.execute(_SESSIONS, {"ids": sessions_of_facts}):
        session = session_row(row)
        rows.sessions[session.id] = session
        if session.active_leaf is not None:
            rows.depths[session.active_leaf] = session.depth
    run_ids = {entry.address.run for entry in entries if entry.address.run != NONE}
    if run_ids:
        for row in connection.execute(_RUNS, {"ids": list(run_ids)}):
            run = run_row(row)
            rows.runs[run.id] = run
    _load_messages(connection, rows, entries)
    return rows


def _load_messages(connection: sa.Connection, rows: Rows, entries: list[LogEntry]) -> None:
    """Those that the facts may change, and how deep those are that they refer to."""
    changed, referred = set[str](), set[str]()
    for entry in entries:
        fact = entry.unwrapped().fact
        changed |= conversation.changed(fact, rows.runs.get(entry.address.run))
        referred |= conversation.referred(fact)
    if changed:
        for row in connection.execute(_MESSAGES, {"ids": list(changed)}):
            rows.messages[row.id] = message_row(row)
            rows.depths[row.id] = row.depth
    referred -= rows.depths.keys()
    if referred:
        for row in connection.execute(_DEPTHS, {"ids": list(referred)}):
            rows.depths[row.id] = row.depth


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
