"""A recorded session: its facts, and which part of them is to be shown."""

from datetime import datetime, timedelta

from msgspec import UnsetType

from services.gateway.sessions.cursor import Cursor
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import (
    RunEnded,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
    TodoProcess,
)
from shared.log_entry import LogEntry
from shared.recording import TimedEvent, attempts_of, runs_of, timed_events
from shared.subjects import parse

SLOWEST, FASTEST = 0.01, 1_000.0


def speed_of(text: str) -> float | None:
    """A speed as people write it: ``1``, ``0.5``, ``10``; ``max`` is None, as fast as can be.

    Raises:
        InvalidRequest: it is none.
    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not SLOWEST <= speed <= FASTEST:
        raise InvalidRequest("Expected max, or a number as 1, 10 or 0.5.", path="$.speed")
    return speed


class Recording:
    """A session's facts, and which part of them is to be shown: one run, or all."""

    def __init__(
        self, user: str, session_id: str, links: list[LogEntry], run_id: str | None
    ) -> None:
        self.user = user
        self.session_id = session_id
        self.run_id = run_id
        self.links = links
        self._own = [link for link in links if parse(link.subject).run == run_id]
        if run_id is not None and not self._own:
            raise NotFound("There is no such run.")

    @property
    def runs(self) -> list[str]:
        """The runs to be shown, in the order of their acceptance."""
        if self.run_id is not None:
            return [self.run_id]
        return runs_of(self.links)

    @property
    def is_job(self) -> bool:
        """Whether what it shows is a job, and no conversation."""
        kinds = TodoProcess | TodoGenerate | RunScheduled
        shown = self._own if self.run_id is not None else self.links
        return any(isinstance(link.fact, kinds) for link in shown)

    @property
    def first_seq(self) -> int:
        return self._own[0].seq if self._own else self.links[0].seq

    @property
    def last_seq(self) -> int:
        return self._own[-1].seq if self._own else self.links[-1].seq

    @property
    def accepted_at(self) -> datetime:
        return (self._own or self.links)[0].fact.at

    @property
    def model(self) -> str | None:
        """The model that the run's turn names, else its session's at that time."""
        model: str | None = None
        for link in self.links:
            if link.seq > self.first_seq:
                break
            match link.fact:
                case SessionCreated(model=its):
                    model = its
                case SessionUpdated(model=its) if not isinstance(its, UnsetType):
                    model = its
                case _:
                    pass
        first = self._own[0].fact if self._own else None
        return (first.turn.model if isinstance(first, RunWaiting | TodoChat) else None) or model

    def written_at(self, cursor: Cursor) -> datetime:
        """When the text was written that a client at ``cursor`` saw last."""
        for attempt in attempts_of(self.links):
            if attempt.id == cursor.attempt:
                times = (ms for ms, length in attempt.timeline if length >= cursor.offset)
                if (ms := next(times, None)) is not None:
                    return attempt.claim.at + timedelta(milliseconds=ms)
        return (self._own or self.links)[-1].fact.at

    def need_end(self) -> None:
        """Check that the run is over: only then can it be shown to its end.

        Raises:
            Conflict: the run goes on.
        """
        if not any(isinstance(link.fact, RunEnded) for link in self._own):
            raise Conflict("This run has not ended yet; follow it, and replay it afterwards.")

    def timed_events(self) -> list[TimedEvent]:
        """What was on the wire until the end of what is shown."""
        end = self.last_seq
        return timed_events(link for link in self.links if link.seq <= end)

    def gaps(self) -> list[str]:
        """What cannot be shown as it was, one sentence each."""
        shown = set(self.runs)
        return [
            f"The log does not know when the text of attempt {attempt.id} came: "
            "it is shown in one piece."
            for attempt in attempts_of(self.links)
            if attempt.untimed and attempt.run_id in shown
        ]
