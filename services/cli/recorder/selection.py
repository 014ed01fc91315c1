"""The run or the session that a command line names, with its session's facts."""

from typing import NamedTuple

from services.cli.recorder.recorded_log import NotRecorded, RecordedLog
from shared.log_entry import LogEntry
from shared.streams import EPOCH
from shared.subjects import EVENTS


class Selection(NamedTuple):
    """A run, or with ``run_id`` None a whole session; with all of the session's facts."""

    user: str
    session_id: str
    run_id: str | None
    facts: list[LogEntry]


async def find_selection(log: RecordedLog, prefix: str) -> Selection:
    """The run, or else the session, whose id begins with ``prefix``.

    Raises:
        NotRecorded: there is neither, or there are several.
        NatterlogError, BusError: the log could not be read.
    """
    try:
        run = await log.run(prefix)
    except NotRecorded as no_run:
        try:
            session = (await log.session(prefix)).session
        except NotRecorded as nothing:
            raise NotRecorded(f"{no_run} {nothing}") from nothing
        user, session_id, run_id = session.user_id, session.id, None
    else:
        user, session_id, run_id = run.user_id, run.session_id, run.id
    facts = [fact async for fact in log.session_facts(session_id)]
    return Selection(user, session_id, run_id, facts)


async def epoch_of(log: RecordedLog) -> str:
    """The incarnation of the log, which cursors begin with; empty where nothing runs."""
    if log.bus is None:
        return ""
    info = await log.bus.api(f"STREAM.INFO.{EVENTS}")
    return info["config"]["metadata"][EPOCH]
