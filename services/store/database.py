"""One SQLite file: a single writer, readers beside it.

SQLite answers in microseconds, so what costs is going to a thread and back.  An
asynchronous driver goes once a call, several times a statement; here a whole
transaction goes once.  What is read or written is a plain function of a
connection, which an asynchronous engine's ``run_sync`` can run just as well,
once another database needs one.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.settings import BadSetting, Settings

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 2
_CHECKPOINT_TRIES = 50


class Transaction:
    """An open transaction of the writer, for changes that need more than one step."""

    def __init__(self, connection: sa.Connection, writer: Executor) -> None:
        self._connection = connection
        self._writer = writer

    async def run(
        self, change: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await _in(self._writer, change, self._connection, *args, **kwargs)


class Database:
    """A SQLite file in WAL mode; the owner of its connections and their threads."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # people's words; SQLite's files beside it get the same mode
        # NORMAL may lose the last transactions at a power cut: the log has them.
        sync = "FULL" if durable else "NORMAL"
        self._writes = _engine(path, 1, "BEGIN IMMEDIATE", f"synchronous={sync}")
        self._reads = _engine(path, _READERS, "BEGIN", "query_only=ON")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix=f"{path.stem}-reader")
        self._turn = asyncio.Lock()

    async def read(
        self, query: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What ``query`` finds in one snapshot."""

        def transaction() -> T:
            with self._reads.connect() as connection:
                return query(connection, *args, **kwargs)

        return await _in(self._readers, transaction)

    async def write(
        self, change: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do ``change`` in one transaction."""

        def transaction() -> T:
            with self._writes.begin() as connection:
                return change(connection, *args, **kwargs)

        async with self._turn:
            return await _in(self._writer, transaction)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[Transaction]:
        """A transaction of several steps; whoever else writes waits for its end."""
        async with self._turn:
            connection = await _in(self._writer, self._writes.connect)
            try:
                yield Transaction(connection, self._writer)
                await _in(self._writer, connection.commit)
            finally:  # which rolls back what was not committed
                await asyncio.shield(_in(self._writer, connection.close))

    async def forget(self) -> None:
        """Leave nothing of erased rows in the write-ahead log.

        Deleted pages are zeroed in the file itself (secure_delete); the log beside
        it still has their old content until it is cut to nothing, which waits for
        the readers of the moment.
        """
        async with self._turn:
            for _ in range(_CHECKPOINT_TRIES):
                if await _in(self._writer, self._truncate_log):
                    return
                await asyncio.sleep(0.05)

    def _truncate_log(self) -> bool:
        connection = self._writes.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            busy, *_ = cursor.fetchone() or (1,)
            return not busy
        finally:
            connection.close()

    async def close(self) -> None:
        """End the threads, once they have done what they were asked."""
        for threads, engine in ((self._readers, self._reads), (self._writer, self._writes)):
            await asyncio.to_thread(threads.shutdown)
            engine.dispose()


def database_path(settings: Settings) -> Path:
    """The path of the projection's file.

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


def _engine(path: Path, size: int, begin: str, *pragmas: str) -> sa.Engine:
    url = sa.URL.create("sqlite", database=str(path))  # in a text, a ? would end the path
    engine = sa.create_engine(url, pool_size=size, max_overflow=0, connect_args={"timeout": 30})

    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, below
        for pragma in ("journal_mode=WAL", "secure_delete=ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


async def _in(threads: Executor, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, partial(work, *args, **kwargs))
