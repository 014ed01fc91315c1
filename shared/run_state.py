"""A run's state from its facts: what it waits for, who works on it, how far its steps have got.

One fold, for tables, live feeds, recordings and workers (pure).  Whoever reads the same
facts comes to the same state; what is shown of it is the reader's.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec

from shared.events import (
    AnyFact,
    CancelRequested,
    EndStatus,
    Fault,
    Plan,
    PreviousAttempt,
    RunClaimed,
    RunEnded,
    RunFact,
    RunScheduled,
    RunWaiting,
    StepResult,
    StopReason,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
    Usage,
)
from shared.log_entry import LogEntry
from shared.plans import notes_of, step_names, without_file_text
from shared.records import JobStep, RunStatus

Todo = TodoChat | TodoProcess | TodoGenerate
JobTodo = TodoProcess | TodoGenerate
PlannedFact = RunScheduled | JobTodo
"""The facts that hold a job's plan; its first one is among them."""


class RunState(msgspec.Struct, kw_only=True):
    """A run as of the latest of its facts."""

    status: RunStatus = "queued"
    waiting: bool = False
    """Whether another run of its session goes first."""
    cancelled: bool = False
    """A cancel is on the chain: whatever comes next ends the run."""
    attempt: int = 0
    """The sequence of the latest claim, 0 before the first."""
    worker: str | None = None
    """Whose claim that is; None once another todo has followed."""
    provider: str | None = None
    model: str | None = None
    sha256: str | None = None
    length: int | None = None
    usage: Usage | None = None
    error: Fault | None = None
    created_at: datetime
    ended_at: datetime | None = None
    turn: Turn | None = None
    user_depth: int = 0
    """How deep in its branch the message is that the run answers; 0 before its turn."""
    first_seq: int
    last_seq: int = 0
    plan: Plan | None = None
    """None for a reply of a conversation."""
    priority: int = 0
    due: datetime | None = None
    todo: int = -1
    """The number of a job's latest todo, -1 before the first."""
    steps: list[JobStep] = []
    results: list[StepResult] = []
    notes: list[str] = []
    text: str = ""
    """A job's answer, once it has ended."""
    stop_reason: StopReason | None = None
    restarts: int = 0
    """Attempts that were lost, so that another one began the same todo anew."""
    claimed_at: datetime | None = None
    """When the latest attempt began."""
    first_word_at: datetime | None = None
    """When the first text came, be it of an attempt that was lost."""

    @property
    def under_way(self) -> bool:
        """Whether its time has come, and it has not ended."""
        return self.ended_at is None and self.status != "scheduled"

    @property
    def is_unclaimed_job(self) -> bool:
        """Whether it is a job whose latest todo nobody has claimed."""
        return self.plan is not None and self.worker is None

    def apply(self, seq: int, fact: RunFact) -> bool:
        """Take in the next fact; False where it is a todo that does not count.

        A schedule may fire after its job's end as well as twice.
        """
        self.last_seq = seq
        match fact:
            case RunWaiting():
                self.waiting = True
            case RunScheduled():
                self.status, self.due = "scheduled", fact.due
            case TodoChat():
                self.waiting, self.turn = False, fact.turn
            case TodoProcess() | TodoGenerate():
                return self._begin_todo(fact)
            case RunClaimed():
                self._begin_attempt(seq, fact)
            case CancelRequested():
                self.cancelled = True
            case RunEnded():
                self._end(fact)
        return True

    def _begin_todo(self, todo: JobTodo) -> bool:
        """What left a result is done, and nobody owns what comes next."""
        if self.ended_at is not None or is_repeated(todo, self.todo):
            return False
        self._see_first_word(todo.previous)
        self.todo, self.worker = todo.n, None
        if self.status == "scheduled":
            self.status = "queued"
        self._take_results(todo.plan, todo.results)
        done = {result.step for result in todo.results}
        self.steps = [_done(step, todo.at) if step.name in done else step for step in self.steps]
        return True

    def _begin_attempt(self, seq: int, claim: RunClaimed) -> None:
        self._see_first_word(claim.previous)
        self.restarts += self.worker is not None
        self.status, self.attempt, self.worker = "running", seq, claim.worker
        self.claimed_at = claim.at
        self._change_current_step(lambda step: _begun(step, claim.at))
        if claim.prompt is not None:
            self.provider, self.model = claim.prompt.provider, claim.prompt.model

    def _see_first_word(self, written: PreviousAttempt | RunEnded | None) -> None:
        """Note when the first text came, if the latest attempt wrote it, as what it wrote says."""
        if written is None or written.attempt != self.attempt or self.claimed_at is None:
            return
        continues = self.turn.continues if self.turn else None
        before = continues.length if continues else 0
        own = (ms for ms, length in written.timeline if length > before)
        if self.first_word_at is None and (ms := next(own, None)) is not None:
            self.first_word_at = self.claimed_at + timedelta(milliseconds=ms)

    def _end(self, final: RunEnded) -> None:
        self._see_first_word(final)
        self.status, self.ended_at, self.waiting = final.status, final.at, False
        self.sha256, self.length = final.sha256, final.length
        self.usage, self.error = final.usage, final.error
        self.stop_reason = stop_reason(final.status, final.stop_reason)
        if self.plan is not None:
            self._end_job(self.plan, final)

    def _end_job(self, plan: Plan, final: RunEnded) -> None:
        """The end of a job is the end of the step at which it was."""
        self.text = final.text
        if final.results:
            self._take_results(plan, final.results)
        self.notes = final.notes or self.notes
        if final.status == "completed":
            self.steps = [_done(step, final.at) for step in self.steps]
        else:
            self._change_current_step(lambda step: _ended(step, final.status, final.at))

    def _take_results(self, plan: Plan, results: list[StepResult]) -> None:
        self.results = without_file_text(plan, results)
        self.notes = notes_of(results)

    def _change_current_step(self, change: Callable[[JobStep], JobStep]) -> None:
        for number, step in enumerate(self.steps):
            if step.status != "completed":
                self.steps = [*self.steps[:number], change(step), *self.steps[number + 1 :]]
                return


def _begun(step: JobStep, at: datetime) -> JobStep:
    return msgspec.structs.replace(step, status="running", started_at=step.started_at or at)


def _done(step: JobStep, at: datetime) -> JobStep:
    if step.status == "completed":
        return step
    return msgspec.structs.replace(step, status="completed", ended_at=at)


def _ended(step: JobStep, status: EndStatus, at: datetime) -> JobStep:
    return msgspec.structs.replace(step, status=status, ended_at=at)


def begin(seq: int, fact: RunFact) -> RunState:
    """The state that a run's first fact is applied to."""
    return RunState(**first_fields(seq, fact))


def first_fields(seq: int, fact: RunFact) -> dict[str, Any]:
    """What a run's first fact alone says: of a state that the fact is applied to afterwards."""
    fields: dict[str, Any] = {"created_at": fact.at, "first_seq": seq}
    if isinstance(fact, RunWaiting | TodoChat):
        fields["turn"] = fact.turn
    if isinstance(fact, PlannedFact):
        fields |= {"plan": fact.plan, "priority": fact.priority, "steps": pending(fact.plan)}
    return fields


def state_before(runs: dict[str, RunState], entry: LogEntry, fact: RunFact) -> RunState:
    """The state of the fact's run before it; one more in ``runs`` where it is the first."""
    run = runs.get(entry.address.run)
    if run is None:
        run = runs[entry.address.run] = begin(entry.seq, fact)
    return run


def pending(plan: Plan) -> list[JobStep]:
    """A plan's steps, none of them begun."""
    return [JobStep(name=name, status="pending") for name in step_names(plan)]


def step_of(todo: Todo | None) -> str | None:
    """The step of a job's plan that a todo is about; None for a conversation's."""
    match todo:
        case TodoProcess(step=step):
            return step
        case TodoGenerate(ask=ask):
            return ask.step
        case _:
            return None


def is_repeated(fact: AnyFact, n: int) -> bool:
    """Whether this is a todo that the run, at its ``n``-th, has behind it.

    What a schedule fires is checked against no chain, so it may fire twice (architecture.md).
    """
    return isinstance(fact, JobTodo) and fact.n <= n


# -- how a run ended -------------------------------------------------------------------

_STOP_REASONS: dict[str, StopReason] = {
    **{reason: reason for reason in get_args(StopReason)},
    # as facts say it that were written before there was a list
    "tool_use": "tool_calls",
    "pause_turn": "end_turn",
    "model_context_window_exceeded": "max_tokens",
}


def stop_reason(status: EndStatus, word: str | None) -> StopReason | None:
    """How a reply with this status ended, from the word that a fact has for it.

    None where it failed or was cancelled, or where nobody knows the word.
    """
    return _STOP_REASONS.get(word or "") if status == "completed" else None


# -- for who works on it -----------------------------------------------------------------


class ChainState:
    """What a run's chain says to who works on its ``n``-th todo: the facts after that."""

    def __init__(self, head: int, entries: Iterable[LogEntry] = (), *, n: int = 0) -> None:
        self.head = head
        self.n = n
        self.over = False
        """Whether this todo is done, or the run."""
        self.cancelled = False
        self.claim: RunClaimed | None = None
        """The latest claim; its sequence is the attempt's id."""
        self.attempt = 0
        self.claims = 0
        self._failed = 0  # of them, those that a provider's failure ended
        self.add(entries)

    def add(self, entries: Iterable[LogEntry]) -> None:
        """Take in facts that came later."""
        for entry in entries:
            self.head = max(self.head, entry.seq)
            match entry.fact:
                case RunClaimed() as claim:
                    self.take_claim(claim, entry.seq)
                case CancelRequested():
                    self.cancelled = True
                case fact:
                    self.over = self.over or not is_repeated(fact, self.n)

    def take_claim(self, claim: RunClaimed, attempt: int) -> None:
        """Take in the claim that is now the latest."""
        self.claim, self.attempt = claim, attempt
        self.claims += 1
        if claim.previous is not None and claim.previous.fault is not None:
            self._failed += 1

    @property
    def deaths(self) -> int:
        """Attempts whose worker may have died: no failure of a provider ended them."""
        return self.claims - self._failed

    @property
    def failures(self) -> int:
        """Failed calls of a provider before the latest claim."""
        return self.claim.failures if self.claim else 0
