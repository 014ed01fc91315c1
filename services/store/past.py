"""What a session begins with when it was not begun from nothing: messages into rows, and back."""

from services.store.rows import MessageRow, SessionRow
from services.store.titles import title_of
from shared import ids
from shared.conversation import stop_reason
from shared.events import History, PastMessage


def begin(session: SessionRow, history: History | None) -> list[MessageRow]:
    """The rows of what a new session begins with, which its own row then knows of."""
    rows: dict[str, MessageRow] = {}
    for message in [] if history is None else history.messages:
        rows[message.id] = _row(session, message, rows.get(message.parent_id or ""))
    leaf = rows.get((history and history.leaf) or "")
    if leaf is not None:
        session.active_leaf, session.depth = leaf.id, leaf.depth
    session.last_message_at = max((row.created_at for row in rows.values()), default=None)
    if session.title is None:
        first = next((row.content for row in rows.values() if row.role == "user"), "")
        session.title = title_of(first)
    return list(rows.values())


def _row(session: SessionRow, message: PastMessage, parent: MessageRow | None) -> MessageRow:
    return MessageRow(
        id=message.id,
        session_id=session.id,
        user_id=session.user_id,
        role=message.role,
        content=message.content,
        tokens=message.tokens,
        latency_ms=message.latency_ms,
        created_at=message.created_at,
        parent_id=None if parent is None else parent.id,
        depth=1 if parent is None else parent.depth + 1,
        status=message.status,
        feedback=message.feedback,
        attachments=message.attachments,
        model=message.model,
        run_id=None,
        seq=session.last_seq,
        stop_reason=stop_reason(message.status, message.stop_reason),
        thoughts=message.thoughts,
        provider=message.provider,
    )


def history_of(branch: list[MessageRow]) -> History:
    """The same messages under new ids, so that they can live without the old ones."""
    new = {row.id: ids.new_id() for row in branch}
    messages = [
        PastMessage(
            id=new[row.id],
            parent_id=new.get(row.parent_id or ""),
            role=row.role,
            content=row.content,
            created_at=row.created_at,
            status="completed" if row.status == "waiting" else row.status,
            tokens=row.tokens,
            latency_ms=row.latency_ms,
            model=row.model,
            feedback=row.feedback,
            attachments=row.attachments,
            stop_reason=row.stop_reason,
            thoughts=row.thoughts,
            provider=row.provider,
        )
        for row in branch
    ]
    return History(messages=messages, leaf=messages[-1].id if messages else None)
