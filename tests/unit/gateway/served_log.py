"""A scripted log that plays the bus and the store of its session, for feeds and replays."""

from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from services.gateway.sessions.feed import Feed
from services.store import queries
from services.store.archive import Entry
from services.store.history import Past
from services.store.memory import HotSession
from services.store.session_rows import session_rows
from services.store.turns import feed_state
from shared.bus import Incoming, Stored
from shared.commands import Facts, FeedState, GetFacts, GetMessage, GetRun, ListMessages, OpenFeed
from shared.events import Delta, encode
from shared.records import Message, Role, StoredFact
from shared.subjects import EVENTS, Address
from tests.support.scripted_log import SESSION, USER, ScriptedLog


class ServedLog(ScriptedLog):
    """What is stored and what is delivered are two things: a test delivers what it likes."""

    def __init__(self) -> None:
        super().__init__(first=3, step=3)  # other sessions' facts lie between
        self.deltas: list[Stored] = []
        self.bus_reads = 0
        self._past = Past()

    @property
    def last(self) -> Stored:
        """The fact that was appended last, as it is delivered."""
        entry = self.entries[-1]
        return Stored(entry.seq, entry.subject, entry.data)

    def stores(self, run: str, attempt: int, offset: int, text: str) -> Stored:
        """Any delta; :meth:`writes` makes those that follow from each other."""
        data = encode(Delta(attempt=attempt, offset=offset, text=text))
        subject = Address(USER, SESSION, run).tokens
        self.deltas.append(Stored(len(self.deltas) + 1, subject, data))
        return self.deltas[-1]

    def messages(self, *, role: Role) -> list[Message]:
        """Those that are in a branch, of whatever branch."""
        page = ListMessages(user_id=USER, session_id=SESSION, all_branches=True, limit=1000)
        items = self._answer(page, queries.list_messages, self.entries[-1].seq).items
        return [m for m in items if m.role == role and m.status != "waiting"]

    # -- the bus ----------------------------------------------------------------------

    async def listen(self, subject: str, callback: object) -> Any:
        del subject, callback
        return self

    listen_live = listen

    async def close(self) -> None:
        pass

    async def wait_connected(self) -> None:
        pass

    async def read(
        self, stream: str, subject: str, *, after: int = 0, limit: int = 1000
    ) -> list[Stored]:
        self.bus_reads += 1
        if stream == EVENTS:
            found = [Stored(e.seq, e.subject, e.data) for e in self.entries if e.seq > after]
            return found[:limit]
        return [s for s in self.deltas if s.seq > after and s.subject == subject][:limit]

    async def head(self, stream: str, subject: str) -> Stored | None:
        assert stream == EVENTS
        chain = subject.removesuffix(">")
        found = (e for e in reversed(self.entries) if e.subject.startswith(chain))
        return next((Stored(e.seq, e.subject, e.data) for e in found), None)

    # -- the store --------------------------------------------------------------------

    async def ask(self, request: object) -> Any:
        head = self.entries[-1].seq
        match request:
            case OpenFeed():
                return self._answer(request, _feed, head)
            case GetFacts(after=after):
                found = [
                    StoredFact(seq=e.seq, subject=e.subject, data=msgspec.Raw(e.data))
                    for e in self.entries
                    if e.seq > after
                ]
                return Facts(facts=found[:2], upto=head)
            case GetRun():
                return self._answer(request, queries.get_run, head)
            case GetMessage():
                return self._answer(request, queries.get_message, head)
            case ListMessages(at=int() as at):
                return self._answer(request, queries.list_messages, at)
            case _:
                raise AssertionError(request)

    def _answer(self, request: Any, query: Callable[..., Any], at: int) -> Any:
        """What the store's own tables hold up to a fact."""
        if self._past.seq > at:
            self._past.close()
            self._past = Past()
        new = [
            Entry(e.seq, e.subject, e.data, e.fact)
            for e in self.entries
            if self._past.seq < e.seq <= at
        ]
        return self._past.answer(new, at, request, query)


def _feed(connection: sa.Connection, request: OpenFeed) -> FeedState:
    return feed_state(HotSession(session_rows(connection, request.session_id), SESSION, 0))


def an_open_session() -> ServedLog:
    log = ServedLog()
    log.opens()
    return log


def feed_of(log: ServedLog) -> Feed:
    """A feed over ``log``, not yet opened."""
    return Feed(log, log, USER, SESSION)  # type: ignore[arg-type]


def live(stored: Stored) -> Incoming:
    """The delta as it is republished."""
    return Incoming(f"live.{stored.subject}", "", stored.data, b"")
