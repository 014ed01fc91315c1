"""The store's files read in place, by whoever has no store to ask; nothing is written.

What lies in EVENTS and was not archived when the last store stopped is not seen.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event

from services.store import inspection
from services.store.database import database_path
from services.store.migrate import version_of
from services.store.schema import VERSION
from shared.commands import Facts, Request
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.inspection import FindRuns, FindSessions, ReadFacts
from shared.settings import Settings

Ask = Callable[[Request[Any]], Awaitable[Any]]


@asynccontextmanager
async def queries_to_files(settings: Settings) -> AsyncGenerator[Ask]:
    """Answer operators' questions from the files as they are.

    Raises:
        NotFound: they are not here.
        Conflict: another version of natterlog wrote them.
    """
    rows, log = reading(database_path(settings)), reading(settings.data_dir / "log.db")
    try:
        check_version(rows)

        async def ask(request: Request[Any]) -> Any:
            return await asyncio.to_thread(_answer, rows, log, request)

        yield ask
    finally:
        rows.dispose()
        log.dispose()


def reading(path: Path) -> sa.Engine:
    """A SQLite file that may be read and not be changed, nor made.

    Raises:
        NotFound: it is not there.
    """
    if not path.is_file():
        raise NotFound(
            f"There is no {path}. Name the directory that natterlog runs in, or its "
            "NATTERLOG_DATA_DIR; or start it, and try again."
        )
    file = f"file:{quote(os.fsencode(path.resolve()))}"
    url = sa.URL.create("sqlite", database=file, query={"mode": "ro", "uri": "true"})
    engine = sa.create_engine(url)

    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # each connection reads one snapshot, begun below

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def check_version(rows: sa.Engine) -> None:
    """Make sure that the tables are today's.

    Raises:
        Conflict: they are another version's.
    """
    with rows.connect() as connection:
        version = version_of(connection)
    if version != VERSION:
        raise Conflict(
            f"The tables are of version {version or 'unknown'}, and this natterlog's of {VERSION}. "
            "Start it once, which brings them up to date."
        )


def _answer(rows: sa.Engine, log: sa.Engine, request: Request[Any]) -> Any:
    match request:
        case FindRuns():
            with rows.connect() as connection:
                return inspection.find_runs(connection, request)
        case FindSessions():
            with rows.connect() as connection:
                return inspection.find_sessions(connection, request)
        case ReadFacts():
            with log.connect() as connection:
                facts = inspection.read_facts(connection, request)
            return Facts(facts=facts, upto=facts[-1].seq if facts else request.after)
        case _:
            raise InvalidRequest(f"Only a running natterlog can answer {request.name}.")
