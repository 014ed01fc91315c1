"""What is answered about jobs: runs with a plan, each in a session of its own."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.store import file_queries
from services.store.applying import read_applied
from services.store.queries import MAX_PAGE, not_found
from services.store.rows import RunRow, run_row
from services.store.schema import runs, sessions
from shared.commands import GetJob, JobAnswer, JobPage, ListJobs
from shared.errors import InvalidRequest
from shared.records import Job


def get_job(connection: sa.Connection, request: GetJob) -> JobAnswer:
    if request.run_id is not None:
        wanted = runs.c.id == request.run_id
    elif request.session_id is not None:
        wanted = runs.c.session_id == request.session_id
    else:
        raise InvalidRequest("Name the job or its session.", path="$.run_id")
    found = connection.execute(_mine(request.user_id).where(wanted).order_by(runs.c.first_seq))
    row = found.first()
    if row is None:
        raise not_found("job")
    return JobAnswer(job=_job(row), seq=read_applied(connection))


def list_jobs(connection: sa.Connection, request: ListJobs) -> JobPage:
    if request.limit < 1:
        raise InvalidRequest("A page has at least one job.", path="$.limit")
    limit = min(request.limit, MAX_PAGE)
    page = _mine(request.user_id).where(*_matching(connection, request))
    found = connection.execute(page.order_by(runs.c.first_seq.desc()).limit(limit + 1)).all()
    items = [_job(row) for row in found[:limit]]
    return JobPage(
        items=items,
        next_before=items[-1].run.id if len(found) > limit else None,
        seq=read_applied(connection),
    )


def _matching(connection: sa.Connection, request: ListJobs) -> list[sa.ColumnElement[bool]]:
    wanted: list[sa.ColumnElement[bool]] = []
    if request.mode is not None:
        wanted.append(sessions.c.mode == request.mode)
    else:
        wanted.append(sessions.c.mode != file_queries.MODE)  # nobody waits for their readings
    if request.status is not None:
        wanted.append(runs.c.status == request.status)
    if request.ended_after is not None:
        wanted.append(_unfinished_or_ended_after(request.ended_after))
    if request.before is not None:
        first = sa.select(runs.c.first_seq).where(
            runs.c.id == request.before, runs.c.user_id == request.user_id
        )
        last = connection.execute(first).scalar()
        if last is None:
            raise not_found("job")
        wanted.append(runs.c.first_seq < last)
    return wanted


def _unfinished_or_ended_after(since: datetime) -> sa.ColumnElement[bool]:
    return runs.c.ended_at.is_(None) | (runs.c.ended_at > since)


def last_of_reference(connection: sa.Connection, user_id: str, client_ref: str) -> RunRow | None:
    """The run of the user's last job with this reference of the client's own."""
    query = (
        sa.select(runs)
        .join(sessions, sessions.c.id == runs.c.session_id)
        .where(
            runs.c.user_id == user_id,
            sessions.c.client_ref == client_ref,
            ~sessions.c.importing,
        )
    )
    row = connection.execute(query.order_by(runs.c.first_seq.desc()).limit(1)).first()
    return None if row is None else run_row(row)


def job_in(connection: sa.Connection, session_id: str) -> RunRow | None:
    """The job that a session is for."""
    query = sa.select(runs).where(runs.c.session_id == session_id, runs.c.plan.is_not(None))
    row = connection.execute(query.order_by(runs.c.first_seq).limit(1)).first()
    return None if row is None else run_row(row)


def scheduled_runs(connection: sa.Connection) -> list[RunRow]:
    """The jobs that wait for their time."""
    return [run_row(row) for row in connection.execute(_SCHEDULED)]


def _mine(user_id: str) -> Any:
    return (
        sa.select(runs, sessions.c.client_ref)
        .join(sessions, sessions.c.id == runs.c.session_id)
        .where(runs.c.user_id == user_id, runs.c.plan.is_not(None), ~sessions.c.importing)
    )


def _job(row: sa.Row[Any]) -> Job:
    columns = dict(row._mapping)  # pyright: ignore[reportPrivateUsage]  (public, in spite of its name)
    client_ref = columns.pop("client_ref")
    run = RunRow(**columns)
    assert run.plan is not None  # noqa: S101  (the query asks for those that have one)
    return run.job(run.plan, client_ref)


_SCHEDULED = (
    sa.select(runs)
    .join(sessions, sessions.c.id == runs.c.session_id)
    .where(runs.c.ended_at.is_(None), runs.c.status == "scheduled", ~sessions.c.importing)
)
