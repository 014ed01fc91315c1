"""Jobs of the fake store, and a processor and worker that do what a test tells them."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from shared import commands as c
from shared.chain import extend
from shared.errors import NotFound
from shared.events import (
    EndStatus,
    Fact,
    Fault,
    Plan,
    PreviousAttempt,
    Progress,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunScheduled,
    SessionCreated,
    StepPrompt,
    StepResult,
    TodoGenerate,
    TodoProcess,
    encode,
)
from shared.ids import now
from shared.plans import due_step, step_names, without_file_text
from shared.records import Job, JobStep, Run, RunStatus, Session
from shared.subjects import EVENTS, Address

if TYPE_CHECKING:
    from tests.support.fake_store import FakeStore


@dataclass
class _Record:
    plan: Plan
    mode: str
    priority: int
    due: datetime | None
    client_ref: str | None
    user: str
    n: int = 0
    text: str = ""
    results: list[StepResult] = field(default_factory=list)


class FakeJobs:
    """The jobs among a fake store's runs."""

    def __init__(self, store: "FakeStore") -> None:
        self.records: dict[str, _Record] = {}
        self._gone_on: dict[str, bool] = {}
        """Whether a todo came since the run's last claim."""
        self._store = store

    # -- what the gateway asks ------------------------------------------------------

    async def create_job(self, q: c.CreateJob) -> c.JobAccepted:
        for run_id, record in self.records.items():
            same = q.client_ref is not None and record.client_ref == q.client_ref
            if run_id == q.run_id or (same and self._store.runs[run_id].ended_at is None):
                return self._accepted(run_id, repeated=run_id != q.run_id)
        at = now()
        self.records[q.run_id] = _Record(q.plan, q.mode, q.priority, q.due, q.client_ref, q.user_id)
        address = Address(q.user_id, q.session_id, q.run_id)
        await self._open(q, at)
        later = q.due is not None and q.due > at
        if later:
            fact: Fact = RunScheduled(at=at, plan=q.plan, priority=q.priority, due=q.due or at)
            subject = address.fact("scheduled")
        else:
            fact, subject = self._first(q.run_id), address.todo_process(q.priority, 0)
        seq = await extend(self._store.bus, subject, fact, expected=0)
        self._store.seq = seq
        self._store.runs[q.run_id] = _run(q, at, seq, "scheduled" if later else "queued")
        return self._accepted(q.run_id)

    async def _open(self, q: c.CreateJob, at: datetime) -> None:
        created = SessionCreated(
            at=at,
            title=None,
            mode=q.mode,
            model=q.model,
            temperature=q.temperature,
            max_tokens=q.max_tokens,
            system_prompt=None,
            context_tags=[],
            on_busy="queue",
            client_ref=q.client_ref,
        )
        await self._store.session_fact(q.user_id, q.session_id, "session.created", created)
        fields = {f: getattr(created, f) for f in Session.__struct_fields__ if hasattr(created, f)}
        self._store.sessions[q.session_id] = Session(
            id=q.session_id,
            user_id=q.user_id,
            status="active",
            message_count=0,
            created_at=at,
            updated_at=at,
            last_message_at=None,
            **fields,
        )

    async def get_job(self, q: c.GetJob) -> c.JobAnswer:
        for run_id, record in self.records.items():
            session_id = self._store.runs[run_id].session_id
            if record.user == q.user_id and (q.run_id == run_id or q.session_id == session_id):
                return self._answer(run_id)
        raise NotFound("There is no such job.")

    async def list_jobs(self, q: c.ListJobs) -> c.JobPage:
        found = [
            self._job(run_id)
            for run_id, record in sorted(self.records.items(), reverse=True)
            if record.user == q.user_id
            and q.mode in (None, record.mode)
            and (q.before is None or run_id < q.before)
        ]
        found = [job for job in found if q.status in (None, job.run.status)]
        if q.ended_after is not None:
            found = [j for j in found if j.run.ended_at is None or j.run.ended_at > q.ended_after]
        more = found[q.limit - 1].run.id if len(found) > q.limit else None
        return c.JobPage(items=found[: q.limit], next_before=more, seq=self._store.seq)

    # -- processor and worker ---------------------------------------------------------

    async def fire(self, run_id: str) -> None:
        """The schedule's time has come."""
        await self._fact(run_id, self._todo("process", run_id), self._first(run_id))
        self._store.change(run_id, status="queued")

    async def claim(
        self, run_id: str, *, max_tokens: int | None = None, previous: PreviousAttempt | None = None
    ) -> int:
        prompt = None
        if max_tokens is not None:
            prompt = PromptSource(
                provider="demo",
                model="demo",
                system=None,
                message_ids=[],
                temperature=None,
                max_tokens=max_tokens,
            )
        previous = previous or self._store.went.get(self._store.runs[run_id].attempt)
        if self._gone_on.get(run_id):  # what it wrote is told by the todo already
            previous = None
        self._gone_on[run_id] = False
        fact = RunClaimed(at=now(), worker="w", todo=0, prompt=prompt, previous=previous)
        attempt = await self._fact(run_id, "claim", fact)
        self._store.change(run_id, attempt=attempt, status="running")
        return attempt

    async def progress(self, run_id: str, step: str, fraction: float) -> None:
        attempt = self._store.runs[run_id].attempt
        before = self._store.went.get(attempt) or PreviousAttempt(
            attempt=attempt, text="", reason="the file was read"
        )
        point = (10 * (len(before.progress) + 1), round(fraction * 1000))
        self._store.went[attempt] = msgspec.structs.replace(
            before, progress=[*before.progress, point]
        )
        token_event = Progress(attempt=attempt, step=step, fraction=fraction)
        await self._store.bus.store(self._address(run_id).tokens, encode(token_event))

    async def finish_step(self, run_id: str, text: str, *, notes: list[str] | None = None) -> None:
        """The step that is due has left ``text``: ask the model for the next one."""
        record = self.records[run_id]
        step = due_step(record.plan, record.results)
        assert step
        record.results.append(StepResult(step=step, text=text, notes=notes or []))
        await self.ask(run_id)

    async def ask(self, run_id: str) -> None:
        """Ask the model for the step that is due, perhaps once more."""
        record = self.records[run_id]
        record.n += 1
        due = due_step(record.plan, record.results)
        assert due
        fact = TodoGenerate(
            at=now(),
            n=record.n,
            priority=record.priority,
            ask=StepPrompt(step=due, prompt="?"),
            plan=record.plan,
            results=list(record.results),
            last=due == step_names(record.plan)[-1],
            previous=self._store.went.get(self._store.runs[run_id].attempt),
        )
        self._gone_on[run_id] = True
        await self._fact(run_id, self._todo("generate", run_id), fact)

    async def end(
        self,
        run_id: str,
        text: str,
        *,
        status: EndStatus = "completed",
        error: Fault | None = None,
    ) -> None:
        record, run = self.records[run_id], self._store.runs[run_id]
        if status == "completed" and (step := due_step(record.plan, record.results)):
            record.results.append(StepResult(step=step, text=text))
        record.text = text
        final = RunEnded(
            at=now(),
            status=status,
            attempt=run.attempt,
            text=text,
            length=len(text),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            error=error,
            results=without_file_text(record.plan, record.results),
            timeline=self._store.timeline_of(run.attempt),
        )
        self._store.change(run_id, status=status, ended_at=final.at, error=error)
        await self._fact(run_id, "final", final)

    # -- below ------------------------------------------------------------------------

    def _first(self, run_id: str) -> TodoProcess:
        record = self.records[run_id]
        step = step_names(record.plan)[0]
        return TodoProcess(at=now(), n=0, priority=record.priority, step=step, plan=record.plan)

    def _todo(self, kind: str, run_id: str) -> str:
        record = self.records[run_id]
        return f"todo.{kind}.{record.priority}.{record.n}"

    def _address(self, run_id: str) -> Address:
        run = self._store.runs[run_id]
        return Address(self.records[run_id].user, run.session_id, run_id)

    async def _fact(self, run_id: str, what: str, fact: Fact) -> int:
        address = self._address(run_id)
        head = await self._store.bus.head(EVENTS, address.facts)
        assert head
        seq = await extend(self._store.bus, address.fact(what), fact, expected=head.seq)
        self._store.seq = seq
        self._store.change(run_id, last_seq=seq)
        return seq

    def _accepted(self, run_id: str, *, repeated: bool = False) -> c.JobAccepted:
        return c.JobAccepted(job=self._job(run_id), seq=self._store.seq, repeated=repeated)

    def _answer(self, run_id: str) -> c.JobAnswer:
        return c.JobAnswer(job=self._job(run_id), seq=self._store.seq)

    def _job(self, run_id: str) -> Job:
        record, run = self.records[run_id], self._store.runs[run_id]
        done = {result.step for result in record.results}
        return Job(
            run=run,
            plan=record.plan,
            priority=record.priority,
            due=record.due,
            steps=[
                JobStep(name=name, status="completed" if name in done else "pending")
                for name in step_names(record.plan)
            ],
            results=without_file_text(record.plan, record.results),
            notes=[],
            text=record.text,
            client_ref=record.client_ref,
        )


def _run(q: c.CreateJob, at: datetime, seq: int, status: RunStatus) -> Run:
    return Run(
        id=q.run_id,
        session_id=q.session_id,
        status=status,
        attempt=0,
        sha256=None,
        length=None,
        usage=None,
        error=None,
        created_at=at,
        ended_at=None,
        user_message_id=None,
        assistant_message_id=None,
        first_seq=seq,
        last_seq=seq,
        cancelled=False,
    )
