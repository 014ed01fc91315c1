"""Files that belong to no job: their upload was complete, and then nobody accepted it.

A gateway that was killed, or that the store did not answer, cannot know whether
the job was accepted, so it leaves the file.  The log knows: once everything up
to its end is applied, a session that is not there was never opened.
"""

import asyncio

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from services.store.archive import Archive
from services.store.database import Database
from services.store.schema import runs, sessions
from services.store.watermark import Watermark
from shared.bus import Bus, BusError
from shared.errors import Unavailable
from shared.ids import is_id
from shared.log import get_logger
from shared.objects import erase, older
from shared.subjects import EVENTS, EVERY_FACT

log = get_logger()

EVERY = 900.0
"""Seconds between two looks."""
SAFE = 7200.0
"""Seconds since a file's first chunk after which nobody is about to accept it: an upload
may take half an hour, and a store's answer some seconds."""
_AT_ONCE = 500


class Orphans:
    """Finds files that belong to no job, and erases them."""

    def __init__(self, bus: Bus, archive: Archive, database: Database, applied: Watermark) -> None:
        self._bus = bus
        self._archive = archive
        self._database = database
        self._applied = applied

    async def run(self) -> None:
        """Erase such files now and then, for ever."""
        while True:
            try:
                await self.sweep()
            except (BusError, Unavailable, SQLAlchemyError) as error:
                log.warning("store.sweep_postponed", error=str(error))
            await asyncio.sleep(EVERY)

    async def sweep(self, older_than: float = SAFE) -> int:
        """Erase the files that no session and no job has; answers how many.

        Raises:
            BusError, Unavailable: it is not known what they belong to.
        """
        # The files first, the log's end second: what is accepted in between is seen as accepted.
        names = await older(self._bus, older_than)
        if not names:
            return 0
        last = await self._bus.head(EVENTS, EVERY_FACT)
        await self._applied.wait_for(last.seq if last else 0)
        orphans = await self._of_nobody(names)
        for name in orphans:
            await erase(self._bus, name)
        if orphans:
            log.info("store.orphans_erased", files=len(orphans))
        return len(orphans)

    async def _of_nobody(self, names: list[str]) -> list[str]:
        # What a deletion has still to do is its own affair.
        erasing = {tombstone.session for tombstone in await self._archive.unerased()}
        by_session: dict[str, list[str]] = {}
        for name in names:
            session = name.partition("/")[0]
            if is_id(session) and session not in erasing:  # else a fact's of no session
                by_session.setdefault(session, []).append(name)
        found: list[str] = []
        wanted = list(by_session)
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            opened, at_work = await self._database.read(_known, part)
            for session in set(part) - at_work:
                # A session may have no run and facts all the same, whose fields lie under digests.
                found += [n for n in by_session[session] if session not in opened or _is_file(n)]
        return found


def _known(connection: sa.Connection, ids: list[str]) -> tuple[set[str], set[str]]:
    """Those of the sessions that were opened, and those that have a run."""
    opened = sa.select(sessions.c.id).where(sessions.c.id.in_(ids))
    at_work = sa.select(runs.c.session_id).where(runs.c.session_id.in_(ids)).distinct()
    return (
        set(connection.execute(opened).scalars()),
        set(connection.execute(at_work).scalars()),
    )


def _is_file(name: str) -> bool:
    return is_id(name.partition("/")[2])
