"""A session as far as its log was read: its latest facts, and the reply that is being written.

Pure: it is given facts and deltas, and asks nobody.  A feed keeps one at the log's end
(``feed.py``); a replay plays a recording into another.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from services.gateway.sessions.client_events import RunView, view_of_turn, view_of_unfinished
from services.gateway.sessions.cursor import NOTHING_SEEN, Cursor
from shared.commands import UnfinishedRun
from shared.deltas import AttemptText, Merge
from shared.events import (
    AnyTokenEvent,
    Delta,
    Fact,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionDeleted,
    TodoChat,
)
from shared.log_entry import LogEntry

KEPT_FACTS = 64
"""Facts that are kept; a client further behind is served from the log."""


class Running(AttemptText):
    """The reply that is being written."""

    __slots__ = ("run_id",)

    def __init__(self, run_id: str, attempt: int) -> None:
        super().__init__(attempt)
        self.run_id = run_id


class Snapshot(NamedTuple):
    """Where a session stands: what a client is shown before anything new."""

    cursor: Cursor
    unfinished: list[RunView]


class SessionState:
    """One session up to the fact ``seq``; ``facts`` holds every fact after ``floor``."""

    def __init__(
        self, session_id: str, *, seq: int = 0, unfinished: Iterable[UnfinishedRun] = ()
    ) -> None:
        self.session_id = session_id
        self.seq = self.floor = self.opened_at = seq
        self.facts: deque[LogEntry] = deque()
        self.runs: dict[str, RunView] = {}
        self.unfinished: dict[str, RunView] = {}
        self.running: Running | None = None
        self.gone = False
        for run in unfinished:
            self.runs[run.run_id] = self.unfinished[run.run_id] = view_of_unfinished(run)
            if run.attempt:
                self.running = Running(run.run_id, run.attempt)

    # -- what comes in ------------------------------------------------------------------

    def apply(self, entry: LogEntry) -> bool:
        """Take the next fact; False when it is known already."""
        if entry.seq <= self.seq:
            return False
        self.seq = entry.seq
        self.facts.append(entry)
        react = self.FACTS.get(type(entry.fact))
        if react is not None:
            react(self, entry, entry.fact)
        self._forget_oldest()
        return True

    def accept_turn(self, entry: LogEntry, fact: RunWaiting | TodoChat) -> None:
        if isinstance(fact, TodoChat) and fact.n:  # of a run that is known already
            return
        run_id = entry.address.run
        self.runs[run_id] = self.unfinished[run_id] = view_of_turn(
            fact,
            run_id=run_id,
            session_id=self.session_id,
            seq=entry.seq,
            before=self.runs.get(run_id),
        )

    def begin_attempt(self, entry: LogEntry, _: RunClaimed) -> None:
        self.running = Running(entry.address.run, entry.seq)

    def end_run(self, entry: LogEntry, _: RunEnded) -> None:
        run_id = entry.address.run
        self.unfinished.pop(run_id, None)
        if self.running is not None and self.running.run_id == run_id:
            self.running = None

    def end(self, _: LogEntry, __: SessionDeleted) -> None:
        self.gone = True

    FACTS: ClassVar[dict[type[Fact], Callable[["SessionState", LogEntry, Any], None]]] = {
        RunWaiting: accept_turn,
        TodoChat: accept_turn,
        RunClaimed: begin_attempt,
        RunEnded: end_run,
        SessionDeleted: end,
    }
    """What changes more than the latest facts."""

    def merge(self, token_event: AnyTokenEvent) -> Merge:
        """Take a delta of the running reply, in whatever order they come."""
        if type(token_event) is not Delta:
            return Merge.KNOWN
        if self.running is None:
            # Of an attempt whose claim is not here yet, or of one that is over.
            return Merge.GAP if token_event.attempt > self.seq else Merge.KNOWN
        return self.running.merge(token_event)

    def _forget_oldest(self) -> None:
        while len(self.facts) > KEPT_FACTS:
            oldest = self.facts.popleft()
            self.floor = oldest.seq
            if isinstance(oldest.fact, RunEnded):
                self.runs.pop(oldest.address.run, None)

    # -- what clients are shown -----------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """Where the session stands now."""
        cursor = Cursor(self.seq, self.running.attempt if self.running else 0)
        return Snapshot(cursor, list(self.unfinished.values()))

    def facts_after(self, seq: int) -> list[LogEntry]:
        """The kept facts after ``seq``: all of them, where that is not below ``floor``."""
        return [entry for entry in self.facts if entry.seq > seq]

    def has(self, cursor: Cursor, run_id: str | None = None) -> bool:
        """Whether a client (of one run) can go on from ``cursor``: it is of this history."""
        running = self.running
        if cursor.seq > self.seq or cursor == NOTHING_SEEN:
            return False
        if running is None or cursor.seq < running.attempt:
            return True
        if run_id not in (None, running.run_id):
            return True
        return cursor.attempt == running.attempt
