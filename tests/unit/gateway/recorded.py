"""Sessions and jobs as they are recorded, for replays: every fact at a time of its own."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from services.store import queries
from services.store.archive import entry
from services.store.history import Past
from shared.bus import Stored
from shared.commands import GetMessage, ListMessages
from shared.events import (
    BranchChosen,
    CancelRequested,
    Delta,
    DocumentPlan,
    EndStatus,
    Fact,
    Fault,
    FileRef,
    MessageRated,
    PipelinePlan,
    PipelineStep,
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
    SessionUpdated,
    StepPrompt,
    StepResult,
    Timeline,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
    Usage,
    decode_fact,
    encode,
)
from shared.ids import new_id, now
from shared.log_entry import LogEntry
from shared.records import Message, Role
from shared.subjects import Address
from tests.unit.gateway.logs import SESSION, USER, Log

START = now().replace(microsecond=0)
BUSY = Fault(code="provider_unavailable", message="busy", retryable=True)
DOCUMENT = DocumentPlan(
    file=FileRef(id="f", name="a.txt", kind="text", media_type="text/plain", size=1, sha256=""),
    prompt="?",
)
PIPELINE = PipelinePlan(
    pipeline="content",
    steps=[
        PipelineStep(name=name, template="?")
        for name in ("keywords", "content_generation", "compliance_check")
    ],
    inputs={},
)


class Recorder(Log):
    """One session's log, written as its services write it."""

    def __init__(self) -> None:
        super().__init__()
        self.ms = 0
        self.attempt = 0
        self.text = ""
        self._claimed_ms = 0
        self._timeline: Timeline = []
        self._progress: Timeline = []
        self._past = Past()

    async def close(self) -> None:
        self._past.close()
        self._past = Past()

    @property
    def links(self) -> list[LogEntry]:
        return [LogEntry.of(seq, subject, decode_fact(data)) for seq, subject, data in self.facts]

    def pass_time(self, ms: int) -> None:
        self.ms += ms

    # -- attempts -----------------------------------------------------------------

    def claims(
        self, run_id: str, *, previous: PreviousAttempt | None = None, max_tokens: int = 10
    ) -> Stored:
        """An attempt begins; ``previous`` is what :meth:`went` said of the one before."""
        prompt = PromptSource(
            provider="p",
            model="m",
            system=None,
            message_ids=[],
            temperature=None,
            max_tokens=max_tokens,
        )
        fact = RunClaimed(at=self._at, worker="w", todo=0, prompt=prompt, previous=previous)
        stored = self.store(run_id, "claim", fact)
        self.attempt, self.text, self._claimed_ms = stored.seq, "", self.ms
        self._timeline, self._progress = [], []
        return stored

    def writes(self, text: str) -> Delta:
        """A delta is published."""
        delta = Delta(self.attempt, len(self.text), text, self.ms - self._claimed_ms)
        self.text += text
        self._timeline.append((delta.ms, len(self.text)))
        return delta

    def has_read(self, thousandths: int) -> Progress:
        """So much of a file is read."""
        self._progress.append((self.ms - self._claimed_ms, thousandths))
        return Progress(self.attempt, "extract", thousandths / 1000)

    def went(self, reason: str, *, more: str = "", fault: Fault | None = None) -> PreviousAttempt:
        """How the attempt went; ``more`` came, and no delta carried it."""
        return PreviousAttempt(
            attempt=self.attempt,
            text=self.text + more,
            reason=reason,
            timeline=self._timeline,
            progress=self._progress,
            fault=fault,
        )

    def ends(
        self,
        run_id: str,
        status: EndStatus,
        *,
        more: str = "",
        attempt: int | None = None,
        results: list[StepResult] | None = None,
    ) -> Stored:
        text = self.text + more
        final = RunEnded(
            at=self._at,
            status=status,
            attempt=self.attempt if attempt is None else attempt,
            text=text,
            length=len(text),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            usage=Usage(input_tokens=1, output_tokens=len(text)),
            error=BUSY if status == "failed" else None,
            timeline=self._timeline,
            progress=self._progress,
            results=results or [],
        )
        self.attempt, self.text, self._timeline = 0, "", []
        return self.store(run_id, "final", final)

    # -- conversations --------------------------------------------------------------

    def sends(self, content: str, *, waiting: bool) -> tuple[str, Stored]:
        turn = Turn(user_message_id=new_id(), assistant_message_id=new_id(), content=content)
        run_id = new_id()
        if waiting:
            return run_id, self.store(run_id, "waiting", RunWaiting(at=self._at, turn=turn))
        return run_id, self.store(run_id, "todo.chat.0", TodoChat(at=self._at, n=0, turn=turn))

    def dispatches(self, run_id: str, parent_id: str) -> Stored:
        (waiting,) = [link.fact for link in self.links if run_id in link.subject]
        assert isinstance(waiting, RunWaiting)
        turn = msgspec.structs.replace(waiting.turn, parent_id=parent_id)
        return self.store(run_id, "todo.chat.0", TodoChat(at=self._at, n=0, turn=turn))

    def asks_again(self, message: Message) -> tuple[str, Stored]:
        turn = Turn(
            user_message_id=message.id,
            assistant_message_id=new_id(),
            content=None,
            parent_id=message.parent_id,
        )
        run_id = new_id()
        return run_id, self.store(run_id, "todo.chat.0", TodoChat(at=self._at, n=0, turn=turn))

    def cancels(self, run_id: str) -> Stored:
        return self.store(run_id, "cancel", CancelRequested(at=self._at))

    def renames(self, title: str) -> Stored:
        return self.store("_", "session.updated", SessionUpdated(at=self._at, title=title))

    def rates(self, message_id: str, rating: Rating | None) -> Stored:
        fact = MessageRated(at=self._at, message_id=message_id, rating=rating)
        return self.store("_", "message.feedback", fact)

    def chooses(self, leaf: str) -> Stored:
        return self.store("_", "session.branch", BranchChosen(at=self._at, leaf=leaf))

    def opens(self) -> Stored:
        """The session's first fact, without which a store knows of nothing."""
        fact = SessionCreated(
            at=self._at,
            title=None,
            mode="general",
            model=None,
            temperature=None,
            max_tokens=None,
            system_prompt=None,
            context_tags=[],
            on_busy="queue",
        )
        return self.store("_", "session.created", fact)

    def messages(self, *, role: Role) -> list[Message]:
        """Those that are in a branch, of whatever branch."""
        page = ListMessages(user_id=USER, session_id=SESSION, all_branches=True, limit=1000)
        items = self._answer(page, queries.list_messages, self.facts[-1].seq).items
        return [m for m in items if m.role == role and m.status != "waiting"]

    async def ask(self, question: object) -> Any:
        match question:
            case ListMessages(at=int() as at):
                return self._answer(question, queries.list_messages, at)
            case GetMessage():
                return self._answer(question, queries.get_message, self.facts[-1].seq)
            case _:
                return await super().ask(question)

    def _answer(self, question: Any, query: Callable[..., Any], at: int) -> Any:
        """What the store's own tables hold up to a fact."""
        if self._past.seq > at:
            self._past.close()
            self._past = Past()
        new = [entry(*fact) for fact in self.facts if self._past.seq < fact.seq <= at]
        return self._past.answer(new, at, question, query)

    # -- jobs -----------------------------------------------------------------------

    def schedules(self, run_id: str, plan: Plan) -> Stored:
        fact = RunScheduled(at=self._at, plan=plan, priority=0, due=self._at)
        return self.store(run_id, "scheduled", fact)

    def wants_read(
        self,
        run_id: str,
        plan: Plan,
        n: int,
        step: str,
        results: list[StepResult],
        previous: PreviousAttempt | None = None,
    ) -> Stored:
        fact = TodoProcess(
            at=self._at,
            n=n,
            priority=0,
            step=step,
            plan=plan,
            results=list(results),
            previous=previous,
        )
        return self.store(run_id, f"todo.process.0.{n}", fact)

    def wants_answer(
        self,
        run_id: str,
        plan: Plan,
        n: int,
        step: str,
        results: list[StepResult],
        previous: PreviousAttempt | None = None,
    ) -> Stored:
        fact = TodoGenerate(
            at=self._at,
            n=n,
            priority=0,
            ask=StepPrompt(step=step, prompt="?"),
            plan=plan,
            results=list(results),
            last=False,
            previous=previous,
        )
        return self.store(run_id, f"todo.generate.0.{n}", fact)

    # -- below ------------------------------------------------------------------------

    @property
    def _at(self) -> Any:
        return START + timedelta(milliseconds=self.ms)

    def store(self, run_id: str, what: str, fact: Fact) -> Stored:
        address = Address(USER, SESSION, run_id)
        before = [s.seq for s in self.facts if f".{run_id}." in s.subject]
        fact = msgspec.structs.replace(fact, prev=before[-1] if before else 0)
        seq = (self.facts[-1].seq if self.facts else 0) + 3
        self.facts.append(Stored(seq, address.fact(what), encode(fact)))
        return self.facts[-1]
