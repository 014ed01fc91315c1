"""What the projection answers: plain functions of a connection and a request.

Each runs in one snapshot, so ``seq`` is exactly what the answer takes into
account.  What is not the user's is not there.
"""

from typing import Any

import sqlalchemy as sa

from services.store.applying import read_applied
from services.store.rows import (
    MessageRow,
    RunRow,
    SessionRow,
    message_row,
    run_row,
    session_row,
)
from services.store.schema import messages, runs, sessions
from shared.commands import (
    Accepted,
    GetMessage,
    GetRun,
    GetSession,
    ListMessages,
    ListSessions,
    MessageAnswer,
    MessagePage,
    RunAnswer,
    SessionAnswer,
    SessionPage,
)
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.records import HIDDEN_MODES

MAX_PAGE = 1000


# -- sessions -----------------------------------------------------------------------


def get_session(connection: sa.Connection, request: GetSession) -> SessionAnswer:
    session = find_session(connection, request.user_id, request.session_id)
    return SessionAnswer(session=session.record(), seq=read_applied(connection))


def list_sessions(connection: sa.Connection, request: ListSessions) -> SessionPage:
    mine = _matching(request)
    total = connection.execute(sa.select(sa.func.count()).select_from(sessions).where(*mine))
    page = sa.select(sessions).where(*mine).order_by(sessions.c.last_seq.desc())
    if request.before is not None:
        page = page.where(sessions.c.last_seq < request.before)
    limit = _page(request.limit)
    page = page.limit(limit + 1).offset(_page(request.offset, most=None))
    found = [session_row(row) for row in connection.execute(page)]
    shown = found[:limit]
    return SessionPage(
        items=[row.record() for row in shown],
        next=shown[-1].last_seq if len(found) > len(shown) > 0 else None,
        total=total.scalar_one(),
        seq=read_applied(connection),
    )


def _matching(request: ListSessions) -> list[sa.ColumnElement[bool]]:
    wanted = [sessions.c.user_id == request.user_id, ~sessions.c.importing]
    if request.status is not None:
        wanted.append(sessions.c.status == request.status)
    if request.modes is None:
        wanted.append(sessions.c.mode.not_in(HIDDEN_MODES))
    else:
        wanted.append(sessions.c.mode.in_(request.modes))
    if request.query:
        wanted.append(sessions.c.title.icontains(request.query, autoescape=True))
    return wanted


# -- messages -----------------------------------------------------------------------


def list_messages(connection: sa.Connection, request: ListMessages) -> MessagePage:
    session = find_session(connection, request.user_id, request.session_id)
    page = {
        "session": session.id,
        "leaf": session.active_leaf,
        "limit": _page(request.limit),
        "offset": _page(request.offset, most=None),
    }
    if request.all_branches:
        found = connection.execute(_ALL_NEWEST if request.descending else _ALL_OLDEST, page)
        total = connection.execute(_ALL_COUNT, page).scalar_one()
    else:
        found = connection.execute(_NEWEST_FIRST if request.descending else _OLDEST_FIRST, page)
        total = session.depth + session.waiting
    return MessagePage(
        items=[message_row(row).record() for row in found],
        total=total,
        seq=read_applied(connection),
    )


def get_message(connection: sa.Connection, request: GetMessage) -> MessageAnswer:
    row = find_message(connection, request.user_id, request.message_id)
    if row.session_id != request.session_id:
        raise not_found("message")
    return MessageAnswer(message=row.record(), seq=read_applied(connection))


def _listed(*, descending: bool) -> Any:
    """The active branch by depth, then what waits, by acceptance."""
    branch = (
        sa.select(messages.c.id, messages.c.parent_id)
        .where(messages.c.id == sa.bindparam("leaf"))
        .cte("branch", recursive=True)
    )
    branch = branch.union_all(
        sa.select(messages.c.id, messages.c.parent_id).join(
            branch, messages.c.id == branch.c.parent_id
        )
    )
    waiting = sa.select(messages.c.id).where(
        messages.c.session_id == sa.bindparam("session"), messages.c.status == "waiting"
    )
    shown = sa.union_all(sa.select(branch.c.id), waiting).subquery("shown")
    order = [messages.c.depth == 0, messages.c.depth, messages.c.seq]
    return (
        sa.select(messages)
        .join(shown, shown.c.id == messages.c.id)
        .order_by(*[key.desc() if descending else key for key in order])
        .limit(sa.bindparam("limit"))
        .offset(sa.bindparam("offset"))
    )


_OLDEST_FIRST = _listed(descending=False)
_NEWEST_FIRST = _listed(descending=True)


_SHOWN = (
    messages.c.session_id == sa.bindparam("session"),
    (messages.c.depth > 0) | (messages.c.status == "waiting"),
)
_ALL_COUNT = sa.select(sa.func.count()).select_from(messages).where(*_SHOWN)


def _all(*, descending: bool) -> Any:
    """Every branch: the first messages, what follows from them, and so on; then what waits."""
    order = [messages.c.depth == 0, messages.c.depth, messages.c.seq, messages.c.id]
    return (
        sa.select(messages)
        .where(*_SHOWN)
        .order_by(*[key.desc() if descending else key for key in order])
        .limit(sa.bindparam("limit"))
        .offset(sa.bindparam("offset"))
    )


_ALL_OLDEST = _all(descending=False)
_ALL_NEWEST = _all(descending=True)


# -- runs and feeds -------------------------------------------------------------------


def get_run(connection: sa.Connection, request: GetRun) -> RunAnswer:
    run = find_run(connection, request.user_id, request.run_id)
    return RunAnswer(run=run.record(), seq=read_applied(connection))


def accepted(connection: sa.Connection, run_id: str, *, repeated: bool) -> Accepted:
    """The answer to who sent a message, once its run is applied."""
    row = connection.execute(_RUN, {"id": run_id}).one_or_none()
    if row is None:
        raise not_found("session")  # deleted in the same moment
    run = run_row(row)
    message = message_row(connection.execute(_MESSAGE, {"id": run.user_message_id}).one())
    return Accepted(
        run=run.record(),
        user_message=message.record(),
        assistant_message_id=run.assistant_message_id or "",
        seq=read_applied(connection),
        repeated=repeated,
    )


# -- what commands and the dispatcher decide on -----------------------------------------


def find_session(
    connection: sa.Connection, user_id: str, session_id: str, *, importing: bool = False
) -> SessionRow:
    """The user's session; one that is being imported only for who asks for such."""
    row = connection.execute(_SESSION, {"id": session_id, "user": user_id}).one_or_none()
    if row is None or (row.importing and not importing):
        raise not_found("session")
    return session_row(row)


def owner(connection: sa.Connection, session_id: str) -> str | None:
    """Whose session it is; None where there is none."""
    return connection.execute(_OWNER, {"id": session_id}).scalar()


def run_by_id(connection: sa.Connection, run_id: str) -> RunRow | None:
    """A run, whoever asks."""
    row = connection.execute(_RUN, {"id": run_id}).one_or_none()
    return None if row is None else run_row(row)


def find_run(connection: sa.Connection, user_id: str, run_id: str) -> RunRow:
    row = connection.execute(_RUN, {"id": run_id}).one_or_none()
    if row is None or row.user_id != user_id or _is_importing(connection, row.session_id):
        raise not_found("run")
    return run_row(row)


def run_owner(connection: sa.Connection, run_id: str) -> tuple[str, str] | None:
    """The user and the session of a run, whoever asks."""
    row = connection.execute(_RUN, {"id": run_id}).one_or_none()
    return None if row is None else (row.user_id, row.session_id)


def find_message(connection: sa.Connection, user_id: str, message_id: str) -> MessageRow:
    row = connection.execute(_MESSAGE, {"id": message_id}).one_or_none()
    if row is None or row.user_id != user_id or _is_importing(connection, row.session_id):
        raise not_found("message")
    return message_row(row)


def _is_importing(connection: sa.Connection, session_id: str) -> bool:
    return bool(connection.execute(_IMPORTING, {"id": session_id}).scalar())


def unfinished_runs(connection: sa.Connection, session_id: str) -> list[RunRow]:
    """The session's runs in the order in which they go; the active one first."""
    return [run_row(row) for row in connection.execute(_UNFINISHED, {"session": session_id})]


def unsettled(connection: sa.Connection) -> list[str]:
    """The sessions in which a run is not ended; those that are being imported go nowhere."""
    return list(connection.execute(_UNSETTLED).scalars())


def dispatchable(
    connection: sa.Connection, session_id: str
) -> tuple[SessionRow, list[RunRow]] | None:
    """A session and its unfinished runs, whoever owns it."""
    row = connection.execute(_ANY_SESSION, {"id": session_id}).one_or_none()
    if row is None or row.importing:
        return None
    return session_row(row), unfinished_runs(connection, session_id)


def first_unfinished(connection: sa.Connection) -> int | None:
    """The first fact of the oldest run that is not ended, nor waiting for its time."""
    return connection.execute(_FIRST_UNFINISHED).scalar()


def not_found(what: str) -> NotFound:
    return NotFound(f"There is no such {what}.")


def never_sent() -> Conflict:
    return Conflict("That message was never sent to a model, so there is nothing to answer anew.")


def keyed(connection: sa.Connection, user_id: str, key: str) -> RunRow | None:
    """The run that an idempotency key began; the last one, where others before it failed."""
    began = connection.execute(_KEYED, {"user": user_id, "key": key}).all()
    # Two stores may have taken it for two sessions at one moment: then the first one counts.
    same = [row for row in began if row.idempotency_digest == began[0].idempotency_digest]
    return run_row(same[-1]) if same else None


def _page(number: int, *, most: int | None = MAX_PAGE) -> int:
    if number < 0:
        raise InvalidRequest("A page cannot begin before the start, nor have less than nothing.")
    return number if most is None else min(number, most)


_SESSION = sa.select(sessions).where(
    sessions.c.id == sa.bindparam("id"), sessions.c.user_id == sa.bindparam("user")
)
_ANY_SESSION = sa.select(sessions).where(sessions.c.id == sa.bindparam("id"))
_OWNER = sa.select(sessions.c.user_id).where(sessions.c.id == sa.bindparam("id"))
_RUN = sa.select(runs).where(runs.c.id == sa.bindparam("id"))
_MESSAGE = sa.select(messages).where(messages.c.id == sa.bindparam("id"))
_UNFINISHED = (
    sa.select(runs)
    .where(runs.c.session_id == sa.bindparam("session"), runs.c.ended_at.is_(None))
    .order_by(runs.c.waiting, runs.c.first_seq)
)
_IMPORTING = sa.select(sessions.c.importing).where(sessions.c.id == sa.bindparam("id"))
_OF_THIS_LOG = runs.c.session_id.not_in(sa.select(sessions.c.id).where(sessions.c.importing))
_UNSETTLED = sa.select(runs.c.session_id).where(runs.c.ended_at.is_(None), _OF_THIS_LOG).distinct()
_FIRST_UNFINISHED = sa.select(sa.func.min(runs.c.first_seq)).where(
    runs.c.ended_at.is_(None), runs.c.status != "scheduled", _OF_THIS_LOG
)
_KEYED = (
    sa.select(runs)
    .where(runs.c.user_id == sa.bindparam("user"), runs.c.idempotency_key == sa.bindparam("key"))
    .order_by(runs.c.first_seq)
)
