"""What was said: words to search, files that go with messages, what replies cost, titles.

Revision ID: 0007
Revises: 0006

Old facts give other rows than before (a session without a title is named after
its first message), so every row is dropped and made anew from the log.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_PROJECTED = (
    *("ai_chat_sessions", "ai_chat_messages", "api_usage_log", "runs"),
    *("presets", "models", "preferences", "users", "tokens"),
)


def upgrade() -> None:
    op.create_table(
        "attachments",
        sa.Column("file_id", sa.String(36), primary_key=True),
        sa.Column("message_id", sa.String(36), primary_key=True),
        sa.Column("session_id", sa.String(36), nullable=False),
    )
    op.create_index("ix_attachments_session", "attachments", ["session_id"])
    op.add_column("api_usage_log", sa.Column("cost", sa.BigInteger(), nullable=True))
    op.execute("CREATE VIRTUAL TABLE words USING fts5(text, message_id UNINDEXED)")
    for table in _PROJECTED:
        op.execute(f"DELETE FROM {table}")  # noqa: S608  (no input of anybody's)
    op.execute("UPDATE projection SET applied = 0")
