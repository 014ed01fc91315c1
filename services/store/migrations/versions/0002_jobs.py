"""What a job's run knows beyond a chat's: its plan, and how far it has got.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for column in (
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("due", sa.DateTime(timezone=True), nullable=True),
        sa.Column("todo", sa.Integer(), nullable=False, server_default="-1"),
        sa.Column("steps", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("results", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("notes", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("text", sa.Text(), nullable=False, server_default=""),
    ):
        op.add_column("runs", column)
