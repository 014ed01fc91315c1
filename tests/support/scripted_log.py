"""A session's log by script: every fact that its services would append, each behind the one before.

Pure: no bus, no tables, no clock but its own.  A verb appends one fact; those
that begin a run answer its id, ``claims`` the attempt's, all others the fact's
sequence.  What was appended last is ``entries[-1]``.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import msgspec

from shared.events import (
    AnyFact,
    BranchChosen,
    CancelRequested,
    Continued,
    Delta,
    EndStatus,
    Fault,
    MessageRated,
    Plan,
    PreviousAttempt,
    Progress,
    PromptSource,
    Rating,
    RunClaimed,
    RunEnded,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    StepPrompt,
    StepResult,
    Timeline,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
    encode,
)
from shared.ids import LOCAL_USER, new_id
from shared.log_entry import LogEntry
from shared.subjects import NONE, Address

START = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
USER = LOCAL_USER
SESSION = "01a21600-0000-7000-8000-00000000000a"
WORKER = "01a21500-0000-7000-8000-0000000000c1"
BUSY = Fault(code="provider_unavailable", message="busy", retryable=True)

_SESSION_FIELDS: dict[str, Any] = {
    "title": None,
    "mode": "general",
    "model": "demo",
    "temperature": 0.7,
    "max_tokens": 1024,
    "system_prompt": "Be brief.",
    "context_tags": ["tea"],
    "on_busy": "queue",
}
_PROMPT = PromptSource(
    provider="demo",
    model="demo",
    system="Be brief.",
    message_ids=[],
    temperature=0.7,
    max_tokens=1024,
)


class ScriptedLog:
    """One session's facts, at the times and sequences that the script says."""

    def __init__(
        self, session: str = SESSION, *, first: int = 1, step: int = 1, pace: int = 0
    ) -> None:
        """Sequences go from ``first`` on by ``step``, and ``pace`` ms pass after each fact."""
        self.session = session
        self.entries: list[LogEntry] = []
        self.ms = 0
        self.attempt = 0
        """The attempt that is running, and what it has written."""
        self.text = ""
        self._first, self._step, self._pace = first, step, pace
        self._turns: dict[str, Turn] = {}
        self._claimed_ms = 0
        self._timeline: Timeline = []
        self._progress: Timeline = []

    # -- time -------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return START + timedelta(milliseconds=self.ms)

    def at(self, ms: int) -> Self:
        """The log, so many milliseconds after its start."""
        self.ms = ms
        return self

    def passes(self, ms: int) -> None:
        self.ms += ms

    # -- a session --------------------------------------------------------------------

    def opens(self, **fields: Any) -> int:
        return self.append(SessionCreated(at=self.now, **(_SESSION_FIELDS | fields)))

    def updates(self, **fields: Any) -> int:
        return self.append(SessionUpdated(at=self.now, **fields))

    def chooses(self, leaf: str) -> int:
        return self.append(BranchChosen(at=self.now, leaf=leaf))

    def rates(self, message: str, rating: Rating | None, comment: str | None = None) -> int:
        fact = MessageRated(at=self.now, message_id=message, rating=rating, comment=comment)
        return self.append(fact)

    def deletes(self) -> int:
        return self.append(SessionDeleted(at=self.now))

    # -- turns ------------------------------------------------------------------------

    def sends(
        self, content: str | None, run: str | None = None, *, waiting: bool = False, **fields: Any
    ) -> str:
        """A message is accepted; None answers that of ``user_message_id`` anew."""
        return self.accepts(a_turn(content, **fields), run, waiting=waiting)

    def accepts(self, turn: Turn, run: str | None = None, *, waiting: bool = False) -> str:
        run = run or new_id()
        self._turns[run] = turn
        if waiting:
            self.append(RunWaiting(at=self.now, turn=turn), run)
        else:
            self.append(TodoChat(at=self.now, n=0, turn=turn), run)
        return run

    def continues(self, first: str, before: str, *, waiting: bool = False, **fields: Any) -> str:
        """The reply of the run ``first`` is to go on from the text that it has."""
        old = self._turns[first]
        continued = Continued(length=len(before), tokens=5, created_at=self.now)
        turn = {
            "user_message_id": old.user_message_id,
            "assistant_message_id": old.assistant_message_id,
            "continues": continued,
        }
        return self.sends(None, waiting=waiting, **(turn | fields))

    def dispatches(self, run: str, parent: str | None) -> int:
        """A turn that waited is due, below the message that is the branch's last by now."""
        turn = self._turns[run] = msgspec.structs.replace(self._turns[run], parent_id=parent)
        return self.append(TodoChat(at=self.now, n=0, turn=turn), run)

    def replies(self, content: str, text: str, *, parent: str | None = None) -> str:
        """A whole turn, from its acceptance to its reply."""
        run = self.sends(content, parent_id=parent)
        self.claims(run)
        self.ends(run, text)
        return run

    def turn(self, run: str) -> Turn:
        return self._turns[run]

    def question(self, run: str) -> str:
        """The id of the message that the run replies to."""
        return self._turns[run].user_message_id

    def answer(self, run: str) -> str:
        """The id of the run's reply."""
        return self._turns[run].assistant_message_id

    @property
    def runs(self) -> list[str]:
        """The runs of all turns, in the order of their acceptance."""
        return list(self._turns)

    # -- attempts ---------------------------------------------------------------------

    def claims(
        self,
        run: str,
        *,
        previous: PreviousAttempt | None = None,
        failures: int = 0,
        fraction: float = 0.0,
        **prompt: Any,
    ) -> int:
        """A worker begins an attempt at the run's latest todo."""
        todo = self._latest(run, TodoChat | TodoProcess | TodoGenerate)
        reads = todo is not None and isinstance(todo.fact, TodoProcess)
        claim = RunClaimed(
            at=self.now,
            worker=WORKER,
            todo=todo.seq if todo else 0,
            prompt=None if reads else msgspec.structs.replace(_PROMPT, **prompt),
            previous=previous,
            failures=failures,
            fraction=fraction,
        )
        self._forget_attempt()
        self.attempt = self.append(claim, run)
        return self.attempt

    def writes(self, text: str) -> Delta:
        """The attempt's next delta."""
        delta = Delta(self.attempt, len(self.text), text, self.ms - self._claimed_ms)
        self.text += text
        self._timeline.append((delta.ms, len(self.text)))
        return delta

    def reads(self, thousandths: int) -> Progress:
        """So much of a file has been read."""
        progress = Progress(self.attempt, "extract", thousandths / 1000, self.ms - self._claimed_ms)
        self._progress.append((progress.ms, thousandths))
        return progress

    def left(self, reason: str, *, more: str = "", fault: Fault | None = None) -> PreviousAttempt:
        """What the attempt left behind when it was over; no delta held ``more``."""
        return PreviousAttempt(
            attempt=self.attempt,
            text=self.text + more,
            reason=reason,
            timeline=self._timeline,
            progress=self._progress,
            fault=fault,
        )

    def cancels(self, run: str) -> int:
        return self.append(CancelRequested(at=self.now), run)

    def ends(
        self,
        run: str,
        text: str | None = None,
        status: EndStatus = "completed",
        *,
        attempt: int | None = None,
        **fields: Any,
    ) -> int:
        """The run's final; without a ``text`` its last attempt's deltas are the whole reply."""
        text = self.text if text is None else text
        known: dict[str, Any] = {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "error": BUSY if status == "failed" else None,
            "timeline": self._timeline,
            "progress": self._progress,
        }
        final = RunEnded(
            at=self.now,
            status=status,
            attempt=self._attempt_of(run) if attempt is None else attempt,
            text=text,
            length=len(text),
            **(known | fields),
        )
        self._forget_attempt()
        return self.append(final, run)

    # -- jobs -------------------------------------------------------------------------

    def schedules(self, run: str, plan: Plan, due_ms: int, *, priority: int = 5) -> int:
        due = START + timedelta(milliseconds=due_ms)
        return self.append(RunScheduled(at=self.now, plan=plan, priority=priority, due=due), run)

    def hands_to_processor(
        self,
        run: str,
        plan: Plan,
        n: int = 0,
        step: str = "extract",
        results: Sequence[StepResult] = (),
        *,
        previous: PreviousAttempt | None = None,
        priority: int = 5,
    ) -> int:
        todo = TodoProcess(
            at=self.now,
            n=n,
            priority=priority,
            step=step,
            plan=plan,
            results=list(results),
            previous=previous,
        )
        return self.append(todo, run)

    def hands_to_llm_worker(
        self,
        run: str,
        plan: Plan,
        n: int,
        prompt: StepPrompt,
        results: Sequence[StepResult] = (),
        *,
        last: bool = True,
        previous: PreviousAttempt | None = None,
        priority: int = 5,
    ) -> int:
        todo = TodoGenerate(
            at=self.now,
            n=n,
            priority=priority,
            ask=prompt,
            plan=plan,
            results=list(results),
            last=last,
            previous=previous,
        )
        return self.append(todo, run)

    # -- below ------------------------------------------------------------------------

    def of(self, run: str) -> list[LogEntry]:
        return [entry for entry in self.entries if entry.address.run == run]

    def append(self, fact: AnyFact, run: str = NONE) -> int:
        """Any fact, with the sequence that its publisher would have expected."""
        return self.append_at(Address(USER, self.session, run), fact)

    def append_at(self, address: Address, fact: AnyFact) -> int:
        """Any fact, of this session or not, in the same log."""
        seq = self.entries[-1].seq + self._step if self.entries else self._first
        fact = msgspec.structs.replace(
            fact, prev=self._expected(address, fact), nonce=f"nonce-{seq}"
        )
        self.entries.append(LogEntry.read(seq, address.subject_of(fact), encode(fact)))
        self.passes(self._pace)
        return seq

    def _expected(self, address: Address, fact: AnyFact) -> int:
        """The head of the chain that the fact extends: its session's, or its run's."""
        decides = isinstance(fact, RunWaiting) or (isinstance(fact, TodoChat) and fact.n == 0)
        chain = address.session_facts if decides or address.run == NONE else address.facts
        before = chain.removesuffix(">")
        return next((e.seq for e in reversed(self.entries) if e.subject.startswith(before)), 0)

    def _latest(self, run: str, kinds: Any) -> LogEntry | None:
        return next((e for e in reversed(self.of(run)) if isinstance(e.fact, kinds)), None)

    def _attempt_of(self, run: str) -> int:
        """The claim of the run's latest todo."""
        latest = self._latest(run, TodoChat | TodoProcess | TodoGenerate | RunClaimed)
        return latest.seq if latest and isinstance(latest.fact, RunClaimed) else 0

    def _forget_attempt(self) -> None:
        self.attempt, self.text, self._claimed_ms = 0, "", self.ms
        self._timeline, self._progress = [], []


def a_turn(content: str | None, **fields: Any) -> Turn:
    """A turn with new messages, unless ``fields`` name them."""
    known: dict[str, Any] = {"user_message_id": new_id(), "assistant_message_id": new_id()}
    return Turn(content=content, **(known | fields))
