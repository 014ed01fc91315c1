"""The cold log: every fact that EVENTS ever held, in order, in a file of its own.

EVENTS is cut at its old end; this is not.  Old cursors, history, export and
``rebuild`` read it.  Only a hard delete takes something out again.
"""

from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import msgspec
import sqlalchemy as sa

from services.store.database import Database
from services.store.projection import was_called
from services.store.schema import UtcTime
from shared.bus import FRAME
from shared.events import (
    AnyFact,
    FactImported,
    RunEnded,
    StepResult,
    decode_fact,
    encode,
    inside,
)
from shared.log import get_logger
from shared.log_entry import LogEntry
from shared.records import StoredFact
from shared.subjects import NONE, Address, fact_kind, parse, session_address

log = get_logger()

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 500
_BLOCK = 8 * 1024 * 1024
_PACKED = 300
"""Bytes, the server's largest block and the least that a packed fact has."""
IMPORTED = "imported"
_TOMBSTONE = "session.deleted"

metadata = sa.MetaData()

facts = sa.Table(
    "facts",
    metadata,
    # SQLite numbers its rows by a key of this type alone
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("user", sa.String(36), nullable=False),
    sa.Column("session", sa.String(36), nullable=False),
    sa.Column("run", sa.String(36), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("at", UtcTime),  # NULL: it could not be decoded
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Index("ix_facts_session", "session", "seq"),
)

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("session", sa.String(36), primary_key=True),
    sa.Column("user", sa.String(36), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("erased", sa.Boolean, nullable=False),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # always 1
    sa.Column("epoch", sa.Text, nullable=False),
    sa.Column("archived", sa.BigInteger, nullable=False),
)


class Entry(NamedTuple):
    """A fact on its way into the archive; ``fact`` is None when it cannot be decoded."""

    seq: int
    subject: str
    data: bytes
    fact: AnyFact | None

    @property
    def at(self) -> datetime | None:
        return self.fact.at if self.fact else None


class Tombstone(NamedTuple):
    """A deleted session, whose facts are erased or yet to be."""

    session: str
    user: str
    seq: int

    @property
    def address(self) -> Address:
        return session_address(self.user, self.session)


def entry(seq: int, subject: str, data: bytes) -> Entry:
    """The fact in ``data``, decoded if that can be done."""
    try:
        fact = decode_fact(data)
        inside(fact)  # what cannot be read must not reach the projection
        return Entry(seq, subject, data, fact)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # The text of the error is about the form, never about what people wrote.
        log.error("store.fact_undecodable", seq=seq, subject=subject, error=str(error))
        return Entry(seq, subject, data, None)


class Archive:
    """The cold log's file; the store's loop alone adds to it."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, durable=True)
        self.archived = 0
        """The last sequence of EVENTS that is in here (or was, before it was erased)."""
        self.epoch = ""
        """The incarnation of EVENTS that was archived last; empty before the first."""
        self.deleted: set[str] = set()
        """The sessions that have a tombstone."""

    async def open(self) -> None:
        await self._database.write(_create)
        await self.look()

    async def look(self) -> None:
        """Learn from the file how far it goes."""
        self.epoch, self.archived, self.deleted = await self._database.read(_state)

    async def close(self) -> None:
        await self._database.close()

    async def set_epoch(self, epoch: str) -> None:
        await self._database.write(lambda c: c.execute(meta.update().values(epoch=epoch)))
        self.epoch = epoch

    async def add(self, entries: list[Entry]) -> None:
        """Keep ``entries``, which follow what is here; they are on disk when this returns."""
        late = await self._database.write(_add, entries, self.deleted)
        self.deleted |= late
        self.archived = entries[-1].seq

    async def session_facts(self, address: Address, after: int, limit: int) -> list[StoredFact]:
        """A session's facts after ``after``, oldest first."""
        return await self._database.read(_session_facts, address, after, limit)

    async def read(
        self, query: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What ``query`` finds in one snapshot."""
        return await self._database.read(query, *args, **kwargs)

    async def entries(self, after: int) -> AsyncGenerator[list[Entry]]:
        """Everything after ``after``, in pieces."""
        while True:
            rows = await self._database.read(_entries, after, _CHUNK)
            if not rows:
                return
            yield rows
            after = rows[-1].seq

    # -- hard delete ------------------------------------------------------------------

    async def unerased(self) -> list[Tombstone]:
        """The deleted sessions of which something may still be there."""
        return await self._database.read(_unerased)

    async def session_entries(self, tombstone: Tombstone) -> list[Entry]:
        """The deleted session's other facts, as long as they are not erased."""
        return await self._database.read(_session_entries, tombstone)

    async def end_of_block(self, tombstone: Tombstone, first: int) -> int | None:
        """How far EVENTS must be trimmed for no block to hold a trimmed fact of the session.

        None when all of them are in EVENTS yet (``first`` is where it begins).
        """
        return await self._database.read(_end_of_block, tombstone, first)

    async def erase(self, tombstone: Tombstone) -> None:
        """Take the session's facts out, but for its tombstone and what its replies cost."""
        await self._database.write(_erase, tombstone)
        await self._database.forget()

    async def set_erased(self, tombstone: Tombstone) -> None:
        """Nothing is left anywhere else; if a late fact came in here meanwhile, it stays open."""
        await self._database.write(_set_erased, tombstone)


def _create(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    if connection.execute(sa.select(meta.c.id)).first() is None:
        connection.execute(meta.insert().values(id=1, epoch="", archived=0))


def _state(connection: sa.Connection) -> tuple[str, int, set[str]]:
    row = connection.execute(sa.select(meta)).one()
    deleted = connection.execute(sa.select(tombstones.c.session)).scalars()
    return row.epoch, row.archived, set(deleted)


def _add(connection: sa.Connection, entries: list[Entry], deleted: set[str]) -> set[str]:
    """Insert the facts; answers the sessions that are deleted from here on."""
    new: set[str] = set()
    rows: list[dict[str, object]] = []
    for item in entries:
        address = parse(item.subject)
        rows.append(_row(item, address))
        if address.run == NONE and fact_kind(item.subject) == _TOMBSTONE:
            new.add(address.session)
            connection.execute(_tombstone(address, item.seq))
        elif address.session in deleted or address.session in new:
            # A worker's last words came late: there is something to erase again.
            connection.execute(_reopen(address.session))
    connection.execute(_INSERT, rows)
    connection.execute(_ADVANCE, {"upto": entries[-1].seq})
    return new


def _row(item: Entry, address: Address) -> dict[str, object]:
    return {
        "seq": item.seq,
        "user": address.user,
        "session": address.session,
        "run": address.run,
        "subject": item.subject,
        "at": item.at,
        "data": item.data,
    }


def _tombstone(address: Address, seq: int) -> sa.Insert:
    return tombstones.insert().values(
        session=address.session, user=address.user, seq=seq, erased=False
    )


def _reopen(session: str) -> sa.Update:
    return tombstones.update().where(tombstones.c.session == session).values(erased=False)


def _session_facts(
    connection: sa.Connection, address: Address, after: int, limit: int
) -> list[StoredFact]:
    mine = (facts.c.session == address.session) & (facts.c.user == address.user)
    query = (
        sa.select(facts.c.seq, facts.c.subject, facts.c.data)
        .where(mine, facts.c.seq > after, facts.c.at.is_not(None))
        .order_by(facts.c.seq)
        .limit(limit)
    )
    return [_stored(*row) for row in connection.execute(query)]


def _stored(seq: int, subject: str, data: bytes) -> StoredFact:
    """A fact as clients know it: what was imported is told like what happened here."""
    if subject.endswith(f".{IMPORTED}"):
        fact = decode_fact(data)
        if isinstance(fact, FactImported):
            return StoredFact(seq=seq, subject=parse(subject).fact(fact.what), data=fact.fact)
    return StoredFact(seq=seq, subject=subject, data=msgspec.Raw(data))


def _entries(connection: sa.Connection, after: int, limit: int) -> list[Entry]:
    query = (
        sa.select(facts.c.seq, facts.c.subject, facts.c.data)
        .where(facts.c.seq > after)
        .order_by(facts.c.seq)
        .limit(limit)
    )
    return [entry(*row) for row in connection.execute(query)]


def _session_entries(connection: sa.Connection, tombstone: Tombstone) -> list[Entry]:
    query = (
        sa.select(facts.c.seq, facts.c.subject, facts.c.data)
        .where(*_of(tombstone))
        .order_by(facts.c.seq)
    )
    return [entry(*row) for row in connection.execute(query)]


def _unerased(connection: sa.Connection) -> list[Tombstone]:
    query = (
        sa.select(tombstones.c.session, tombstones.c.user, tombstones.c.seq)
        .where(~tombstones.c.erased)
        .order_by(tombstones.c.seq)
    )
    return [Tombstone(*row) for row in connection.execute(query)]


def _end_of_block(connection: sa.Connection, tombstone: Tombstone, first: int) -> int | None:
    trimmed = sa.select(sa.func.max(facts.c.seq)).where(*_of(tombstone), facts.c.seq < first)
    last = connection.execute(trimmed).scalar()
    if last is None:
        return None
    sizes = sa.select(facts.c.seq, sa.func.length(facts.c.data)).where(facts.c.seq > last)
    total = 0
    for seq, size in connection.execute(sizes.order_by(facts.c.seq)):
        last = seq
        # Counted low: a packed fact is small in EVENTS, however large it is here.
        total += size if size <= FRAME else _PACKED
        if total > _BLOCK:
            break
    return last + 1


def _erase(connection: sa.Connection, tombstone: Tombstone) -> None:
    costs = [_cost(item) for item in _session_entries(connection, tombstone)]
    connection.execute(facts.delete().where(*_of(tombstone)))
    kept = [cost for cost in costs if cost]
    if kept:
        connection.execute(_INSERT, kept)


def _cost(item: Entry) -> dict[str, object] | None:
    """What stays of a deleted session's final: what it cost, without session and text.

    Totals of usage outlive the session (docs/api.md), and a rebuild must find them.
    """
    final = None if item.fact is None else inside(item.fact)
    if not isinstance(final, RunEnded) or not was_called(final):
        return None
    address = parse(item.subject)._replace(session=NONE)
    # Made anew of what is named here: a field of a later version stays only if it is meant to.
    fact = RunEnded(
        at=final.at,
        prev=final.prev,
        status=final.status,
        attempt=final.attempt,
        text="",
        length=0,
        sha256="",
        model=final.model,
        provider=final.provider,
        stop_reason=final.stop_reason,
        usage=final.usage,
        cost=final.cost,
        latency_ms=final.latency_ms,
        first_delta_ms=final.first_delta_ms,
        results=[_worth(r) for r in final.results],
    )
    return _row(Entry(item.seq, address.fact("final"), encode(fact), fact), address)


def _worth(result: StepResult) -> StepResult:
    return StepResult(step=result.step, text="", usage=result.usage, cost=result.cost)


def _set_erased(connection: sa.Connection, tombstone: Tombstone) -> None:
    left = sa.exists().where(*_of(tombstone))
    connection.execute(
        tombstones.update()
        .where(tombstones.c.session == tombstone.session, ~left)
        .values(erased=True)
    )


def _of(tombstone: Tombstone) -> list[sa.ColumnElement[bool]]:
    return [
        facts.c.session == tombstone.session,
        facts.c.user == tombstone.user,
        facts.c.seq != tombstone.seq,
    ]


def links(entries: list[Entry]) -> list[LogEntry]:
    """The facts that can be applied."""
    return [
        LogEntry(e.seq, e.subject, parse(e.subject), e.data, e.fact)
        for e in entries
        if e.fact is not None
    ]


_INSERT = facts.insert()
_ADVANCE = meta.update().values(archived=sa.bindparam("upto"))
