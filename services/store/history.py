"""A session as it was: its facts up to a moment, projected into tables of their own.

The same projection and the same queries as ever, so that the answer is what was
answered then.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from services.store.applying import apply
from services.store.archive import Archive, entry, facts, links
from services.store.schema import metadata, projection
from shared.chain import Link
from shared.commands import GetMessage, GetSession, ListMessages
from shared.errors import NotFound

R = TypeVar("R", GetSession, GetMessage, ListMessages)
A = TypeVar("A")


async def as_of(archive: Archive, request: R, at: int, query: Callable[[sa.Connection, R], A]) -> A:
    """What ``query`` would have found when ``at`` was the last fact.

    Raises:
        NotFound: that is yet to come; or the session was not there yet, or was erased.
    """
    if at > archive.archived:
        raise NotFound("The log does not go that far yet.")
    then = await archive.read(_facts_then, request.user_id, request.session_id, at)
    return await asyncio.to_thread(_replayed, then, at, request, query)


def _facts_then(connection: sa.Connection, user_id: str, session_id: str, at: int) -> list[Link]:
    rows = connection.execute(
        sa.select(facts.c.seq, facts.c.subject, facts.c.data)
        .where(facts.c.session == session_id, facts.c.user == user_id, facts.c.seq <= at)
        .order_by(facts.c.seq)
    )
    return links([entry(*row) for row in rows])


def _replayed(then: list[Link], at: int, request: R, query: Callable[[sa.Connection, R], A]) -> A:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            connection.execute(projection.insert().values(id=1, applied=0, epoch=""))
            apply(connection, then, at)
            return query(connection, request)
    finally:
        engine.dispose()
