"""What a reply is to be written from: the end of its branch, with the files that belong to it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from services.store import file_queries
from services.store.applying import read_applied
from services.store.database import Database
from services.store.memory import HotSession, Memory
from services.store.models import preferred_model
from services.store.queries import find_session
from services.store.rows import MessageRow, SessionRow
from services.store.schema import messages
from services.store.session_rows import CONTEXT_MESSAGES, branch_end
from services.store.watermark import Watermark
from shared import ids
from shared.commands import Context, ContextFile, ContextMessage, GetContext
from shared.events import Turn
from shared.records import Role

_READ = (
    *("id", "role", "content", "attachments"),
    *("thoughts", "provider", "model", "stop_reason"),
)


class Contexts:
    """Answers what replies are written from: from memory, and beyond it from the tables."""

    def __init__(self, memory: Memory, database: Database, applied: Watermark) -> None:
        self._memory = memory
        self._database = database
        self._applied = applied

    async def get_context(self, request: GetContext) -> Context:
        if ids.is_id(request.session_id):
            hot = await self._memory.session(
                request.user_id, request.session_id, min_seq=request.min_seq
            )
            if (found := remembered(hot, request.turn)) is not None:
                return found
        await self._applied.wait_for(request.min_seq)
        return await self._database.read(get_context, request)


def remembered(hot: HotSession, turn: Turn | None) -> Context | None:
    """What a reply is written from, if all of it is in memory (pure)."""
    session = hot.row
    if session is None or turn is None or turn.context is not None:
        return None
    model = _first(turn.model, session.model)
    leaf, own = _follows(turn)
    older = hot.tail(leaf, CONTEXT_MESSAGES - len(own))
    if older is None or model is None:
        return None
    if turn.continues is not None:
        if (reply := hot.message(turn.assistant_message_id)) is None:
            return None
        older = [reply, *older]
    found = [*older[: CONTEXT_MESSAGES - len(own)][::-1], *own]
    if any(message.attachments for message in found):
        return None
    return _context(session, turn, model, found, {}, hot.seq)


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
    found = [*older[::-1], *own]
    attached = {file for row in found for file in row.attachments}
    files = file_queries.context_files(connection, session.user_id, attached)
    model = _first(turn.model, session.model) or preferred_model(connection, session.user_id)
    return _context(session, turn, model, found, files, read_applied(connection))


def _context(
    session: SessionRow,
    turn: Turn,
    model: str | None,
    found: Sequence["sa.Row[Any] | MessageRow | _OwnMessage"],
    files: dict[str, ContextFile],
    seq: int,
) -> Context:
    return Context(
        messages=[_message(row, files) for row in found],
        system_prompt=_first(turn.system, session.system_prompt),
        model=model,
        temperature=_first(turn.temperature, session.temperature),
        max_tokens=_first(turn.max_tokens, session.max_tokens),
        seq=seq,
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
    return _follows(turn)


def _follows(turn: Turn) -> tuple[str | None, list["_OwnMessage"]]:
    """The message that the turn's own one follows, and that one if it says anything."""
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


def _message(
    row: "sa.Row[Any] | MessageRow | _OwnMessage", files: dict[str, ContextFile]
) -> ContextMessage:
    return ContextMessage(
        id=row.id,
        role=row.role,
        content=row.content,
        files=[files[file] for file in row.attachments if file in files],
        missing_files=sum(file not in files for file in row.attachments),
        thoughts=row.thoughts,
        provider=row.provider,
        model=row.model,
        stop_reason=row.stop_reason,
    )


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


_CONTEXT = branch_end([messages.c[name] for name in _READ], usable_only=True)
_REPLY: Any = sa.select(*(messages.c[name] for name in _READ)).where(
    messages.c.id == sa.bindparam("id")
)
