"""What operators are answered: runs, sessions and facts, whoever's they are."""

from typing import Any

import msgspec
import sqlalchemy as sa

from services.store.applying import read_applied
from services.store.archive import facts
from services.store.queries import MAX_PAGE
from services.store.rows import RunRow, SessionRow
from services.store.schema import runs, sessions, usage_log
from shared.errors import InvalidRequest
from shared.inspection import (
    FindRuns,
    FindSessions,
    FoundRun,
    FoundRuns,
    FoundSession,
    FoundSessions,
    ReadFacts,
)
from shared.plans import kind_of_plan
from shared.records import StoredFact

_MOST_BYTES = 4 * 1024 * 1024


def find_runs(connection: sa.Connection, request: FindRuns) -> FoundRuns:
    wanted = sa.select(runs.c.id).where(*_runs_wanted(request))
    # Of an imported run the first fact is younger than its acceptance.
    newest_first = (runs.c.created_at.desc(), runs.c.first_seq.desc())
    # sorted without their texts, which may be long
    newest = wanted.order_by(*newest_first).limit(_limit(request.limit))
    query = (
        sa.select(runs, usage_log.c.id.is_not(None).label("called"), *_OF_CALLS)
        .outerjoin(usage_log, usage_log.c.id == runs.c.id)
        .where(runs.c.id.in_(newest))
        .order_by(*newest_first)
    )
    found = [_found_run(row) for row in connection.execute(query)]
    return FoundRuns(items=found, seq=read_applied(connection))


def _runs_wanted(request: FindRuns) -> list[sa.ColumnElement[bool]]:
    wanted = [_begins(runs.c.id, request.prefix)]
    if request.user is not None:
        wanted.append(_begins(runs.c.user_id, request.user))
    if request.session is not None:
        wanted.append(_begins(runs.c.session_id, request.session))
    if request.state is not None:
        wanted.append(runs.c.status == request.state)
    if request.model is not None:
        wanted.append(runs.c.model == request.model)
    if request.error is not None:
        wanted.append(_failed_with(request.error))
    if request.message is not None:
        messages = (runs.c.user_message_id, runs.c.assistant_message_id)
        wanted.append(sa.or_(*(message == request.message for message in messages)))
    if request.restarted:
        wanted.append(runs.c.restarts > 0)
    return [*wanted, *_accepted_when(request)]


def _accepted_when(request: FindRuns) -> list[sa.ColumnElement[bool]]:
    wanted: list[sa.ColumnElement[bool]] = []
    if request.since is not None:
        wanted.append(runs.c.created_at >= request.since)
    if request.until is not None:
        wanted.append(runs.c.created_at < request.until)
    if request.before is not None:
        wanted.append(sa.tuple_(runs.c.created_at, runs.c.first_seq) < sa.tuple_(*request.before))
    return wanted


def _failed_with(code: str) -> sa.ColumnElement[bool]:
    if not code:
        return runs.c.error.is_not(None)
    # The column holds JSON whose first field is the code.
    text = sa.type_coerce(runs.c.error, sa.Text)
    return text.startswith('{"code":' + msgspec.json.encode(code).decode(), autoescape=True)


def _found_run(row: sa.Row[Any]) -> FoundRun:
    columns = dict(row._mapping)  # pyright: ignore[reportPrivateUsage]  (public, in spite of its name)
    of_calls = {field: columns.pop(field) for field in _USED}
    run = RunRow(**columns)
    same = {field: getattr(run, field) for field in _SAME}
    return FoundRun(**same, **of_calls, kind=_kind(run))


def _kind(run: RunRow) -> str:
    if run.plan is None:
        return "chat"
    return kind_of_plan(run.plan)


def find_sessions(connection: sa.Connection, request: FindSessions) -> FoundSessions:
    mine = runs.c.session_id == sessions.c.id
    count = sa.select(sa.func.count()).select_from(runs).where(mine)
    query = (
        sa.select(
            sessions,
            count.scalar_subquery().label("runs"),
            count.where(runs.c.ended_at.is_(None)).scalar_subquery().label("unfinished"),
        )
        .where(*_sessions_wanted(request))
        .order_by(sessions.c.last_seq.desc() if request.follows is None else sessions.c.id)
        .limit(_limit(request.limit))
    )
    found = [_found_session(row) for row in connection.execute(query)]
    return FoundSessions(items=found, seq=read_applied(connection))


def _sessions_wanted(request: FindSessions) -> list[sa.ColumnElement[bool]]:
    wanted = [_begins(sessions.c.id, request.prefix)]
    if request.user is not None:
        wanted.append(_begins(sessions.c.user_id, request.user))
    if request.model is not None:
        wanted.append(sessions.c.model == request.model)
    if request.mode is not None:
        wanted.append(sessions.c.mode == request.mode)
    if request.since is not None:
        wanted.append(sessions.c.updated_at >= request.since)
    if request.until is not None:
        wanted.append(sessions.c.updated_at < request.until)
    if request.before is not None:
        wanted.append(sessions.c.last_seq < request.before)
    if request.follows is not None:
        wanted.append(sessions.c.id > request.follows)
    return wanted


def _found_session(row: sa.Row[Any]) -> FoundSession:
    columns = dict(row._mapping)  # pyright: ignore[reportPrivateUsage]  (public, in spite of its name)
    counted, unfinished = columns.pop("runs"), columns.pop("unfinished")
    session = SessionRow(**columns)
    return FoundSession(
        session=session.record(),
        runs=counted,
        unfinished=unfinished,
        importing=session.importing,
        last_seq=session.last_seq,
    )


def read_facts(connection: sa.Connection, request: ReadFacts) -> list[StoredFact]:
    """Read a session's facts from the cold log, which is another file than the projection's."""
    query = (
        sa.select(facts.c.seq, facts.c.subject, facts.c.data)
        .where(
            facts.c.session == request.session_id,
            facts.c.seq > request.after,
            facts.c.at.is_not(None),
        )
        .order_by(facts.c.seq)
        .limit(_limit(request.limit))
    )
    found: list[StoredFact] = []
    size = 0
    with connection.execute(query) as rows:
        for row in rows:
            found.append(StoredFact(seq=row.seq, subject=row.subject, data=msgspec.Raw(row.data)))
            size += len(row.data)
            if size > _MOST_BYTES:
                break
    return found


def _begins(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool]:
    """Ids are hexadecimal, so that all that begin so lie before the same with a g."""
    return sa.and_(column >= text, column < f"{text}g")


def _limit(number: int) -> int:
    if number < 1:
        raise InvalidRequest("A page has at least one entry.", path="$.limit")
    return min(number, MAX_PAGE)


_OF_CALLS = (usage_log.c.cost, usage_log.c.latency_ms, usage_log.c.first_delta_ms)
_USED = ("called", *(column.name for column in _OF_CALLS))
_SAME = tuple(set(FoundRun.__struct_fields__) - {"kind", *_USED})
