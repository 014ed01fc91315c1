"""Cut the old end of EVENTS off: what is archived and over lives in the cold log alone.

A stream that is never trimmed takes gigabytes of memory and seconds to recover
(DESIGN, *Hot and cold*).
"""

from services.store import queries
from services.store.archive import Archive
from services.store.database import Database
from services.store.hotlog import HotLog
from shared.log import get_logger

log = get_logger()

EVERY = 60.0
"""Seconds between two looks."""


async def trim(hot: HotLog, archive: Archive, database: Database, *, keep: int) -> int:
    """Leave the newest ``keep`` facts, all that are not archived, and unfinished runs whole.

    Answers the first sequence that is left.  Pending schedules (``sched.>``) are
    old messages too: once something schedules, they are to be published anew here,
    before the purge.

    Raises:
        NoAnswer, ApiError: it is not known to be done.
    """
    first, last = await hot.refresh()
    unfinished = await database.read(queries.first_unfinished)
    cut = min(last - keep + 1, archive.archived + 1)
    if unfinished is not None:
        cut = min(cut, unfinished)
    if cut <= first:
        return first
    await hot.drop_before(cut)
    log.info("store.trimmed", first=hot.first, last=last)
    return hot.first
