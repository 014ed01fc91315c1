"""Bring the tables to the newest version; Alembic is imported only if there is something to do.

Its import alone takes a good part of the second in which the store is ready.
"""

import importlib

import sqlalchemy as sa

from services.store.database import Database
from services.store.schema import VERSION, metadata, projection

_TABLE = "alembic_version"


async def migrate(database: Database) -> None:
    """Create the tables, or change old ones into today's."""
    version = await database.write(version_of)
    if version is None:
        await database.write(_create)
    elif version != VERSION:
        upgrade = importlib.import_module("services.store.migrations.upgrade").upgrade
        await database.write(upgrade)


def version_of(connection: sa.Connection) -> str | None:
    """The version of the tables that are there; None when there are none."""
    if not sa.inspect(connection).has_table(_TABLE):
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalar() or ""  # noqa: S608


def _create(connection: sa.Connection) -> None:
    """A new file gets today's tables at once; a test compares them with the migrated ones."""
    metadata.create_all(connection)
    connection.execute(projection.insert().values(id=1, applied=0, epoch=""))
    connection.exec_driver_sql(
        f"CREATE TABLE {_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
    )
    connection.exec_driver_sql(f"INSERT INTO {_TABLE} VALUES ('{VERSION}')")  # noqa: S608
