"""How runs restarted, when their users saw a first word, and why replies failed.

Revision ID: 0009
Revises: 0008

Old facts say it already, so every row is dropped and made anew from the log.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_PROJECTED = (
    *("ai_chat_sessions", "ai_chat_messages", "attachments", "words", "api_usage_log", "runs"),
    *("presets", "models", "preferences", "users", "tokens"),
)


def upgrade() -> None:
    for table in _PROJECTED:
        op.execute(f"DELETE FROM {table}")  # noqa: S608  (no input of anybody's)
    op.execute("UPDATE projection SET applied = 0")
    op.add_column("ai_chat_messages", sa.Column("error", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("restarts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("first_word_at", sa.DateTime(timezone=True), nullable=True))
