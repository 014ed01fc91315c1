"""Facts of a session with fixed ids and times, for tests of what is told of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from shared.endings import ended
from shared.events import (
    CancelRequested,
    DocumentPlan,
    EndStatus,
    Fact,
    FileRef,
    PreviousAttempt,
    PromptSource,
    RunClaimed,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    StepPrompt,
    StepResult,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
    Usage,
    encode,
)
from shared.log_entry import LogEntry
from shared.subjects import NONE, Address

START = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
USER = "00000000-0000-7000-8000-000000000001"
SESSION = "01a21600-0000-7000-8000-00000000000a"
RUN = "01a21600-0000-7000-8000-0000000000b1"
OTHER = "01a21600-0000-7000-8000-0000000000b2"
WORKER = "01a21500-0000-7000-8000-0000000000c1"
FILE = FileRef(
    id="01a21600-0000-7000-8000-0000000000f1",
    name="tax return.pdf",
    kind="pdf",
    media_type="application/pdf",
    size=7,
    sha256="5" * 64,
)
PLAN = DocumentPlan(file=FILE, prompt="What do I owe?")


class Told:
    """Facts as they are told one after the other; each method answers its sequence."""

    def __init__(self, first: int = 1) -> None:
        self.facts: list[LogEntry] = []
        self._first = first

    def tell(self, what: str, fact: Fact, run: str = NONE) -> int:
        seq = self._first + len(self.facts)
        prev = seq - 1 if self.facts else 0
        fact = msgspec.structs.replace(fact, prev=prev, nonce=f"nonce-{seq}")
        subject = Address(USER, SESSION, run).fact(what)
        self.facts.append(LogEntry.read(seq, subject, encode(fact)).unwrapped())
        return seq

    def of(self, run: str) -> list[LogEntry]:
        return [fact for fact in self.facts if fact.address.run == run]

    # -- what happens -----------------------------------------------------------------

    def created(self, **fields: Any) -> int:
        given: dict[str, Any] = {
            "title": None,
            "mode": "general",
            "model": "demo",
            "temperature": 0.7,
            "max_tokens": 1024,
            "system_prompt": "Be brief.",
            "context_tags": [],
            "on_busy": "queue",
        }
        return self.tell("session.created", SessionCreated(at=at(0), **{**given, **fields}))

    def waiting(self, ms: int, turn: Turn, run: str = RUN) -> int:
        return self.tell("waiting", RunWaiting(at=at(ms), turn=turn), run)

    def todo(self, ms: int, turn: Turn, run: str = RUN) -> int:
        return self.tell("todo.chat.0", TodoChat(at=at(ms), n=0, turn=turn), run)

    def claim(
        self,
        ms: int,
        todo: int,
        run: str = RUN,
        *,
        message_ids: list[str] | None = None,
        previous: PreviousAttempt | None = None,
        failures: int = 0,
        go_on: str | None = None,
    ) -> int:
        prompt = PromptSource(
            provider="demo",
            model="demo",
            system="Be brief.",
            message_ids=message_ids or [],
            temperature=0.7,
            max_tokens=1024,
            go_on=go_on,
        )
        claim = RunClaimed(
            at=at(ms),
            worker=WORKER,
            todo=todo,
            prompt=prompt,
            previous=previous,
            failures=failures,
        )
        return self.tell("claim", claim, run)

    def cancel(self, ms: int, run: str = RUN) -> int:
        return self.tell("cancel", CancelRequested(at=at(ms)), run)

    def final(
        self,
        ms: int,
        text: str,
        run: str = RUN,
        *,
        attempt: int,
        status: EndStatus = "completed",
        **fields: Any,
    ) -> int:
        final = msgspec.structs.replace(ended(status, text, attempt=attempt), at=at(ms), **fields)
        return self.tell("final", final, run)

    # -- a job's ----------------------------------------------------------------------

    def scheduled(self, ms: int, due_ms: int) -> int:
        return self.tell(
            "scheduled", RunScheduled(at=at(ms), plan=PLAN, priority=5, due=at(due_ms)), RUN
        )

    def process(self, ms: int, n: int = 0, step: str = "extract") -> int:
        fact = TodoProcess(at=at(ms), n=n, priority=5, step=step, plan=PLAN)
        return self.tell(f"todo.process.5.{n}", fact, RUN)

    def generate(
        self, ms: int, n: int = 1, misses: int = 0, previous: PreviousAttempt | None = None
    ) -> int:
        ask = StepPrompt(
            step="answer",
            prompt="What do I owe?",
            files=[FILE],
            instead="<file>42</file>",
            schema={"type": "object"},
            misses=misses,
        )
        results = [StepResult(step="extract", text="")]
        fact = TodoGenerate(
            at=at(ms),
            n=n,
            priority=5,
            ask=ask,
            plan=PLAN,
            results=results,
            last=True,
            previous=previous,
        )
        return self.tell(f"todo.generate.5.{n}", fact, RUN)


def at(ms: int) -> datetime:
    return START + timedelta(milliseconds=ms)


def turn(number: int, content: str | None, parent: str | None = None) -> Turn:
    """The ``number``-th turn: its messages are q<number> and a<number>, as ids."""
    return Turn(
        user_message_id=question(number),
        assistant_message_id=answer(number),
        content=content,
        parent_id=parent,
    )


def question(number: int) -> str:
    return f"01a21600-0000-7000-8000-{number:012}"


def answer(number: int) -> str:
    return f"01a21600-0000-7000-9000-{number:012}"


def restarted() -> Told:
    """A reply that a worker began and lost, and another one wrote."""
    told = Told()
    told.created()
    todo = told.todo(1000, turn(1, "Tell me about tea"))
    lost = told.claim(1006, todo, message_ids=[question(1)])
    previous = PreviousAttempt(attempt=lost, text="Tea is", reason="its worker was lost")
    claim = told.claim(9000, todo, message_ids=[question(1)], previous=previous)
    told.final(
        12_000,
        "Tea is a drink.",
        attempt=claim,
        stop_reason="end_turn",
        usage=Usage(input_tokens=6, output_tokens=5),
        latency_ms=3000,
        first_delta_ms=20,
        timeline=[(20, 3), (120, 6), (2620, 8), (2990, 15)],
    )
    return told
