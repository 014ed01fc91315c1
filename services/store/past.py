"""Messages copied, so that another session can begin with them."""

from services.store.rows import MessageRow
from shared import ids
from shared.events import History, PastMessage


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
