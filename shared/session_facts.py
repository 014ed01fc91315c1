"""A session's facts in order: from the cold log, then from EVENTS what is not in there yet."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import msgspec

from shared.bus import Bus
from shared.commands import Facts, GetFacts
from shared.log_entry import LogEntry
from shared.objects import ObjectMissing, unpack
from shared.store_client import StoreClient
from shared.subjects import EVENTS

ColdFacts = Callable[[int], Awaitable[Facts]]
"""Answers the cold log's next facts after a sequence; none when those were all."""


async def read_session(
    cold: ColdFacts, bus: Bus | None, subject_filter: str, after: int = 0
) -> AsyncGenerator[LogEntry]:
    """Every fact after ``after``, as far as there is any now; without a bus the archived ones.

    Raises:
        NatterlogError, BusError: they could not be read.
    """
    while (page := await cold(after)).facts:
        for stored in page.facts:
            yield LogEntry.read(stored.seq, stored.subject, bytes(stored.data)).unwrapped()
        after = page.facts[-1].seq
    if bus is not None:
        async for entry in read_hot(bus, subject_filter, max(after, page.upto)):
            yield entry


async def read_hot(bus: Bus, subject_filter: str, after: int = 0) -> AsyncGenerator[LogEntry]:
    """Every fact that EVENTS has after ``after``.

    What is being erased is left out, and what this version cannot read: so does the cold log.

    Raises:
        BusError: they could not be read.
    """
    while stored := await bus.read(EVENTS, subject_filter, after=after):
        after = stored[-1].seq
        for seq, subject, data in stored:
            with suppress(ObjectMissing, msgspec.ValidationError):
                yield LogEntry.read(seq, subject, await unpack(bus, data)).unwrapped()


def users_facts(store: StoreClient, user: str, session_id: str) -> ColdFacts:
    """The cold log of a user's session.

    It raises:
        NotFound: the session is not there, or not this user's.
    """

    async def facts_after(after: int) -> Facts:
        return await store.ask(GetFacts(user_id=user, session_id=session_id, after=after))

    return facts_after
