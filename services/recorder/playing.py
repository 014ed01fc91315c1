"""What the recorder is given to show a recording with: the gateway's own code, by ``cli.py``.

The recorder imports no service; this is the shape of what it is handed.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from services.recorder.reading import Log, NotRecorded, Recorded
from shared.log_entry import LogEntry
from shared.streams import EPOCH
from shared.subjects import EVENTS


class Frame(Protocol):
    """One frame, and when it was sent: milliseconds since the recording began."""

    @property
    def ms(self) -> float: ...

    @property
    def data(self) -> bytes: ...


class Playback(Protocol):
    """A recording, in any dialect that has words for it."""

    @property
    def dialects(self) -> list[str]:
        """Those that show it, the one that is meant when none is named first."""
        ...

    def gaps(self) -> list[str]:
        """What cannot be shown as it was, one sentence each."""
        ...

    def frames(
        self, dialect: str | None = None, *, speed: str = "max", cursor: str | None = None
    ) -> AsyncGenerator[Frame]:
        """Every frame, each at its time.

        Raises:
            InvalidRequest: it has none in that dialect, or the cursor is not in it.
        """
        ...


class MakePlayback(Protocol):
    """Makes one of facts; with ``run_id`` it is about that run alone."""

    def __call__(
        self,
        links: Sequence[LogEntry],
        *,
        user: str,
        session_id: str,
        run_id: str | None = None,
        epoch: str = "",
    ) -> Playback: ...


class Named(NamedTuple):
    """What somebody named: a run, or a session whole; with all of the session's facts."""

    user: str
    session_id: str
    run_id: str | None
    facts: list[Recorded]

    @property
    def links(self) -> list[LogEntry]:
        return [LogEntry.of(fact.seq, fact.subject, fact.fact) for fact in self.facts]


async def find(log: Log, prefix: str) -> Named:
    """The run, or else the session, whose id begins so.

    Raises:
        NotRecorded: there is neither, or there are several.
        NatterlogError, BusError: nobody could say.
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
    return Named(user, session_id, run_id, facts)


async def epoch_of(log: Log) -> str:
    """The incarnation of the log that runs, which cursors begin with; nothing when none does."""
    if log.bus is None:
        return ""
    info = await log.bus.api(f"STREAM.INFO.{EVENTS}")
    return info["config"]["metadata"][EPOCH]
