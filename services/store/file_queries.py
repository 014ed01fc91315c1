"""Files of users: whether one is there, who uses it, and when it goes.

A file is a session of its own, of the mode ``file``, whose one run reads it; so
whatever erases a session erases a file.  Nothing but messages keeps one: it
goes with the last session that refers to it, and when no message ever did, after
a day.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.store import queries
from services.store.applying import read_applied
from services.store.rows import RunRow, run_row
from services.store.schema import attachments, runs, sessions
from shared.commands import ContextFile, FileAnswer, GetFile
from shared.errors import NotFound
from shared.events import FilePlan
from shared.records import StoredFile

MODE = "file"
UNUSED = timedelta(hours=24)
"""How long a file waits to be attached to a message."""
EVERY = 600.0
"""Seconds between two looks for files that nobody uses."""
_AT_ONCE = 500


# -- queries ------------------------------------------------------------------------


def get_file(connection: sa.Connection, request: GetFile) -> FileAnswer:
    found = _find(connection, request.user_id, [request.file_id])
    if not found:
        raise queries.not_found("file")
    return FileAnswer(file=found[request.file_id], seq=read_applied(connection))


def check_there(connection: sa.Connection, user_id: str, file_ids: list[str]) -> None:
    """Refuse attachments that are no files of this user's.

    Raises:
        NotFound: one is not there, or somebody else's.
    """
    if not file_ids:
        return
    found = _find(connection, user_id, file_ids)
    for number, file_id in enumerate(file_ids):
        if file_id not in found:
            raise NotFound("There is no such file.", path=f"$.attachments[{number}]")


def stored_files(
    connection: sa.Connection, user_id: str, file_ids: Iterable[str]
) -> list[StoredFile]:
    """Those of the files that are there, in the order of their upload."""
    return sorted(_find(connection, user_id, list(file_ids)).values(), key=lambda file: file.id)


def context_files(
    connection: sa.Connection, user_id: str, file_ids: Iterable[str]
) -> dict[str, ContextFile]:
    """What is known of each file that is there, for a prompt."""
    return {
        run.session_id: _for_context(run, plan)
        for run, plan in _runs(connection, user_id, list(file_ids))
    }


def unused(connection: sa.Connection, user_id: str, file_ids: list[str]) -> list[str]:
    """Those of the files that no message refers to."""
    return list(connection.execute(_UNUSED, {"user": user_id, "ids": file_ids}).scalars())


def expired(connection: sa.Connection, before: datetime) -> list[tuple[str, str]]:
    """(user, file) of what was uploaded before then and no message refers to."""
    return [(row.user_id, row.id) for row in connection.execute(_EXPIRED, {"before": before})]


def _find(connection: sa.Connection, user_id: str, file_ids: list[str]) -> dict[str, StoredFile]:
    return {
        run.session_id: StoredFile(
            id=run.session_id,
            ref=plan.file,
            status=run.status,
            error=run.error,
            created_at=run.created_at,
        )
        for run, plan in _runs(connection, user_id, file_ids)
    }


def _runs(
    connection: sa.Connection, user_id: str, file_ids: list[str]
) -> list[tuple[RunRow, FilePlan]]:
    rows: list[Any] = []
    for start in range(0, len(file_ids), _AT_ONCE):
        part = {"user": user_id, "ids": file_ids[start : start + _AT_ONCE]}
        rows += connection.execute(_RUNS, part).all()
    found = [run_row(row) for row in rows]
    return [(run, run.plan) for run in found if isinstance(run.plan, FilePlan)]


def _for_context(run: RunRow, plan: FilePlan) -> ContextFile:
    result = run.results[0] if run.results else None
    return ContextFile(
        id=run.session_id,
        ref=plan.file,
        is_read=run.ended_at is not None,
        error=run.error,
        text=result.text_file if result else None,
        images=result.images if result else [],
        notes=result.notes if result else [],
    )


_RUNS = (
    sa.select(runs)
    .join(sessions, sessions.c.id == runs.c.session_id)
    .where(
        runs.c.session_id.in_(sa.bindparam("ids", expanding=True)),
        runs.c.user_id == sa.bindparam("user"),
        sessions.c.mode == MODE,
    )
)
_USING = sessions.alias("using_session")
# An import may name anybody's file: what another user's messages say keeps none.
_IS_USED = sa.exists().where(
    attachments.c.file_id == sessions.c.id,
    attachments.c.session_id == _USING.c.id,
    _USING.c.user_id == sessions.c.user_id,
)
_UNUSED = sa.select(sessions.c.id).where(
    sessions.c.id.in_(sa.bindparam("ids", expanding=True)),
    sessions.c.user_id == sa.bindparam("user"),
    sessions.c.mode == MODE,
    ~_IS_USED,
)
_EXPIRED = sa.select(sessions.c.id, sessions.c.user_id).where(
    sessions.c.mode == MODE,
    sessions.c.created_at < sa.bindparam("before"),
    ~sessions.c.importing,
    ~_IS_USED,
)
