"""A session's end, read from the tables: what commands need of it, however long it is."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from services.store.projection import Rows
from services.store.rows import MessageRow, SessionRow, message_row, run_row, session_row
from services.store.schema import messages, runs, sessions
from shared.records import MessageStatus

CONTEXT_MESSAGES = 20
"""Messages that a prompt has."""
USABLE: tuple[MessageStatus, ...] = ("completed", "cancelled")
"""The statuses of those that can be part of one, unless they are empty."""


def session_rows(connection: sa.Connection, session_id: str) -> Rows:
    """The session, its unfinished runs, and the end of its active branch with its runs."""
    rows = Rows()
    row = connection.execute(_SESSION, {"id": session_id}).one_or_none()
    if row is not None:
        session = rows.sessions[session_id] = session_row(row)
        for found in connection.execute(_UNFINISHED, {"session": session_id}):
            rows.runs[found.id] = run_row(found)
        _add_messages(connection, rows, session)
        _add_runs(connection, rows)
    return rows


def _add_messages(connection: sa.Connection, rows: Rows, session: SessionRow) -> None:
    found = [message_row(row) for row in connection.execute(_END, {"leaf": session.active_leaf})]
    found += _by_id(connection, _of_runs(rows) - {message.id for message in found})
    for message in found:
        rows.messages[message.id] = message
        rows.depths[message.id] = message.depth


def _of_runs(rows: Rows) -> set[str]:
    """The messages that the runs answer, or go on with."""
    named = [(run.user_message_id, run.assistant_message_id) for run in rows.runs.values()]
    return {message_id for pair in named for message_id in pair if message_id}


def _by_id(connection: sa.Connection, ids: set[str]) -> Sequence[MessageRow]:
    if not ids:
        return ()
    return [message_row(row) for row in connection.execute(_MESSAGES, {"ids": list(ids)})]


def _add_runs(connection: sa.Connection, rows: Rows) -> None:
    """Those that wrote the messages, so that a request that comes again finds what it began."""
    ids = {
        message.run_id for message in rows.messages.values() if message.run_id
    } - rows.runs.keys()
    if ids:
        for row in connection.execute(_RUNS, {"ids": list(ids)}):
            rows.runs[row.id] = run_row(row)


def branch_end(columns: Sequence[Any], *, usable_only: bool) -> Any:
    """The last messages of the branch that ends in ``leaf``, the newest first.

    As many as it takes to have ``CONTEXT_MESSAGES`` usable ones: the walk counts what it
    has found, so that its cost does not grow with the branch.
    """
    usable = messages.c.status.in_(USABLE) & (messages.c.content != "")
    counts = sa.case((usable, 1), else_=0)
    walk = (
        sa.select(messages.c.id, messages.c.parent_id, counts.label("found"))
        .where(messages.c.id == sa.bindparam("leaf"))
        .cte("walk", recursive=True)
    )
    walk = walk.union_all(
        sa.select(messages.c.id, messages.c.parent_id, walk.c.found + counts)
        .join(walk, messages.c.id == walk.c.parent_id)
        .where(walk.c.found < CONTEXT_MESSAGES)
    )
    found = sa.select(*columns).join(walk, walk.c.id == messages.c.id)
    if usable_only:
        found = found.where(usable)
    return found.order_by(messages.c.depth.desc())


_SESSION = sa.select(sessions).where(sessions.c.id == sa.bindparam("id"))
_UNFINISHED = sa.select(runs).where(
    runs.c.session_id == sa.bindparam("session"), runs.c.ended_at.is_(None)
)
_END = branch_end([messages], usable_only=False)
_MESSAGES = sa.select(messages).where(messages.c.id.in_(sa.bindparam("ids", expanding=True)))
_RUNS = sa.select(runs).where(runs.c.id.in_(sa.bindparam("ids", expanding=True)))
