"""What was recorded of a session, told again: every fact and delta, in order and at its time.

Deltas live in TOKENS for minutes only, but nothing of them is lost: how an
attempt's text came is told by the fact that ended it, as a timeline.  So the
facts alone say what was on the wire, and when.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import msgspec

from shared.bus import Bus
from shared.events import (
    AnyFact,
    AnyTokenEvent,
    Delta,
    Fault,
    PreviousAttempt,
    Progress,
    RunClaimed,
    RunEnded,
    RunFact,
    Timeline,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Usage,
)
from shared.log_entry import LogEntry
from shared.run_state import RunState, Todo, is_repeated, state_before, step_of
from shared.session_facts import read_session, users_facts
from shared.store_client import StoreClient
from shared.subjects import NONE, session_address

REST = 2_000
"""Milliseconds that are left of a pause in which no run was under way."""


# -- attempts -------------------------------------------------------------------


class Attempt(msgspec.Struct, kw_only=True):
    """One attempt, as far as the log knows it."""

    id: int
    """Its claim's sequence."""
    run_id: str
    claim: RunClaimed
    step: str = ""
    """What a job's todo asked for; empty for a chat's reply."""
    over: int = 0
    """The sequence of the fact that ended it; 0: none has."""
    lost: bool = False
    """Whether another attempt at the same todo followed."""
    opening: int = 0
    """Code points that its text had before it began, because a reply went on."""
    text: str = ""
    timeline: Timeline = []
    progress: Timeline = []
    reason: str = ""
    """Why it ended, where something else than the run's end followed."""
    fault: Fault | None = None
    usage: Usage | None = None
    """What its answer cost, where that is told."""
    final: RunEnded | None = None
    """The run's end, if that is what followed."""

    @property
    def untimed(self) -> bool:
        """Whether the log has its text, and not when it came."""
        return bool(self.text) and not self.timeline


def attempts_of(entries: Iterable[LogEntry]) -> list[Attempt]:
    """Every attempt in these facts, in order."""
    found: list[Attempt] = []
    open_: dict[str, Attempt] = {}
    todos: dict[str, Todo] = {}
    for entry in entries:
        run_id, fact = entry.address.run, entry.fact
        if run_id == NONE:
            continue
        attempt = open_.get(run_id)
        if attempt is not None and _ends(attempt, entry.seq, fact):
            del open_[run_id]
        if isinstance(fact, Todo):
            last = todos.get(run_id)
            if last is None or not is_repeated(fact, last.n):
                todos[run_id] = fact
        elif isinstance(fact, RunClaimed):
            open_[run_id] = _attempt(entry, fact, todos.get(run_id))
            found.append(open_[run_id])
    return found


def _attempt(entry: LogEntry, claim: RunClaimed, todo: Todo | None) -> Attempt:
    before = todo.turn.continues if isinstance(todo, TodoChat) else None
    return Attempt(
        id=entry.seq,
        run_id=entry.address.run,
        claim=claim,
        step=step_of(todo) or "",
        opening=before.length if before else 0,
    )


def runs_of(entries: Iterable[LogEntry]) -> list[str]:
    """The runs in these facts, in the order of their acceptance."""
    found = (entry.address.run for entry in entries)
    return [run_id for run_id in dict.fromkeys(found) if run_id != NONE]


def _ends(attempt: Attempt, seq: int, fact: AnyFact) -> bool:
    """Whether the attempt was over with this fact; what the fact knows of it is taken in."""
    match fact:
        case RunClaimed(previous=previous):
            _take_in(attempt, previous)
            attempt.lost = True
        case TodoGenerate(previous=previous):
            _take_in(attempt, previous)
        case TodoProcess(previous=previous) if previous is not None or fact.n:
            _take_in(attempt, previous)
            attempt.usage = fact.results[-1].usage if fact.results else None
        case RunEnded() as final:
            attempt.final = final
            if final.attempt == attempt.id:
                attempt.text, attempt.timeline = final.text, final.timeline
                attempt.fault, attempt.progress = final.error, final.progress
                attempt.usage = final.results[-1].usage if final.results else final.usage
        case _:
            return False
    attempt.over = seq
    return True


def _take_in(attempt: Attempt, previous: PreviousAttempt | None) -> None:
    if previous is not None and previous.attempt == attempt.id:
        attempt.text, attempt.timeline = previous.text, previous.timeline
        attempt.progress, attempt.fault = previous.progress, previous.fault
        attempt.reason = previous.reason


# -- what happened, in order and in time --------------------------------------------


class TimedEvent(NamedTuple):
    """A fact, delta or progress with its time, in milliseconds since the recording's first fact."""

    ms: float
    run_id: str
    what: LogEntry | AnyTokenEvent


class _Due(NamedTuple):
    ms: float
    attempt: int
    number: int
    event: AnyTokenEvent


def timed_events(entries: Iterable[LogEntry]) -> list[TimedEvent]:
    """Everything that was on the wire.

    Facts are in the log's order; a fact whose publisher's clock was behind comes at the
    time of the one before it.  Pauses in which no run was under way are shortened.
    """
    entries = list(entries)
    attempts = {attempt.id: attempt for attempt in attempts_of(entries)}
    closing = {attempt.over: attempt for attempt in attempts.values() if attempt.over}
    clock, found, due = _Clock(), list[TimedEvent](), list[_Due]()
    for entry in entries:
        run_id = entry.address.run
        ms = clock.read(entry)
        if entry.seq in closing:
            due = [_at_latest(ms, one, closing[entry.seq]) for one in due]
            heapify(due)
        while due and due[0].ms <= ms:
            next_due = heappop(due)
            run_of_it = attempts[next_due.attempt].run_id
            found.append(TimedEvent(next_due.ms, run_of_it, next_due.event))
        found.append(TimedEvent(ms, run_id, entry))
        if entry.seq in attempts:
            for number, (at, token_event) in enumerate(_token_events(attempts[entry.seq])):
                heappush(due, _Due(ms + at, entry.seq, number, token_event))
    return found


def _at_latest(ms: float, due: _Due, attempt: Attempt) -> _Due:
    """Nothing of an attempt comes after its end, whatever the clocks say."""
    return due._replace(ms=min(due.ms, ms)) if due.attempt == attempt.id else due


def _token_events(attempt: Attempt) -> Iterator[tuple[float, AnyTokenEvent]]:
    for at, thousandths in attempt.progress:
        yield at, Progress(attempt.id, attempt.step, thousandths / 1000)
    timeline = attempt.timeline
    if attempt.untimed and attempt.final is None:  # as late as can be, before it is void
        timeline = [(2**53, len(attempt.text))]
    offset = 0
    for at, length in timeline:
        end = min(length, len(attempt.text))
        if end > offset:
            yield at, Delta(attempt.id, offset, attempt.text[offset:end], at)
            offset = end


class _Clock:
    """Milliseconds since the first fact, never backwards, without long rests."""

    def __init__(self) -> None:
        self._last: datetime | None = None
        self._ms = 0.0
        self._runs: dict[str, RunState] = {}
        self._under_way: set[str] = set()

    def read(self, entry: LogEntry) -> float:
        fact = entry.fact
        if self._last is None:
            self._last = fact.at
        passed = (fact.at - self._last).total_seconds() * 1000
        if passed > 0:
            self._last = fact.at
            self._ms += passed if self._under_way else min(passed, REST)
        if isinstance(fact, RunFact):
            self._follow(entry, fact)
        return self._ms

    def _follow(self, entry: LogEntry, fact: RunFact) -> None:
        run_id = entry.address.run
        run = state_before(self._runs, entry, fact)
        run.apply(entry.seq, fact)
        if run.under_way:
            self._under_way.add(run_id)
        else:
            self._under_way.discard(run_id)


# -- reading it -----------------------------------------------------------------


async def read_recording(
    bus: Bus, store: StoreClient, user: str, session_id: str
) -> list[LogEntry]:
    """Every fact of a user's session.

    Raises:
        NotFound: the session is not there, or not this user's.
        Unavailable, BusError: it could not be read.
    """
    cold = users_facts(store, user, session_id)
    everything = session_address(user, session_id).session_facts
    return [entry async for entry in read_session(cold, bus, everything)]
