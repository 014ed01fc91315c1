"""What a reply is to be written from: the end of its branch, with the files that belong to it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.store import file_queries
from services.store.applying import read_applied
from services.store.models import preferred_model
from services.store.queries import find_session
from services.store.rows import SessionRow
from services.store.schema import messages
from shared.commands import Context, ContextMessage, GetContext
from shared.events import Turn
from shared.records import MessageStatus, Role

CONTEXT_MESSAGES = 20

_USABLE: tuple[MessageStatus, ...] = ("completed", "cancelled")
_READ = (
    *("id", "role", "content", "attachments"),
    *("thoughts", "provider", "model", "stop_reason"),
)


def get_context(connection: sa.Connection, request: GetContext) -> Context:
    session = find_session(connection, request.user_id, request.session_id)
    turn = request.turn
    if turn is None:
        return _context_of_job(connection, session)
    leaf, own = _branch_of(connection, session.user_id, turn)
    older: list[sa.Row[Any]] = [
        *_continued_reply(connection, turn),
        *connection.execute(_CONTEXT, {"leaf": leaf}),
    ][: CONTEXT_MESSAGES - len(own)]
    return Context(
        messages=_with_files(connection, session.user_id, [*older[::-1], *own]),
        system_prompt=_first(turn.system, session.system_prompt),
        model=_first(turn.model, session.model) or preferred_model(connection, session.user_id),
        temperature=_first(turn.temperature, session.temperature),
        max_tokens=_first(turn.max_tokens, session.max_tokens),
        seq=read_applied(connection),
    )


def _branch_of(
    connection: sa.Connection, user_id: str, turn: Turn
) -> tuple[str | None, list["_OwnMessage"]]:
    """Where the branch ends in the tables that is the prompt, and the message that follows there.

    The turn's message is in the tables sooner or later, so it is never read from them.
    A branch of elsewhere that is gone meanwhile is no context.
    """
    if turn.context is not None:
        owner = sa.select(messages.c.user_id).where(messages.c.id == turn.context)
        if connection.execute(owner).scalar() == user_id:
            return turn.context, []
    if turn.content is None:  # an existing message is answered once more
        return turn.user_message_id, []
    message = _OwnMessage(turn.user_message_id, turn.content, turn.attachments)
    return turn.parent_id, [message] if message.content else []


class _OwnMessage(NamedTuple):
    """The turn's message, with what the rows of messages have."""

    id: str
    content: str
    attachments: list[str]
    role: Role = "user"
    thoughts: None = None
    provider: None = None
    model: None = None
    stop_reason: None = None


def _continued_reply(connection: sa.Connection, turn: Turn) -> Sequence[sa.Row[Any]]:
    """The reply that is continued, if one is: it follows what it answers."""
    if turn.continues is None:
        return ()
    return connection.execute(_REPLY, {"id": turn.assistant_message_id}).all()


def _with_files(
    connection: sa.Connection, user_id: str, found: Sequence[sa.Row[Any] | _OwnMessage]
) -> list[ContextMessage]:
    attached = {file for row in found for file in row.attachments}
    known = file_queries.context_files(connection, user_id, attached)
    return [
        ContextMessage(
            id=row.id,
            role=row.role,
            content=row.content,
            files=[known[file] for file in row.attachments if file in known],
            missing_files=sum(file not in known for file in row.attachments),
            thoughts=row.thoughts,
            provider=row.provider,
            model=row.model,
            stop_reason=row.stop_reason,
        )
        for row in found
    ]


def _context_of_job(connection: sa.Connection, session: SessionRow) -> Context:
    """Which model a job's todos are for, and how it is called."""
    return Context(
        messages=[],
        system_prompt=None,
        model=session.model or preferred_model(connection, session.user_id),
        temperature=session.temperature,
        max_tokens=session.max_tokens,
        seq=read_applied(connection),
    )


def _first(mine: Any, default: Any) -> Any:
    return default if mine is None else mine


def _context() -> Any:
    """The last usable messages of a branch, the newest first.

    The walk counts what it has found, so that its cost does not grow with the branch.
    """
    usable = messages.c.status.in_(_USABLE) & (messages.c.content != "")
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
    return (
        sa.select(*(messages.c[name] for name in _READ))
        .join(walk, walk.c.id == messages.c.id)
        .where(usable)
        .order_by(messages.c.depth.desc())
    )


_CONTEXT = _context()
_REPLY: Any = sa.select(*(messages.c[name] for name in _READ)).where(
    messages.c.id == sa.bindparam("id")
)
