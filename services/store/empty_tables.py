"""Empty tables in memory, for facts that are projected once more.

To create them takes a hundred times as long as to copy them, and to compile a
projection's statements longer than to run them.  So there is one set to copy
from, and one engine, which keeps what it compiled for all of its connections.
"""

import sqlite3
from functools import cache
from typing import cast

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from services.store.schema import metadata, projection

# Each connection has one owner, who may use it from one thread after another.
_ENGINE = sa.create_engine(
    "sqlite://", poolclass=NullPool, connect_args={"check_same_thread": False}
)


def empty_tables() -> sa.Connection:
    """A connection to tables of its own, which are gone when it is closed."""
    connection = _ENGINE.connect()
    _driver(_created_tables()).backup(_driver(connection))
    return connection


@cache
def _created_tables() -> sa.Connection:
    connection = _ENGINE.connect()
    with connection.begin():
        metadata.create_all(connection)
        connection.execute(projection.insert().values(id=1, applied=0, epoch=""))
    return connection


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)
