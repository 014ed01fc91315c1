"""A session that is being imported is not there yet.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column(
        "ai_chat_sessions",
        sa.Column("importing", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
