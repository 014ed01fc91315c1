"""Cut the old end of EVENTS off: what is archived and over lives in the cold log alone.

A stream that is never trimmed takes gigabytes of memory and seconds to recover
(architecture.md, *Hot and cold*).
"""

from services.store import job_queries, queries, schedules
from services.store.archive import Archive, Tombstone
from services.store.database import Database
from services.store.hotlog import HotLog
from shared.bus import Bus
from shared.log import get_logger
from shared.subjects import Address

log = get_logger()

EVERY = 60.0
"""Seconds between two looks."""


async def trim(bus: Bus, hot: HotLog, archive: Archive, database: Database, *, keep: int) -> int:
    """Leave the newest ``keep`` facts, all that are not archived, and unfinished runs whole.

    Answers the first sequence that is left.  A job that waits for its time does
    not hold the log back, for that may be long: its schedule is published anew.

    Raises:
        NoAnswer, ApiError: it is not known to be done.
    """
    _, last = await hot.refresh()
    return await _cut(bus, hot, archive, database, last - keep + 1)


async def drop_remains(
    bus: Bus, hot: HotLog, archive: Archive, database: Database, tombstone: Tombstone
) -> None:
    """Let the server give up the file in which trimmed facts of a deleted session lie.

    What a trim drops stays in its block of up to 8 MiB until the whole block is
    dropped, and it cannot be overwritten any more.  So the log is trimmed by a
    block more.  Where an unfinished run is in the way, later trims get there.

    Raises:
        NoAnswer, ApiError: it is not known to be done.
    """
    first, _ = await hot.refresh()
    if cut := await archive.end_of_block(tombstone, first):
        await _cut(bus, hot, archive, database, cut)


async def _cut(bus: Bus, hot: HotLog, archive: Archive, database: Database, cut: int) -> int:
    unfinished = await database.read(queries.first_unfinished)
    cut = min(cut, archive.archived + 1, unfinished or cut)
    if cut > hot.first:
        await _keep_schedules(bus, database, cut)
        await hot.drop_before(cut)
        log.info("store.trimmed", first=hot.first)
    return hot.first


async def _keep_schedules(bus: Bus, database: Database, cut: int) -> None:
    """Publish anew the schedules that the cut would drop."""
    for run in await database.read(job_queries.scheduled_runs):
        address = Address(run.user_id, run.session_id, run.id)
        found = await schedules.find(bus, address)
        if found is not None and found < cut and run.plan is not None and run.due is not None:
            await schedules.publish(bus, run, run.plan, run.due)
