"""The story of one run, made of its facts alone (pure).

It says who claimed the run and when, what each attempt wrote and why it ended, and how
the run ended.  Times are milliseconds since the run was accepted; those of an attempt are
milliseconds since its claim, as in its timeline.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from shared.events import (
    CancelRequested,
    EndStatus,
    Fault,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunFact,
    RunScheduled,
    RunWaiting,
    Timeline,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Try,
    Usage,
)
from shared.log_entry import LogEntry
from shared.message_state import thoughts_text
from shared.plans import kind_of_plan
from shared.run_state import RunState, state_before, stop_reason

LONG = 1000
"""A silence of so many milliseconds is shown."""
_GAPS = 5
_BRIEF = 13
"""Characters of a worker's id: when it started, to the millisecond."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A long silence in an attempt: after how much text, when, for how long."""

    at_ms: int
    length: int
    ms: int


class Attempt(msgspec.Struct, kw_only=True):
    """One worker's try, from its claim to whatever ended it; ``ended`` is None while it runs."""

    attempt: int
    worker: str
    at: datetime
    after_ms: int
    """Since its todo: how long nobody picked it up."""
    todo: int
    step: str | None
    source: PromptSource | None
    failures: int
    """Failed calls of the provider in this run, before this claim."""
    first_delta_ms: int | None = None
    deltas: int = 0
    length: int | None = None
    """Code points of its text; None when nothing of it is known."""
    rate: float | None = None
    """Code points a second, from the first delta to the last."""
    longest_ms: int | None = None
    gaps: list[Gap] = []
    tries: list[Try] = []
    """The provider's failed calls within it; known once it is over."""
    ended: str | None = None
    ended_ms: int | None = None
    """Since its claim."""


class StoryFact(msgspec.Struct, frozen=True, kw_only=True, rename={"kind": "what", "text": "told"}):
    """One fact of the run, in a line."""

    seq: int
    at: datetime
    ms: int
    kind: str
    text: str


class JobStep(msgspec.Struct, kw_only=True):
    """A step of a job becoming due; a step whose answer misses its schema is due again."""

    n: int
    kind: str
    step: str
    seq: int
    ms: int
    misses: int = 0


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended."""

    seq: int
    at: datetime
    ms: int
    status: EndStatus
    attempt: int
    stop_reason: str | None
    thoughts: int | None
    """Code points of what the model thought before it answered."""
    length: int
    sha256: str
    intact: bool
    """The text has that length and that digest."""
    usage: Usage | None
    cost: int | None
    """Billionths of a US dollar; None: nobody knows a price."""
    error: Fault | None
    latency_ms: int | None
    first_delta_ms: int | None
    notes: list[str]


class Story(msgspec.Struct, kw_only=True):
    """Everything about one run."""

    run_id: str
    session_id: str
    user_id: str
    kind: str
    state: str
    imported: bool
    """It happened in another log, and was brought here."""
    accepted_at: datetime
    waited_ms: int | None = None
    """Behind another run of its session; None when it did not have to."""
    due: datetime | None = None
    priority: int | None = None
    continues: int | None = None
    """Code points of the reply that went on; the texts of the attempts begin with it."""
    attempts: list[Attempt] = []
    steps: list[JobStep] = []
    end: End | None = None
    facts: list[StoryFact] = []


def story_of(facts: Sequence[LogEntry]) -> Story:
    """The story of one run from its facts, in order, at least one."""
    first = facts[0]
    story = Story(
        run_id=first.address.run,
        session_id=first.address.session,
        user_id=first.address.user,
        kind="chat",
        state="queued",
        imported=first.imported is not None,
        accepted_at=first.fact.at,
        attempts=[],
        steps=[],
        facts=[],
    )
    at_of = {fact.seq: fact.fact.at for fact in facts}
    runs: dict[str, RunState] = {}
    for recorded in facts:
        if isinstance(recorded.fact, RunFact):
            run = state_before(runs, recorded, recorded.fact)
            counts = run.apply(recorded.seq, recorded.fact)
            _set_state(story, run)
            if counts:
                _apply(story, recorded, at_of)
        _add_fact(story, recorded)
    return story


def set_running_length(story: Story, length: int) -> None:
    """Set how much the latest attempt of a run under way has written, as TOKENS has it."""
    if story.attempts and story.attempts[-1].ended is None:
        story.attempts[-1].length = length


# -- one fact after the other ---------------------------------------------------------


def _set_state(story: Story, run: RunState) -> None:
    """Note how the run stands by now."""
    story.state, story.due = run.status, run.due
    if run.plan is not None:
        story.kind, story.priority = kind_of_plan(run.plan), run.priority
    if run.turn is not None and run.turn.continues is not None:
        story.continues = run.turn.continues.length


def _apply(story: Story, recorded: LogEntry, at_of: dict[int, datetime]) -> None:
    ms = _since(story.accepted_at, recorded.fact.at)
    match recorded.fact:
        case TodoChat():
            story.waited_ms = ms if len(at_of) > 1 and ms else None
        case TodoProcess() | TodoGenerate() as fact:
            _add_step(story, recorded.seq, ms, fact)
        case RunClaimed() as fact:
            _end_attempt_before(story, fact, _since(_last_claim(story), fact.at))
            story.attempts.append(_attempt(story, recorded.seq, fact, at_of))
        case RunEnded() as fact:
            _add_end(story, recorded, fact, ms)
        case _:
            pass


def _add_step(story: Story, seq: int, ms: int, fact: TodoProcess | TodoGenerate) -> None:
    if isinstance(fact, TodoProcess):
        step = JobStep(n=fact.n, kind="process", step=fact.step, seq=seq, ms=ms)
    else:
        step = JobStep(
            n=fact.n, kind="generate", step=fact.ask.step, seq=seq, ms=ms, misses=fact.ask.misses
        )
    story.steps.append(step)
    if story.attempts and story.attempts[-1].ended is None:
        attempt = story.attempts[-1]
        missed = isinstance(fact, TodoGenerate) and fact.ask.misses > 0
        attempt.ended = "its answer missed the schema" if missed else "done: the next step follows"
        attempt.ended_ms = _since(attempt.at, fact.at)
        if fact.previous is not None and fact.previous.attempt == attempt.attempt:
            attempt.tries = fact.previous.tries


def _attempt(story: Story, seq: int, fact: RunClaimed, at_of: dict[int, datetime]) -> Attempt:
    steps = {step.seq: step.step for step in story.steps}
    return Attempt(
        attempt=seq,
        worker=fact.worker,
        at=fact.at,
        after_ms=_since(at_of.get(fact.todo, story.accepted_at), fact.at),
        todo=fact.todo,
        step=steps.get(fact.todo),
        source=fact.prompt,
        failures=fact.failures,
    )


def _end_attempt_before(story: Story, claim: RunClaimed, ms: int) -> None:
    """Note on the attempt before a claim what the claim says of its end."""
    if not story.attempts or story.attempts[-1].ended is not None:
        return
    attempt = story.attempts[-1]
    attempt.ended, attempt.ended_ms = "another worker claimed the run", ms
    previous = claim.previous
    if previous is not None and previous.attempt == attempt.attempt:
        attempt.ended, attempt.length = previous.reason, len(previous.text)
        attempt.tries = previous.tries
        _measure(attempt, _own_timeline(story, previous.timeline))
    if claim.failures > attempt.failures:
        attempt.ended += f" (failed call {claim.failures} of this run)"


def _add_end(story: Story, recorded: LogEntry, fact: RunEnded, ms: int) -> None:
    sha256 = hashlib.sha256(fact.text.encode()).hexdigest()
    thoughts = thoughts_text(fact.thoughts)
    story.end = End(
        seq=recorded.seq,
        at=fact.at,
        ms=ms,
        status=fact.status,
        attempt=fact.attempt,
        stop_reason=stop_reason(fact.status, fact.stop_reason),
        thoughts=None if thoughts is None else len(thoughts),
        length=fact.length,
        sha256=fact.sha256,
        intact=(len(fact.text), sha256) == (fact.length, fact.sha256),
        usage=fact.usage,
        cost=fact.cost,
        error=fact.error,
        latency_ms=fact.latency_ms,
        first_delta_ms=fact.first_delta_ms,
        notes=fact.notes,
    )
    if story.attempts and story.attempts[-1].ended is None:
        attempt = story.attempts[-1]
        attempt.ended = f"the run {'was cancelled' if fact.status == 'cancelled' else fact.status}"
        attempt.ended_ms = _since(attempt.at, fact.at)
        if fact.attempt == attempt.attempt:
            attempt.length, attempt.tries = fact.length, fact.tries
            _measure(attempt, _own_timeline(story, fact.timeline))
            attempt.first_delta_ms = fact.first_delta_ms or attempt.first_delta_ms


def _own_timeline(story: Story, timeline: Timeline) -> Timeline:
    """The part of an attempt's timeline that it wrote itself, beyond the reply it continues."""
    return [(ms, length) for ms, length in timeline if length > (story.continues or 0)]


def _measure(attempt: Attempt, timeline: Timeline) -> None:
    """Set an attempt's first delta, rate and silences from its timeline."""
    attempt.deltas = len(timeline)
    if not timeline:
        return
    (first_ms, first), (last_ms, last) = timeline[0], timeline[-1]
    attempt.first_delta_ms = first_ms
    if last_ms > first_ms:
        attempt.rate = round((last - first) * 1000 / (last_ms - first_ms), 1)
    pauses = [
        Gap(at_ms=before_ms, length=length, ms=after_ms - before_ms)
        for (before_ms, length), (after_ms, _) in pairwise(timeline)
    ]
    attempt.longest_ms = max((gap.ms for gap in pauses), default=None)
    long = sorted((gap for gap in pauses if gap.ms >= LONG), key=lambda gap: -gap.ms)[:_GAPS]
    attempt.gaps = sorted(long, key=lambda gap: gap.at_ms)


# -- a fact in a line ----------------------------------------------------------------


def _add_fact(story: Story, recorded: LogEntry) -> None:
    story.facts.append(
        StoryFact(
            seq=recorded.seq,
            at=recorded.fact.at,
            ms=_since(story.accepted_at, recorded.fact.at),
            kind=recorded.kind,
            text=describe_fact(recorded),
        )
    )


def describe_fact(recorded: LogEntry) -> str:
    """A fact of a run in one line, without any text of a person or a model."""
    match recorded.fact:
        case RunWaiting():
            return "accepted; another run of the session goes first"
        case RunScheduled() as fact:
            return f"accepted for {fact.due:%Y-%m-%d %H:%M:%S}, priority {fact.priority}"
        case TodoChat(turn=turn):
            if turn.continues is not None:
                return f"to go on: a reply of {turn.continues.length} chars"
            question = (
                "an earlier message" if turn.content is None else f"{len(turn.content)} chars"
            )
            return f"to be answered: {question}"
        case TodoProcess() as fact:
            return f"step {fact.step} is due (processor), priority {fact.priority}"
        case TodoGenerate() as fact:
            again = f", after {fact.ask.misses} misses" if fact.ask.misses else ""
            return f"step {fact.ask.step} is due (model), {len(fact.ask.prompt)} chars{again}"
        case RunClaimed() as fact:
            return f"claimed by worker {fact.worker[:_BRIEF]}, for fact {fact.todo}"
        case CancelRequested() as fact:
            return f"cancel: {fact.reason}"
        case RunEnded() as fact:
            how = fact.error.code if fact.error else stop_reason(fact.status, fact.stop_reason)
            why = f" ({how})" if how not in (None, "end_turn") else ""
            return f"{fact.status}{why}, {fact.length} chars of attempt {fact.attempt}"
        case fact:
            return type(fact).__name__


def _last_claim(story: Story) -> datetime:
    return story.attempts[-1].at if story.attempts else story.accepted_at


def _since(start: datetime, end: datetime) -> int:
    return round((end - start).total_seconds() * 1000)
