"""A store and a worker in this process, for tests of the gateway over a real log.

The store answers ``cmd.store.…`` from memory and appends real facts; the worker
does what a test tells it: claim, write a piece, end.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from shared import commands as c
from shared.bus import Bus
from shared.chain import extend
from shared.errors import Conflict, KeyReused, NotFound
from shared.events import (
    CancelRequested,
    Delta,
    EndStatus,
    Fact,
    Fault,
    PreviousAttempt,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    Timeline,
    TodoChat,
    Turn,
    Usage,
    encode,
)
from shared.ids import new_id, now
from shared.records import Message, Run, Session, StoredFact
from shared.subjects import EVENTS, Address, Scope, session_address, store_command
from tests.support.fake_accounts import FakeAccounts
from tests.support.fake_jobs import FakeJobs
from tests.support.fake_models import FakeModels, FakeWorkers

_DEADLINE = 10.0

_COMMANDS: list[type[c.Request]] = [
    c.CreateSession,
    c.UpdateSession,
    c.DeleteSession,
    c.SendMessage,
    c.Regenerate,
    c.CancelRun,
    c.GetSession,
    c.ListSessions,
    c.ListMessages,
    c.GetMessage,
    c.GetRun,
    c.GetFacts,
    c.OpenFeed,
    c.CreateJob,
    c.GetJob,
    c.ListJobs,
    c.CheckToken,
    c.ListModels,
    c.PreferModel,
]


def lost(attempt: int) -> PreviousAttempt:
    """What an attempt went like that has done nothing yet."""
    return PreviousAttempt(attempt=attempt, text="", reason="its worker was lost")


class FakeStore:
    """Sessions, messages and runs in dictionaries; ``seq`` is the last fact it appended."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.seq = 0
        self.sessions: dict[str, Session] = {}
        self.messages: dict[str, list[Message]] = {}
        self.runs: dict[str, Run] = {}
        self.turns: dict[str, Turn] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.jobs = FakeJobs(self)
        self.accounts = FakeAccounts(self)
        self.models = FakeModels(self)
        self.workers = FakeWorkers(self)
        self.requests: list[c.Request] = []
        """Everything but whose a token is."""
        self._accepted_one = asyncio.Event()
        self.on_cancel: Callable[[str], Awaitable[None]] | None = None
        """What becomes of a run that is cancelled; nothing yet, unless a test says it."""
        self.went: dict[int, PreviousAttempt] = {}
        """What each attempt wrote, and when; as workers remember it for the log."""
        self.archived = False
        """Whether the facts are read from the cold log, or left to the hot one."""

    async def serve(self, *kinds: type[c.Request]) -> None:
        """Answer these requests, or all, until the bus is closed."""
        await self.bus.serve(
            "store", {store_command(kind.name): self._endpoint(kind) for kind in kinds or _COMMANDS}
        )

    def _endpoint(self, kind: type[c.Request]) -> Callable[[bytes], Any]:
        parts = (self, self.jobs, self.models, self.accounts)
        handler = next(getattr(part, kind.name) for part in parts if hasattr(part, kind.name))

        async def answer(data: bytes) -> bytes:
            request = msgspec.json.decode(data, type=kind)
            if kind is not c.CheckToken:
                self.requests.append(request)
            return msgspec.json.encode(await handler(request))

        return answer

    # -- commands ---------------------------------------------------------------

    async def create_session(self, q: c.CreateSession) -> c.SessionAnswer:
        at = now()
        fields = {f: getattr(q, f) for f in SessionCreated.__struct_fields__ if hasattr(q, f)}
        created = SessionCreated(at=at, **fields)
        await self.session_fact(q.user_id, q.session_id, "session.created", created)
        self.messages[q.session_id] = []
        self.sessions[q.session_id] = Session(
            id=q.session_id,
            user_id=q.user_id,
            status="active",
            message_count=0,
            created_at=at,
            updated_at=at,
            last_message_at=None,
            **fields,
        )
        return self._session(q.user_id, q.session_id)

    async def update_session(self, q: c.UpdateSession) -> c.SessionAnswer:
        self._session(q.user_id, q.session_id)
        change = {
            f: value
            for f in q.__struct_fields__
            if f in SessionUpdated.__struct_fields__
            and (value := getattr(q, f)) is not msgspec.UNSET
        }
        fact = SessionUpdated(at=now(), **change)
        await self.session_fact(q.user_id, q.session_id, "session.updated", fact)
        known = self.sessions[q.session_id]
        self.sessions[q.session_id] = msgspec.structs.replace(known, updated_at=fact.at, **change)
        return self._session(q.user_id, q.session_id)

    async def delete_session(self, q: c.DeleteSession) -> c.Done:
        self._session(q.user_id, q.session_id)
        for run in self._unfinished(q.session_id):
            await self.end(run.id, "", status="cancelled", attempt=run.attempt)
        gone = SessionDeleted(at=now(), mode=self.sessions.pop(q.session_id).mode)
        await self.session_fact(q.user_id, q.session_id, "session.deleted", gone)
        return c.Done(seq=self.seq)

    async def send_message(self, q: c.SendMessage) -> c.Accepted:
        session = self._session(q.user_id, q.session_id).session
        if session.status == "inactive":
            raise Conflict("The session is inactive.")
        if q.run_id in self.runs:
            return self._accepted(q.run_id)
        if q.idempotency_key in self.keys:
            run_id, content = self.keys[q.idempotency_key]
            if content != q.content:
                raise KeyReused("This key came with another message.")
            return self._accepted(run_id, repeated=True)
        turn = Turn(
            user_message_id=new_id(),
            assistant_message_id=new_id(),
            content=q.content,
            model=q.model,
            client_id=q.client_id,
            idempotency_key=q.idempotency_key,
        )
        accepted = await self._begin(q.user_id, q.session_id, turn, q.run_id)
        if q.idempotency_key:
            self.keys[q.idempotency_key] = (accepted.run.id, q.content)
        return accepted

    async def regenerate(self, q: c.Regenerate) -> c.Accepted:
        everything = [m for messages in self.messages.values() for m in messages]
        found = [m for m in everything if q.message_id in (None, m.id)]
        found = [m for m in found if q.session_id in (None, m.session_id)]
        if not found:
            raise NotFound("There is no such message.")
        user_message_id = found[-1].parent_id if found[-1].role == "assistant" else found[-1].id
        turn = Turn(
            user_message_id=user_message_id or "", assistant_message_id=new_id(), content=None
        )
        return await self._begin(q.user_id, found[-1].session_id, turn, q.run_id)

    async def cancel_run(self, q: c.CancelRun) -> c.RunAnswer:
        run = (await self.get_run(c.GetRun(user_id=q.user_id, run_id=q.run_id))).run
        if run.ended_at is None:
            fact = CancelRequested(at=now())
            self.seq = await extend(
                self.bus, self._address(run.id).fact("cancel"), fact, expected=run.last_seq
            )
            self.change(run.id, last_seq=self.seq, cancelled=True)
            if self.on_cancel is not None:
                await self.on_cancel(run.id)
        return c.RunAnswer(run=self.runs[run.id], seq=self.seq)

    # -- queries ----------------------------------------------------------------

    async def get_session(self, q: c.GetSession) -> c.SessionAnswer:
        return self._session(q.user_id, q.session_id)

    async def list_sessions(self, q: c.ListSessions) -> c.SessionPage:
        hidden = ("adhoc", "document", "content")
        found = [
            session
            for session in reversed(self.sessions.values())
            if session.user_id == q.user_id
            and q.status in (None, session.status)
            and (session.mode in q.modes if q.modes else session.mode not in hidden)
        ]
        start = q.offset if q.before is None else len(found) - q.before
        shown = found[start : start + q.limit]
        left = len(found) - start - len(shown)
        return c.SessionPage(items=shown, next=left or None, total=len(found), seq=self.seq)

    async def list_messages(self, q: c.ListMessages) -> c.MessagePage:
        self._session(q.user_id, q.session_id)
        found = self.messages[q.session_id]
        found = found[::-1] if q.descending else found
        page = found[q.offset : q.offset + q.limit]
        return c.MessagePage(items=page, total=len(found), seq=self.seq)

    async def get_message(self, q: c.GetMessage) -> c.MessageAnswer:
        everything = (m for messages in self.messages.values() for m in messages)
        found = next((m for m in everything if m.id == q.message_id), None)
        if found is None:
            raise NotFound("There is no such message.")
        return c.MessageAnswer(message=found, seq=self.seq)

    async def get_run(self, q: c.GetRun) -> c.RunAnswer:
        if q.run_id not in self.runs:
            raise NotFound("There is no such run.")
        return c.RunAnswer(run=self.runs[q.run_id], seq=self.seq)

    async def get_facts(self, q: c.GetFacts) -> c.Facts:
        session = self._session(q.user_id, q.session_id).session
        if not self.archived:
            return c.Facts(facts=[], upto=0)
        address = session_address(session.user_id, session.id)
        stored = await self.bus.read(EVENTS, address.session_facts, after=q.after, limit=q.limit)
        facts = [StoredFact(seq=s, subject=j, data=msgspec.Raw(d)) for s, j, d in stored]
        return c.Facts(facts=facts, upto=self.seq)

    async def open_feed(self, q: c.OpenFeed) -> c.FeedState:
        session = self._session(q.user_id, q.session_id).session
        unfinished = [
            c.UnfinishedRun(
                run_id=run.id,
                user_message=self._message(run.session_id, run.user_message_id),
                assistant_message_id=run.assistant_message_id or "",
                attempt=run.attempt,
                waiting=index > 0,
            )
            for index, run in enumerate(self._unfinished(session.id))
        ]
        return c.FeedState(session=session, unfinished=unfinished, seq=self.seq)

    async def latest(self) -> str:
        """The last run that was begun; a client may hear of it before the store has noted it."""
        async with asyncio.timeout(_DEADLINE):
            await self._accepted_one.wait()
        return next(reversed(self.runs))

    # -- the worker ---------------------------------------------------------------

    async def claim(
        self, run_id: str, *, prompt: PromptSource | None = None, fault: Fault | None = None
    ) -> int:
        """Begin an attempt, because the one before had this fault if any; answers its id."""
        if run_id not in self.runs:  # its first fact may be heard of before it is noted here
            await self.latest()
        previous = self.went.get(self.runs[run_id].attempt)
        if previous is not None and fault is not None:
            reason = "the provider failed"
            previous = msgspec.structs.replace(previous, reason=reason, fault=fault)
        fact = RunClaimed(at=now(), worker="w", todo=0, prompt=prompt, previous=previous)
        attempt = await self._run_fact(run_id, "claim", fact)
        self.change(run_id, attempt=attempt, status="running")
        return attempt

    async def write(self, run_id: str, offset: int, text: str, *, attempt: int = 0) -> None:
        """Publish one delta, of the latest attempt unless told otherwise."""
        delta = Delta(attempt=attempt or self.runs[run_id].attempt, offset=offset, text=text)
        before = self.went.get(delta.attempt) or lost(delta.attempt)
        whole = before.text[:offset] + text
        point = (10 * (len(before.timeline) + 1), len(whole))
        self.went[delta.attempt] = msgspec.structs.replace(
            before, text=whole, timeline=[*before.timeline, point]
        )
        await self.bus.store(self._address(run_id).tokens, encode(delta))

    async def end(
        self,
        run_id: str,
        text: str,
        *,
        status: EndStatus = "completed",
        attempt: int | None = None,
        error: Fault | None = None,
    ) -> RunEnded:
        """End the run, keep its reply, and begin the next that waits."""
        run = self.runs[run_id]
        final = RunEnded(
            at=now(),
            status=status,
            attempt=run.attempt if attempt is None else attempt,
            text=text,
            length=len(text),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            model="demo",
            usage=Usage(input_tokens=1, output_tokens=len(text)),
            error=error,
            latency_ms=5,
            timeline=self.timeline_of(run.attempt if attempt is None else attempt),
        )
        # The rows first: a client that hears of the end may ask at once.
        self.change(run_id, status=status, ended_at=final.at, sha256=final.sha256)
        self.change(run_id, length=final.length, usage=final.usage, error=error)
        await self._run_fact(run_id, "final", final)
        self.messages[run.session_id].append(self._reply(run, final))
        await self._dispatch(run.session_id)
        return final

    def timeline_of(self, attempt: int) -> Timeline:
        return self.went[attempt].timeline if attempt in self.went else []

    # -- below --------------------------------------------------------------------

    def _session(self, user: str, session_id: str) -> c.SessionAnswer:
        session = self.sessions.get(session_id)
        if session is None or session.user_id != user:
            raise NotFound("There is no such session.")
        return c.SessionAnswer(session=session, seq=self.seq)

    def _unfinished(self, session_id: str) -> list[Run]:
        return [r for r in self.runs.values() if r.session_id == session_id and not r.ended_at]

    def _message(self, session_id: str, message_id: str | None) -> Message:
        return next(m for m in self.messages[session_id] if m.id == message_id)

    def _accepted(self, run_id: str, *, repeated: bool = False) -> c.Accepted:
        run = self.runs[run_id]
        return c.Accepted(
            run=run,
            user_message=self._message(run.session_id, run.user_message_id),
            assistant_message_id=run.assistant_message_id or "",
            seq=self.seq,
            repeated=repeated,
        )

    def _address(self, run_id: str) -> Address:
        run = self.runs[run_id]
        return Address(self.sessions[run.session_id].user_id, run.session_id, run_id)

    async def _begin(self, user: str, session_id: str, turn: Turn, run_id: str) -> c.Accepted:
        self._accepted_one.clear()
        session, at = self.sessions[session_id], now()
        waiting = bool(self._unfinished(session_id))
        if waiting and session.on_busy == "reject":
            raise Conflict("A reply is being written.")
        address = Address(user, session_id, run_id)
        fact: Fact = RunWaiting(at=at, turn=turn) if waiting else TodoChat(at=at, n=0, turn=turn)
        subject = address.fact("waiting") if waiting else address.todo_chat(0)
        seq = await self._append(address, subject, fact)
        if turn.content is not None:
            self.messages[session_id].append(
                Message(
                    id=turn.user_message_id,
                    session_id=session_id,
                    parent_id=None,
                    role="user",
                    content=turn.content,
                    tokens=None,
                    latency_ms=None,
                    created_at=at,
                    status="waiting" if waiting else "completed",
                    feedback=None,
                    attachments=[],
                    model=None,
                    run_id=run_id,
                )
            )
        self.turns[run_id] = turn
        self.runs[run_id] = Run(
            id=run_id,
            session_id=session_id,
            status="queued",
            attempt=0,
            sha256=None,
            length=None,
            usage=None,
            error=None,
            created_at=at,
            ended_at=None,
            user_message_id=turn.user_message_id,
            assistant_message_id=turn.assistant_message_id,
            first_seq=seq,
            last_seq=seq,
            cancelled=False,
        )
        self._accepted_one.set()
        return self._accepted(run_id)

    async def _dispatch(self, session_id: str) -> None:
        for run in self._unfinished(session_id)[:1]:
            address = self._address(run.id)
            fact = TodoChat(at=now(), n=0, turn=self.turns[run.id])
            await self._append(address, address.todo_chat(0), fact)
            self.change(run.id, last_seq=self.seq)

    async def session_fact(self, user: str, session_id: str, what: str, fact: Fact) -> None:
        address = session_address(user, session_id)
        await self._append(address, address.fact(what), fact)

    async def _append(self, address: Address, subject: str, fact: Fact) -> int:
        head = await self.bus.head(EVENTS, address.session_facts)
        expected = head.seq if head else 0
        self.seq = await extend(self.bus, subject, fact, expected=expected, scope=Scope.SESSION)
        return self.seq

    async def _run_fact(self, run_id: str, what: str, fact: Fact) -> int:
        head = await self.bus.head(EVENTS, self._address(run_id).facts)
        assert head
        subject = self._address(run_id).fact(what)
        self.seq = await extend(self.bus, subject, fact, expected=head.seq)
        self.change(run_id, last_seq=self.seq)
        return self.seq

    def change(self, run_id: str, **fields: Any) -> None:
        self.runs[run_id] = msgspec.structs.replace(self.runs[run_id], **fields)

    def _reply(self, run: Run, final: RunEnded) -> Message:
        return Message(
            id=run.assistant_message_id or "",
            session_id=run.session_id,
            parent_id=run.user_message_id,
            role="assistant",
            content=final.text,
            tokens=final.usage.output_tokens if final.usage else None,
            latency_ms=final.latency_ms,
            created_at=final.at,
            status=final.status,
            feedback=None,
            attachments=[],
            model=final.model,
            run_id=run.id,
        )
