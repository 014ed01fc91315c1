"""What a busy session may do with messages that come at once: a model of one session (pure).

It lives through the session's facts in their order, and through what each sender was answered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

Policy = Literal["queue", "reject", "interrupt"]
SLACK = 2.0
"""Seconds by which a fact may be stored later than it says: it is dated before it is appended."""


class SessionFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact of one of the session's runs."""

    kind: str
    """``waiting``, ``todo``, ``claim``, ``cancel`` or the status of a final."""
    run: str
    at: float


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender was answered."""

    run: str
    """The run that was begun for it; empty: it was refused."""
    sent_at: float
    answered_at: float


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that became of messages that came at once."""

    policy: Policy
    facts: list[SessionFact]
    answers: list[Answered]
    branch: list[str]
    """The runs whose messages the active branch has, in its order."""


def faults_of(played: Played) -> list[str]:
    """Everything that the policy does not allow, one sentence each."""
    model = _Session(played.policy)
    faults = [fault for fact in played.facts for fault in model.take(fact)]
    return [
        *faults,
        *model.faults_at_rest(),
        *_faults_of_answers(played),
        *_faults_of_branch(played),
    ]


@dataclass
class _Session:
    policy: Policy
    active: str = ""
    waiting: list[str] = field(default_factory=list[str])
    cancelled: set[str] = field(default_factory=set[str])
    ended: dict[str, str] = field(default_factory=dict[str, str])
    last: str = ""
    """The turn that was accepted last."""

    def take(self, fact: SessionFact) -> Iterator[str]:
        match fact.kind:
            case "waiting":
                yield from self._wait(fact.run)
            case "todo":
                yield from self._begin(fact.run)
            case "cancel":
                self.cancelled.add(fact.run)
                if self.policy != "interrupt":
                    yield f"{fact.run} was cancelled by nobody"
            case "completed" | "failed" | "cancelled":
                yield from self._end(fact.run, fact.kind)
            case _:
                if fact.run != self.active:
                    yield f"{fact.kind} of {fact.run}, which is not the active one"

    def _wait(self, run: str) -> Iterator[str]:
        self.last = run
        if self.policy == "reject":
            yield f"{run} waits, although the session rejects"
        if not self.active and not self.waiting:
            yield f"{run} waits for nobody"
        self.waiting.append(run)

    def _begin(self, run: str) -> Iterator[str]:
        if self.active:
            yield f"{run} began while {self.active} was active"
        if run in self.waiting:
            due = next(each for each in self.waiting if each not in self.cancelled | {""})
            if run != due:
                yield f"{run} began before {due}, which waited longer"
            self.waiting.remove(run)
        else:
            self.last = run
            if self.waiting:
                yield f"{run} went before {self.waiting[0]}, which waited"
        self.active = run

    def _end(self, run: str, status: str) -> Iterator[str]:
        if run in self.ended:
            yield f"{run} ended twice"
        self.ended[run] = status
        if run == self.active:
            self.active = ""
        elif run in self.waiting:
            self.waiting.remove(run)
            if run not in self.cancelled:
                yield f"{run} ended before it began"
        else:
            yield f"{run} ended and had not begun"

    def faults_at_rest(self) -> Iterator[str]:
        """When nothing more comes: all have ended, and as they should."""
        for run in filter(None, [self.active, *self.waiting]):
            yield f"{run} has no end"
        for run, status in self.ended.items():
            may_be_stopped = run in self.cancelled and run != self.last
            if status != "completed" and not (status == "cancelled" and may_be_stopped):
                yield f"{run} ended as {status}"


def _faults_of_answers(played: Played) -> Iterator[str]:
    """Who was accepted has a run of its own; who was refused met one that was active."""
    accepted = [answer.run for answer in played.answers if answer.run]
    begun = {fact.run for fact in played.facts}
    if len(accepted) != len(set(accepted)):
        yield "two senders were given one run"
    if set(accepted) != begun:
        yield f"answers and log differ in {sorted(set(accepted) ^ begun)}"
    for answer in played.answers:
        if not answer.run and played.policy != "reject":
            yield "a sender was refused, although the session takes messages"
        elif not answer.run and not _was_busy(played.facts, answer):
            yield f"a sender was refused at {answer.answered_at:.3f} while nothing was active"


def _was_busy(facts: Sequence[SessionFact], answer: Answered) -> bool:
    """Whether a run was active at any time between a message and its refusal."""
    ends = {fact.run: fact.at for fact in facts if fact.kind in ("completed", "failed")}
    return any(
        fact.at <= answer.answered_at and ends[fact.run] + SLACK >= answer.sent_at
        for fact in facts
        if fact.kind == "todo" and fact.run in ends
    )


def _faults_of_branch(played: Played) -> Iterator[str]:
    """The conversation reads in the order in which the turns began."""
    begun = [fact.run for fact in played.facts if fact.kind == "todo"]
    if played.branch != [run for run in begun for _ in ("user", "assistant")]:
        yield f"the branch reads {played.branch}, the turns began as {begun}"
