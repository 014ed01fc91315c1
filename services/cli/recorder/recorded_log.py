"""The recorded log, as an operator reads it: runs, sessions and their facts, of all users.

Of a system that runs, what is archived comes from the store and the rest from EVENTS,
over the bus.  Where nothing runs, or everything but the store, the store's files are
read instead.  Either way facts come in order and whole, with the large fields that
were put into FILES.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec

from shared.bus import Bus, NoAnswer
from shared.commands import Facts, Request
from shared.deltas import Written, read_attempt
from shared.errors import NotFound
from shared.inspection import (
    FindRuns,
    FindSessions,
    FoundRun,
    FoundRuns,
    FoundSession,
    FoundSessions,
    ReadFacts,
)
from shared.log_entry import LogEntry
from shared.requests import Answer
from shared.session_facts import read_session
from shared.settings import Settings
from shared.subjects import Address, ping, session_address, store_command

T = TypeVar("T", FoundRun, FoundSession)

RunQuery = Callable[[Request[Any]], Awaitable[Any]]
"""Answers a request of :mod:`shared.inspection`."""

_TIMEOUT = 10.0
_PING_TIMEOUT = 1.0
_SHOWN = 5


class NotRecorded(Exception):
    """No run or session with that id was recorded, or several were."""


class RecordedLog:
    """The log of one installation; ``bus`` is None when nothing runs."""

    def __init__(self, query: RunQuery, bus: Bus | None) -> None:
        self._query = query
        self.bus = bus

    # -- what there is ------------------------------------------------------------

    async def runs(self, query: FindRuns) -> list[FoundRun]:
        """The runs that match, the newest first.

        Raises:
            NatterlogError: the store or its files could not answer.
        """
        answer: FoundRuns = await self._query(query)
        return answer.items

    async def sessions(self, query: FindSessions) -> list[FoundSession]:
        """The sessions that match, the one last written to first.

        Raises:
            NatterlogError: the store or its files could not answer.
        """
        answer: FoundSessions = await self._query(query)
        return answer.items

    async def run(self, prefix: str) -> FoundRun:
        """The run whose id begins with ``prefix``.

        Raises:
            NotRecorded: none does, or several do.
        """
        found = await self.runs(FindRuns(prefix=prefix.lower(), limit=_SHOWN + 1))
        return _the_one(found, [run.id for run in found], "run", prefix)

    async def session(self, prefix: str) -> FoundSession:
        """The session whose id begins with ``prefix``.

        Raises:
            NotRecorded: none does, or several do.
        """
        found = await self.sessions(FindSessions(prefix=prefix.lower(), limit=_SHOWN + 1))
        return _the_one(found, [each.session.id for each in found], "session", prefix)

    # -- what happened ------------------------------------------------------------

    async def session_facts(self, session_id: str, after: int = 0) -> AsyncGenerator[LogEntry]:
        """Every fact of the session and of its runs after ``after``, as far as there is any now.

        Raises:
            NatterlogError, BusError: they could not be read.
        """

        async def cold(after: int) -> Facts:
            return await self._query(ReadFacts(session_id=session_id, after=after))

        async for entry in read_session(
            cold, self.bus, session_address("*", session_id).session_facts, after
        ):
            yield entry

    async def run_facts(self, run: FoundRun) -> list[LogEntry]:
        """Every fact of a run, as far as there is any now.

        Raises:
            NatterlogError, BusError: they could not be read.
        """
        facts = self.session_facts(run.session_id, run.first_seq - 1)
        return [fact async for fact in facts if fact.address.run == run.id]

    async def written(self, run: FoundRun, attempt: int | None = None) -> Written | None:
        """What TOKENS holds of an attempt's text (minutes old at most); None when nothing runs."""
        if self.bus is None:
            return None
        return await read_attempt(self.bus, Address(run.user_id, run.session_id, run.id), attempt)


@asynccontextmanager
async def open_log(settings: Settings) -> AsyncGenerator[RecordedLog]:
    """The log of the system that ``settings.nats_url`` names, else of the store's files.

    Raises:
        NatterlogError, BusError: there is neither.
    """
    async with AsyncExitStack() as opened:
        if settings.nats_url is None:
            yield RecordedLog(await opened.enter_async_context(_queries_to_files(settings)), None)
            return
        bus = await opened.enter_async_context(Bus(settings.nats_url, name="recorder"))
        query = queries_to_store(bus)
        if not await store_answers(bus):
            with suppress(NotFound):  # they are on another machine: the store itself will say no
                query = await opened.enter_async_context(_queries_to_files(settings))
        yield RecordedLog(query, bus)


def _queries_to_files(settings: Settings) -> AbstractAsyncContextManager[RunQuery]:
    # The store's own code, because nobody else knows its files; imported where it is
    # needed, because SQLAlchemy comes with it.
    from services.store.files import queries_to_files

    return queries_to_files(settings)


async def store_answers(bus: Bus) -> bool:
    """Whether there is a store to ask."""
    try:
        await bus.call(ping("store"), timeout=_PING_TIMEOUT)
    except NoAnswer:
        return False
    return True


def queries_to_store(bus: Bus) -> RunQuery:
    """Answers from the store that runs, over the bus."""

    async def query(request: Request[Answer]) -> Answer:
        data = msgspec.json.encode(request)
        answer = await bus.ask(store_command(request.name), data, timeout=_TIMEOUT, tries=2)
        return request.decode_answer(answer)

    return query


def _the_one(found: list[T], ids: list[str], noun: str, prefix: str) -> T:
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotRecorded(
            f"There is no {noun} whose id begins with {prefix[:40]!r}. "
            f"`natterlog {noun}s ls` shows those that are there."
        )
    shown = "".join(f"\n  {each}" for each in ids[:_SHOWN])
    more = "\n  …" if len(ids) > _SHOWN else ""
    raise NotRecorded(f"Several {noun}s have an id that begins with {prefix[:40]!r}:{shown}{more}")
