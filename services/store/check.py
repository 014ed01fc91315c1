"""Replay the log into a second database and name what differs: law 1, put to the test.

It reads the store's files and changes nothing, so it may be run beside a system
that is at work: what is compared is a snapshot of the tables, with the log as
far as they had applied it.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from services.store.applying import apply, read_applied
from services.store.archive import entry, facts, links, tombstones
from services.store.database import database_path
from services.store.files import check_version, reading
from services.store.schema import metadata, projection
from shared.errors import NatterlogError
from shared.log import configure
from shared.settings import Settings

_CHUNK = 500
_SHOWN = 60


class Difference(NamedTuple):
    """A row or a column that is not what the log says."""

    table: str
    key: str
    column: str | None
    """None: the whole row is there on one side only."""
    there: Any
    replayed: Any

    def __str__(self) -> str:
        where = f"{self.table} {self.key}"
        if self.column is None:
            side = "in the tables only" if self.there else "missing from the tables"
            return f"{where}: {side}"
        there, replayed = _short(self.there), _short(self.replayed)
        return f"{where} {self.column}: {there} in the tables, {replayed} by the log"


class Checked(NamedTuple):
    facts: int
    seq: int
    differences: list[Difference]


def main(settings: Settings) -> int:
    """``natterlog rebuild --check`` → 0: all is as the log says; 1: it is not."""
    configure(settings, service="check")
    try:
        checked = check(settings)
    except (NatterlogError, SQLAlchemyError, OSError) as error:
        sys.stderr.write(f"natterlog rebuild --check: {error}\n")
        return 1
    for difference in checked.differences:
        sys.stdout.write(f"{difference}\n")
    count = len(checked.differences) or "no"
    sys.stdout.write(
        f"Replayed {checked.facts} facts, up to {checked.seq}: {count} "
        f"difference{'' if count == 1 else 's'}.\n"
    )
    return 1 if checked.differences else 0


def check(settings: Settings) -> Checked:
    """Compare the tables with what the cold log makes of them.

    Raises:
        NotFound: there are no files here.
        Conflict: they are another version's.
    """
    log = reading(settings.data_dir / "log.db")
    with tempfile.TemporaryDirectory(prefix="natterlog-check-") as directory:
        there = _copied(database_path(settings), Path(directory) / "there.db")
        second = _new_file(Path(directory) / "replayed.db")
        try:
            check_version(there)
            with there.connect() as copied:
                seq = read_applied(copied)
            count = _replay(log, second, seq)
            going = _being_deleted(log, seq)
            with there.connect() as copied, second.connect() as replayed:
                differences = list(_differences(copied, replayed, going))
        finally:
            for engine in (log, there, second):
                engine.dispose()
    return Checked(count, seq, differences)


def _copied(path: Path, copy: Path) -> sa.Engine:
    """The tables as they are now.

    A reader that stays for long would keep the store from cutting its write-ahead
    log, and thus from erasing what was deleted: so nothing is read for long.
    """
    rows, engine = reading(path), _new_file(copy)
    source, target = rows.raw_connection(), engine.raw_connection()
    try:
        _sqlite(source).backup(_sqlite(target))
    finally:
        source.close()
        target.close()
        rows.dispose()
    return engine


def _new_file(path: Path) -> sa.Engine:
    return sa.create_engine(sa.URL.create("sqlite", database=str(path)))


def _sqlite(connection: sa.PoolProxiedConnection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.driver_connection)


def _replay(log: sa.Engine, second: sa.Engine, upto: int) -> int:
    """Project the log anew, as far as the tables had applied it; answers how many facts."""
    count = after = 0
    query = sa.select(facts.c.seq, facts.c.subject, facts.c.data)
    with second.begin() as replayed:
        metadata.create_all(replayed)
        replayed.execute(projection.insert().values(id=1, applied=0, epoch=""))
        while True:
            page = query.where(facts.c.seq > after, facts.c.seq <= upto).limit(_CHUNK)
            with log.connect() as connection:
                found = connection.execute(page.order_by(facts.c.seq)).all()
            if not found:
                return count
            after = found[-1].seq
            apply(replayed, links([entry(*row) for row in found]), after)
            count += len(found)


def _being_deleted(log: sa.Engine, seq: int) -> set[str]:
    """Sessions that the log is losing, while the tables as they were still have them."""
    later = sa.select(tombstones.c.session).where(tombstones.c.seq > seq)
    with log.connect() as connection:
        return set(connection.execute(later).scalars())


# -- comparing --------------------------------------------------------------------------


def _differences(
    there: sa.Connection, replayed: sa.Connection, going: set[str]
) -> Iterator[Difference]:
    for table in metadata.sorted_tables:
        if table is projection:
            continue
        for key, one, other in _paired(_rows(there, table), _rows(replayed, table)):
            if _session_of(table, one or other or {}) in going:
                continue
            if one is None or other is None:
                yield Difference(table.name, _key_text(key), None, one, other)
                continue
            for column in one.keys() | other.keys():
                mine, its = one.get(column), other.get(column)
                if mine != its:
                    yield Difference(table.name, _key_text(key), column, mine, its)


def _rows(
    connection: sa.Connection, table: sa.Table
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Every row as SQLite holds it, by its key and in the order of it."""
    keys = [column.name for column in table.primary_key]
    query = f"SELECT * FROM {table.name} ORDER BY {', '.join(keys)}"  # noqa: S608  (names of ours)
    for row in connection.exec_driver_sql(query).mappings():
        yield tuple(row[key] for key in keys), dict(row)


def _paired(
    ours: Iterator[tuple[tuple[Any, ...], dict[str, Any]]],
    theirs: Iterator[tuple[tuple[Any, ...], dict[str, Any]]],
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any] | None, dict[str, Any] | None]]:
    """The rows of two tables side by side; None where one has no such key."""
    one, other = next(ours, None), next(theirs, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[0] < other[0]):
            assert one is not None  # noqa: S101  (the loop's condition)
            yield one[0], one[1], None
            one = next(ours, None)
        elif one is None or other[0] < one[0]:
            yield other[0], None, other[1]
            other = next(theirs, None)
        else:
            yield one[0], one[1], other[1]
            one, other = next(ours, None), next(theirs, None)


def _session_of(table: sa.Table, row: dict[str, Any]) -> Any:
    return row.get("session_id", row["id"] if table.name == "ai_chat_sessions" else None)


def _key_text(key: Sequence[Any]) -> str:
    return " ".join(map(str, key))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
