"""One SQLite file: a single writer, readers beside it, and its schema kept up to date.

What is read or written is a plain function of a connection, so that it runs the
same on any database that SQLAlchemy reaches.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.settings import BadSetting, Settings

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 4
_CHECKPOINT_TRIES = 50


class Database:
    """A SQLite file in WAL mode."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # NORMAL may lose the last transactions at a power cut: the log has them.
        sync = "FULL" if durable else "NORMAL"
        self._writer = _engine(path, 1, "BEGIN IMMEDIATE", f"synchronous={sync}")
        self._readers = _engine(path, _READERS, "BEGIN", "query_only=ON")

    async def read(
        self, query: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What ``query`` finds in one snapshot."""
        async with self._readers.connect() as connection:
            return await connection.run_sync(query, *args, **kwargs)

    async def write(
        self, change: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do ``change`` in one transaction."""
        async with self.writing() as connection:
            return await connection.run_sync(change, *args, **kwargs)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """The writer's connection in a transaction; whoever else writes waits."""
        async with self._writer.begin() as connection:
            yield connection

    async def forget(self) -> None:
        """Leave nothing of erased rows in the write-ahead log.

        Deleted pages are zeroed in the file itself (secure_delete); the log beside
        it still has their old content until it is cut to nothing, which waits for
        the readers of the moment.
        """
        async with self._writer.connect() as connection:
            raw = await connection.get_raw_connection()
            sqlite: Any = raw.driver_connection
            for _ in range(_CHECKPOINT_TRIES):
                async with sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
                    busy, *_ = await cursor.fetchone()
                if not busy:
                    return

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writer.dispose()


def database_path(settings: Settings) -> Path:
    """Where the projection lies.

    Raises:
        BadSetting: a database of another kind.
    """
    if settings.database_url is None:
        return settings.data_dir / "natterlog.db"
    try:
        url = make_url(settings.database_url)
    except ArgumentError as error:
        raise BadSetting("NATTERLOG_DATABASE_URL is not a database's URL") from error
    if url.drivername not in ("sqlite", "sqlite+aiosqlite") or url.database in (
        None,
        "",
        ":memory:",
    ):
        raise BadSetting(
            f"NATTERLOG_DATABASE_URL names {url.drivername}, but natterlog keeps its tables in a "
            "SQLite file for now: use sqlite+aiosqlite:///path, or leave it unset."
        )
    return Path(url.database)


def _engine(path: Path, size: int, begin: str, *pragmas: str) -> AsyncEngine:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=size,
        max_overflow=0,
        pool_timeout=60,
        connect_args={"timeout": 30},
    )

    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, below
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "secure_delete=ON", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)
    return engine
