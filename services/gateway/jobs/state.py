"""A job as its clients are shown it: made of its facts, deltas and progress, in no dialect yet.

Whoever reads the same events comes to the same state, so a client that
comes back at another gateway finds no step, no character and no per cent missing.
"""

from datetime import datetime
from typing import NamedTuple

from shared import run_state
from shared.deltas import AttemptText, Merge
from shared.events import (
    AnyTokenEvent,
    Delta,
    Fault,
    Plan,
    RunClaimed,
    RunEnded,
    RunFact,
    StepResult,
    TodoGenerate,
    TodoProcess,
)
from shared.plans import step_names
from shared.records import Job, RunStatus
from shared.run_state import JobTodo, RunState

EXTRACTED = 50
"""Per cent of a document job that are done when its file has been read."""
WRITTEN = 99
"""Per cent at most while its answer is being written."""
TOKENS = 1024
"""How long an answer may get where nobody says it."""
_CHARACTERS = 4
"""Of one token, about: deltas carry text, and tokens are counted only at the end."""


class Done(NamedTuple):
    """A finished step, and what it left."""

    step: str
    text: str
    attempt: int
    """The attempt whose deltas this text goes on from; 0 when it is another text."""


class Ending(NamedTuple):
    """How a job ended."""

    text: str
    attempt: int
    at: datetime
    error: Fault | None


class Written(NamedTuple):
    """The text of the step that is under way."""

    attempt: int
    text: str


NOTHING = Written(0, "")


class JobState:
    """One job, as far as the log has been read; ``run`` is its run, if something was already."""

    def __init__(
        self, run_id: str, session_id: str, plan: Plan, run: RunState | None = None
    ) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.plan = plan
        self.progress = 0
        self.done: list[Done] = []
        self.ending: Ending | None = None
        self._attempt = AttemptText()
        self._live = False
        """Whether the attempt is of the step that is under way."""
        self._tokens = TOKENS
        self._run = run

    # -- what clients are shown -------------------------------------------------------

    @property
    def seq(self) -> int:
        """The last fact that is taken into account; 0 before the first."""
        return self._run.last_seq if self._run else 0

    @property
    def status(self) -> RunStatus:
        return self._run.status if self._run else "queued"

    @property
    def step(self) -> str:
        """The step that is under way or next; at the end the last one that was."""
        names = step_names(self.plan)
        done = {finished.step for finished in self.done}
        return next((name for name in names if name not in done), names[-1])

    @property
    def written(self) -> Written:
        """The text so far: of the step under way, or at the end of the whole job."""
        if self.ending is not None:
            return Written(self.ending.attempt, self.ending.text)
        return Written(self._attempt.attempt, self._attempt.text) if self._live else NOTHING

    @property
    def running(self) -> bool:
        return self.status == "running"

    # -- what is heard ------------------------------------------------------------------

    def apply(self, seq: int, fact: RunFact) -> bool:
        """Take a fact in its order; False when it is known already."""
        if seq <= self.seq:
            return False
        if self._run is None:
            self._run = run_state.begin(seq, fact)
        counts = self._run.apply(seq, fact)
        match fact:
            case TodoProcess() | TodoGenerate() if counts:
                self._begin_todo(fact)
            case RunClaimed():
                self._begin_attempt(seq, fact)
            case RunEnded():
                self._end(fact)
            case _:
                pass
        return True

    def merge(self, token_event: AnyTokenEvent) -> Merge:
        """Take a delta or progress, in whatever order they come."""
        if not isinstance(token_event, Delta):
            return self._read(token_event.fraction)
        if self.ending is not None:
            return Merge.KNOWN
        merged = self._attempt.merge(token_event)
        if merged is Merge.GREW:
            self._count(self._attempt.text)
        return merged

    def _begin_todo(self, todo: JobTodo) -> None:
        self._live = False
        self._finish(todo.results)
        if isinstance(todo, TodoGenerate):
            self._grow(EXTRACTED)

    def _begin_attempt(self, seq: int, claim: RunClaimed) -> None:
        self._live = True
        self._attempt.begin(seq)
        self._read(claim.fraction)
        if claim.prompt is not None and claim.prompt.max_tokens:
            self._tokens = claim.prompt.max_tokens
        if claim.previous is not None:
            self._count(claim.previous.text)

    def _end(self, final: RunEnded) -> None:
        self._finish(final.results)
        self._read(final.fraction)
        self._count(final.text)
        if final.status == "completed":
            self._grow(100)
        self.ending = Ending(final.text, final.attempt, final.at, final.error)

    def _finish(self, results: list[StepResult]) -> None:
        known = {finished.step for finished in self.done}
        for result in results:
            if result.step not in known:
                goes_on = result.text.startswith(self._attempt.text)
                attempt = self._attempt.attempt if goes_on else 0
                self.done.append(Done(result.step, result.text, attempt))

    # -- progress ---------------------------------------------------------------------

    def _read(self, fraction: float) -> Merge:
        """So much of the file has been read."""
        return self._grow(int(EXTRACTED * min(1.0, max(0.0, fraction))))

    def _count(self, text: str) -> None:
        """The answer is so long: by its tokens of those that it may have."""
        if text:
            part = min(1.0, len(text) / (_CHARACTERS * self._tokens))
            self._grow(EXTRACTED + int((WRITTEN - EXTRACTED) * part))

    def _grow(self, to: int) -> Merge:
        """Progress never falls: what a lost attempt had done stays shown."""
        if to <= self.progress:
            return Merge.KNOWN
        self.progress = to
        return Merge.GREW


def state_of_record(job: Job) -> JobState:
    """The state of a job that has not begun, or is completed: its record says all of it.

    How far any other has got, only its facts say.
    """
    run = job.run
    known = RunState(
        status=run.status,
        created_at=run.created_at,
        ended_at=run.ended_at,
        first_seq=run.first_seq,
        last_seq=run.last_seq,
    )
    state = JobState(run.id, run.session_id, job.plan, known)
    if run.ended_at is not None:
        state.done = [Done(result.step, result.text, run.attempt) for result in job.results]
        state.ending = Ending(job.text, run.attempt, run.ended_at, run.error)
        state.progress = 100
    return state
