"""A session as it was: its rows while they are still of that moment, else its facts up to then.

Where the session went on, its facts are projected into tables of their own: the same
projection and the same queries as ever, so that the answer is what was answered then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from services.store.applying import apply, read_applied
from services.store.archive import Archive, Entry, entry, facts, links
from services.store.database import Database
from services.store.empty_tables import empty_tables
from services.store.queries import find_session
from shared.commands import (
    GetMessage,
    GetSession,
    ListMessages,
    MessageAnswer,
    MessagePage,
    SessionAnswer,
)
from shared.errors import NotFound

R = TypeVar("R", GetSession, GetMessage, ListMessages)
A = TypeVar("A", SessionAnswer, MessageAnswer, MessagePage)

KEPT = 4
"""Sessions whose tables are kept for a while."""
LARGEST = 32 * 1024 * 1024
"""Bytes of a session's facts beyond which its tables are not kept."""


class History:
    """Answers queries as of a fact.

    The tables of the sessions that were asked about last are kept, because who asks
    comes back: with the next page, or for the next moment of a session that a client
    is catching up with.
    """

    def __init__(self, archive: Archive, database: Database) -> None:
        self._archive = archive
        self._database = database
        self._pasts: OrderedDict[tuple[str, str], Past] = OrderedDict()

    async def answer(self, query: Callable[[sa.Connection, R], A], request: R) -> A:
        """What ``query`` finds now, or as of the fact that the request names."""
        if request.at is None:
            return await self._database.read(query, request)
        return await self.as_of(request, request.at, query)

    async def as_of(self, request: R, at: int, query: Callable[[sa.Connection, R], A]) -> A:
        """What ``query`` would have found when ``at`` was the last fact.

        Raises:
            NotFound: that is yet to come; or the session was not there yet, or was erased.
        """
        if at > self._archive.archived:
            raise NotFound("The log does not go that far yet.")
        found = await self._database.read(_unless_it_went_on, request, at, query)
        if found is None:
            found = await self._from_facts(request, at, query)
        return msgspec.structs.replace(found, seq=at)

    def forget(self, session_id: str) -> None:
        """Drop what is remembered of a session that is erased."""
        for key in [key for key in self._pasts if key[1] == session_id]:
            self._pasts.pop(key).close()

    def close(self) -> None:
        while self._pasts:
            self._pasts.popitem()[1].close()

    async def _from_facts(self, request: R, at: int, query: Callable[[sa.Connection, R], A]) -> A:
        key = request.user_id, request.session_id
        past = self._pasts.pop(key, None)  # nobody else has it meanwhile
        if past is not None and past.seq > at:
            past.close()
            past = None
        past = past or Past()
        new = await self._archive.read(_facts_between, *key, past.seq, at)
        try:
            found = await asyncio.to_thread(past.answer, new, at, request, query)
        except NotFound:
            past.close()
            raise
        self._keep(key, past)
        return found

    def _keep(self, key: tuple[str, str], past: "Past") -> None:
        if past.size > LARGEST or key[1] in self._archive.deleted:
            past.close()
            return
        if key in self._pasts:  # somebody else asked meanwhile
            self._pasts.pop(key).close()
        self._pasts[key] = past
        if len(self._pasts) > KEPT:
            self._pasts.popitem(last=False)[1].close()


class Past:
    """One session's tables in memory, as of the fact ``seq``."""

    def __init__(self) -> None:
        self.seq = 0
        self.size = 0
        """Bytes of the facts that they were made of."""
        self._tables: sa.Connection | None = None

    def close(self) -> None:
        if self._tables is not None:
            self._tables.close()

    def answer(
        self, new: list[Entry], at: int, request: R, query: Callable[[sa.Connection, R], A]
    ) -> A:
        """Take in the facts after ``seq``, up to ``at``, and answer."""
        tables = self._tables = self._tables or empty_tables()
        with tables.begin():
            apply(tables, links(new), at)
        self.seq = at
        self.size += sum(len(item.data) for item in new)
        with tables.begin():
            return query(tables, request)


def _unless_it_went_on(
    connection: sa.Connection, request: R, at: int, query: Callable[[sa.Connection, R], A]
) -> A | None:
    """The answer of the rows, as long as nothing happened in the session after ``at``."""
    if read_applied(connection) < at:
        return None
    session = find_session(connection, request.user_id, request.session_id)
    return query(connection, request) if session.last_seq <= at else None


def _facts_between(
    connection: sa.Connection, user_id: str, session_id: str, after: int, upto: int
) -> list[Entry]:
    rows = connection.execute(
        sa.select(facts.c.seq, facts.c.subject, facts.c.data)
        .where(
            facts.c.session == session_id,
            facts.c.user == user_id,
            facts.c.seq > after,
            facts.c.seq <= upto,
        )
        .order_by(facts.c.seq)
    )
    return [entry(*row) for row in rows]
