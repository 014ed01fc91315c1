"""A session with everything that was said in it, in all of its branches."""

import sqlalchemy as sa

from services.store import branches, file_queries, queries
from services.store.applying import read_applied
from services.store.rows import message_row
from services.store.schema import messages
from shared.commands import Export, ExportSession


def export_session(connection: sa.Connection, request: ExportSession) -> Export:
    session = queries.find_session(connection, request.user_id, request.session_id)
    rows = [message_row(row) for row in connection.execute(_MESSAGES, {"session": session.id})]
    branch = branches.branch_of(connection, session.active_leaf)
    attached = dict.fromkeys(file for row in rows for file in row.attachments)
    return Export(
        session=session.record(),
        messages=[row.record() for row in rows],
        branch=[row.id for row in branch],
        files=file_queries.stored_files(connection, request.user_id, attached),
        seq=read_applied(connection),
    )


_MESSAGES = (
    sa.select(messages)
    .where(messages.c.session_id == sa.bindparam("session"), messages.c.depth > 0)
    .order_by(messages.c.depth, messages.c.seq, messages.c.id)
)
