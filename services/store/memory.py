"""The sessions in use, in memory: what commands decide on without asking the tables.

Memory changes by one means only, :func:`services.store.projection.project` of a fact that
is in the log: this store's own at its acknowledgement, everybody else's at its live copy.
So it is never ahead of the log.  It may be behind, and that is found out by who appends
(the server refuses), by who would refuse (it looks at the leader's head first), and after
whatever may have cost a live fact (everything is doubtful then, :meth:`Memory.doubt`).

What is here is one session's end: its row, its unfinished and latest runs, the last
messages of its active branch.  A fact about anything older lets the session go; it is
read anew when somebody needs it, from the tables and from its chain after them.
"""

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from prometheus_client import Gauge

from services.store import queries
from services.store.database import Database
from services.store.hotlog import HotLog
from services.store.projection import Rows, project
from services.store.rows import MessageRow, RunRow, SessionRow
from services.store.session_rows import CONTEXT_MESSAGES, USABLE, session_rows
from services.store.watermark import Watermark
from shared import conversation
from shared.bus import Bus
from shared.chain import read_chain
from shared.events import (
    FactImported,
    RunFact,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    TodoChat,
    TodoProcess,
)
from shared.log_entry import LogEntry
from shared.subjects import NONE, Address, session_address

MOST = 256 * 1024 * 1024
"""Bytes of all sessions together, as far as they are counted; the least recently used go first."""
_MESSAGES = 64
_RUNS = 64
_BYTES = 6_000
"""What a session takes without its messages' text; each message adds ``_BYTES_A_MESSAGE``."""
_BYTES_A_MESSAGE = 1_000
_RUNS_KNOWN = 100_000

_held = Gauge("natterlog_store_hot_sessions", "Sessions in memory")
_bytes = Gauge("natterlog_store_hot_bytes", "What the sessions in memory take, about")


class HotSession:
    """One session's rows, as of its last fact."""

    def __init__(self, rows: Rows, session_id: str, generation: int) -> None:
        self.generation = generation
        """When it was last certain that no fact was missed."""
        self._rows = rows
        self._id = session_id
        self.size = 0

    @property
    def row(self) -> SessionRow | None:
        """The session; None once it is deleted. It changes with the next fact."""
        return self._rows.sessions.get(self._id)

    def session(self) -> SessionRow:
        """The session as it is now.

        Raises:
            NotFound: it is deleted.
        """
        row = self.row
        if row is None:
            raise queries.not_found("session")
        return copy.copy(row)

    @property
    def seq(self) -> int:
        """The session's last fact that is taken into account."""
        row = self.row
        return 0 if row is None else row.last_seq

    def unfinished(self) -> list[RunRow]:
        """Its runs that have not ended, in the order in which they go, as they are now."""
        going = [run for run in self._rows.runs.values() if run.ended_at is None]
        return [copy.copy(run) for run in sorted(going, key=lambda r: (r.waiting, r.first_seq))]

    def run(self, run_id: str) -> RunRow | None:
        """One of its latest runs."""
        run = self._rows.runs.get(run_id)
        return None if run is None else copy.copy(run)

    def message(self, message_id: str | None) -> MessageRow | None:
        """One of its latest messages."""
        return self._rows.messages.get(message_id or "")

    def tail(self, leaf: str | None, most: int) -> list[MessageRow] | None:
        """The last ``most`` usable messages of the branch that ends in ``leaf``, newest first.

        None when the branch goes on beyond what is here.
        """
        found: list[MessageRow] = []
        while leaf is not None and len(found) < most:
            message = self._rows.messages.get(leaf)
            if message is None:
                return None
            if message.status in USABLE and message.content:
                found.append(message)
            leaf = message.parent_id
        return found

    # -- taking facts --------------------------------------------------------------------

    def take(self, entry: LogEntry) -> bool:
        """Take in the session's next fact; False where what it is about is not all here."""
        if entry.seq <= self.seq:
            return True
        if self.row is None and not isinstance(entry.fact, SessionCreated):
            return True  # it is deleted, and this is on its way to be erased
        if not self._knows(entry):
            return False
        rows = self._rows
        project(rows, entry)
        rows.usage.clear()
        rows.changed_messages.clear()
        rows.grown_messages.clear()
        self._prune()
        return True

    def _knows(self, entry: LogEntry) -> bool:
        fact, rows = entry.fact, self._rows
        if isinstance(fact, FactImported) or fact.prev > self.seq:
            return False
        run = rows.runs.get(entry.address.run)
        if isinstance(fact, RunFact) and run is None and not _begins(fact):
            return False
        if not conversation.changed(fact, run) <= rows.messages.keys():
            return False
        return conversation.referred(fact) <= rows.depths.keys()

    def _prune(self) -> None:
        rows = self._rows
        if len(rows.runs) > _RUNS:
            ended = [run for run in rows.runs.values() if run.ended_at is not None]
            for run in sorted(ended, key=lambda run: run.first_seq)[: len(rows.runs) - _RUNS]:
                del rows.runs[run.id]
        if len(rows.messages) > _MESSAGES:
            rows.messages = {message.id: message for message in self._needed()}
            rows.depths = {message.id: message.depth for message in rows.messages.values()}
        self.size = _BYTES + sum(
            _BYTES_A_MESSAGE + len(row.content) for row in rows.messages.values()
        )

    def _needed(self) -> Iterable[MessageRow]:
        """The end of the active branch, and what unfinished runs answer."""
        row = self.row
        leaf, usable = (None if row is None else row.active_leaf), 0
        while leaf is not None and usable < CONTEXT_MESSAGES:
            message = self._rows.messages.get(leaf)
            if message is None:
                break
            yield message
            usable += message.status in USABLE and bool(message.content)
            leaf = message.parent_id
        for run in self._rows.runs.values():
            for message_id in (run.user_message_id, run.assistant_message_id):
                message = self._rows.messages.get(message_id or "")
                if run.ended_at is None and message is not None:
                    yield message


def _begins(fact: RunFact) -> bool:
    """Whether a run that nobody knows yet may begin with it."""
    if isinstance(fact, TodoChat | TodoProcess):
        return fact.n == 0
    return isinstance(fact, RunWaiting | RunScheduled)


class Memory:
    """The sessions in use; whoever appends and whoever listens hands the facts in."""

    def __init__(
        self, bus: Bus, database: Database, hot: HotLog, applied: Watermark, *, most: int = MOST
    ) -> None:
        self._bus = bus
        self._database = database
        self._hot = hot
        self._applied = applied
        self._most = most
        self._sessions: OrderedDict[str, HotSession] = OrderedDict()
        self._size = 0
        self._generation = 0
        self._loading: dict[str, list[LogEntry]] = {}
        """Live facts that come while their session is being read."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._begun: OrderedDict[str, Address] = OrderedDict()
        """The runs that began last, by their ids."""
        self._keys: OrderedDict[tuple[str, str], Address] = OrderedDict()
        """The latest run that began with a user's idempotency key."""
        self._heard = 0

    # -- finding ---------------------------------------------------------------------------

    async def session(
        self, user: str, session_id: str, *, min_seq: int = 0, importing: bool = False
    ) -> HotSession:
        """The user's session, as of ``min_seq`` at least.

        Raises:
            NotFound: it is not there, or another user's, or being imported.
            Unavailable, BusError: it is not known.
        """
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        if (found := self._current(session_id, min_seq)) is None:
            async with lock:
                found = self._current(session_id, min_seq)
                found = found or await self._read(user, session_id)
        row = found.row
        if row is None or row.user_id != user or (row.importing and not importing):
            raise queries.not_found("session")
        return found

    def held(self, session_id: str) -> HotSession | None:
        """The session if it is here and not in doubt."""
        return self._current(session_id, 0)

    def _current(self, session_id: str, min_seq: int) -> HotSession | None:
        found = self._sessions.get(session_id)
        if found is None or found.generation != self._generation:
            return None
        if found.seq < min_seq and self._heard < min_seq:
            return None
        self._sessions.move_to_end(session_id)
        return found

    async def _read(self, user: str, session_id: str) -> HotSession:
        """The session from its chain after what is here, or else after the tables."""
        generation, heard = self._generation, self._loading.setdefault(session_id, [])
        try:
            found = await self._caught_up(user, session_id, heard)
        finally:
            del self._loading[session_id]
        found.generation = generation
        row = found.row
        if row is not None and row.user_id == user and not row.importing:
            self._keep(session_id, found)
        return found

    async def _caught_up(self, user: str, session_id: str, heard: list[LogEntry]) -> HotSession:
        """What is here, or else in the tables, with the facts that the leader has after it."""
        found, at = self._sessions.get(session_id), 0
        while True:
            if found is None:
                found = await self._from_tables(session_id, at)
            chain = session_address(user, session_id).session_facts
            after = self._hot.expected(found.seq)
            entries = [*await read_chain(self._bus, chain, after), *heard]
            if all(found.take(entry) for entry in entries):
                return found
            found, at = None, max(entry.seq for entry in entries)

    async def _from_tables(self, session_id: str, at: int) -> HotSession:
        # What is cut off the log's old end must have reached the tables.
        await self._applied.wait_for(max(at, self._hot.first - 1))
        rows = await self._database.read(session_rows, session_id)
        return HotSession(rows, session_id, self._generation)

    # -- taking facts ------------------------------------------------------------------------

    def take(self, entry: LogEntry) -> None:
        """Take in a fact that is in the log and follows the session's last one here."""
        self._note_run(entry)
        session_id = entry.address.session
        if session_id in self._loading:
            self._loading[session_id].append(entry)
            return
        found = self._sessions.get(session_id)
        if found is None:
            return
        before = found.size
        if not found.take(entry) or isinstance(entry.fact, SessionDeleted):
            self.forget(session_id)
            return
        self._size += found.size - before
        self._evict()

    def took(self, entry: LogEntry) -> None:
        """Take in what this store has just appended after the session's last fact here."""
        session_id = entry.address.session
        known = session_id in self._sessions or session_id in self._loading
        if isinstance(entry.fact, SessionCreated) and not known:
            self._keep(session_id, HotSession(Rows(), session_id, self._generation))
        self.take(entry)

    def hear(self, seq: int, entry: LogEntry | None, session_id: str) -> None:
        """Take in a live fact; of one that cannot be read here (None) its session is let go."""
        if self._heard and seq != self._heard + 1:
            self.doubt()
        self._heard = seq
        if entry is not None:
            self.take(entry)
        elif session_id != NONE:
            self.forget(session_id)

    def doubt(self) -> None:
        """A live fact may have been missed: each session is looked up before it is believed."""
        self._generation += 1

    def doubt_session(self, session_id: str) -> None:
        """Facts of other runs may have come before one's own: look before this is believed."""
        if (found := self._sessions.get(session_id)) is not None:
            found.generation = -1

    def forget(self, session_id: str) -> None:
        """Let a session go; it is read anew when somebody needs it."""
        if (found := self._sessions.pop(session_id, None)) is not None:
            self._size -= found.size

    def forget_all(self) -> None:
        """Begin anew, with another incarnation of the log or with tables made anew."""
        self._sessions.clear()
        self._begun.clear()
        self._keys.clear()
        self._size = 0
        self._heard = 0
        self.doubt()

    def _keep(self, session_id: str, found: HotSession) -> None:
        self.forget(session_id)
        self._sessions[session_id] = found
        self._size += found.size
        self._evict()

    def _evict(self) -> None:
        while self._size > self._most and len(self._sessions) > 1:
            _, oldest = self._sessions.popitem(last=False)
            self._size -= oldest.size
        _held.set(len(self._sessions))
        _bytes.set(self._size)

    # -- what is known of runs -----------------------------------------------------------------

    def owner(self, session_id: str) -> str | None:
        """Whose session it is, if it is here."""
        found = self._sessions.get(session_id)
        return None if found is None or found.row is None else found.row.user_id

    def begun(self, run_id: str) -> Address | None:
        """Where a run of this id began, if it did so lately."""
        return self._begun.get(run_id)

    def keyed(self, user: str, key: str) -> Address | None:
        """The latest run that is known here to have begun with this key of the user's."""
        return self._keys.get((user, key))

    def _note_run(self, entry: LogEntry) -> None:
        fact, address = entry.fact, entry.address
        if not isinstance(fact, RunFact) or not _begins(fact):
            return
        _keep_last(self._begun, address.run, address)
        if isinstance(fact, RunWaiting | TodoChat) and fact.turn.idempotency_key is not None:
            _keep_last(self._keys, (address.user, fact.turn.idempotency_key), address)


def _keep_last(known: OrderedDict[Any, Address], key: object, address: Address) -> None:
    known[key] = address
    if len(known) > _RUNS_KNOWN:
        known.popitem(last=False)
