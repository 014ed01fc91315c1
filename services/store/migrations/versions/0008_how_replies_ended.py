"""How replies ended and what was thought before them.

Revision ID: 0008
Revises: 0007

Old facts say it already, so every row is dropped and made anew from the log.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_PROJECTED = (
    *("ai_chat_sessions", "ai_chat_messages", "attachments", "words", "api_usage_log", "runs"),
    *("presets", "models", "preferences", "users", "tokens"),
)


def upgrade() -> None:
    for table in ("ai_chat_messages", "api_usage_log", "runs"):
        op.add_column(table, sa.Column("stop_reason", sa.Text(), nullable=True))
    op.add_column("ai_chat_messages", sa.Column("thoughts", sa.Text(), nullable=True))
    op.add_column("ai_chat_messages", sa.Column("provider", sa.Text(), nullable=True))
    for table in _PROJECTED:
        op.execute(f"DELETE FROM {table}")  # noqa: S608  (no input of anybody's)
    op.execute("UPDATE projection SET applied = 0")
