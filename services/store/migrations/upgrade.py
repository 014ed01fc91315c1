"""Run the migrations on an open connection: the one module that imports Alembic."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


def config(connection: sa.Connection) -> Config:
    """Alembic's configuration, without a file."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    settings.attributes["connection"] = connection
    return settings


def upgrade(connection: sa.Connection, to: str = "head") -> None:
    """Bring the tables to the newest version, within the connection's transaction."""
    command.upgrade(config(connection), to)
