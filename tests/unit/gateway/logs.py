"""A log and a store in memory, for feeds: what is stored and what is delivered are two things."""

import hashlib
from typing import Any

import msgspec

from services.gateway.sessions.feed import Feed
from shared.bus import Incoming, Stored
from shared.commands import Facts, FeedState, GetFacts, GetRun, OpenFeed, RunAnswer, UnfinishedRun
from shared.events import Delta, Fact, RunClaimed, RunEnded, RunWaiting, TodoChat, Turn, encode
from shared.ids import new_id, now
from shared.records import Message, Run, Session, StoredFact
from shared.subjects import EVENTS, Address

AT = now()
USER, SESSION = new_id(), new_id()


class Log:
    """Plays the bus and the store of one session."""

    def __init__(self) -> None:
        self.facts: list[Stored] = []
        self.deltas: list[Stored] = []
        self.reads = 0
        self.run_id = ""
        self._turn: Turn | None = None

    # -- writing ------------------------------------------------------------------

    def turn(self, content: str = "Hello", *, waiting: bool = False) -> Stored:
        self.run_id = new_id()
        self._turn = Turn(user_message_id=new_id(), assistant_message_id=new_id(), content=content)
        return self.wait() if waiting else self.begin()

    def wait(self) -> Stored:
        assert self._turn
        return self._store("waiting", RunWaiting(at=AT, turn=self._turn))

    def begin(self) -> Stored:
        assert self._turn
        return self._store("todo.chat.0", TodoChat(at=AT, n=0, turn=self._turn))

    def claim(self) -> Stored:
        return self._store("claim", RunClaimed(at=AT, worker="w", todo=0, prompt=None))

    def end(self, text: str, *, attempt: int) -> Stored:
        final = RunEnded(
            at=AT,
            status="completed",
            attempt=attempt,
            text=text,
            length=len(text),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        return self._store("final", final)

    def delta(self, attempt: int, offset: int, text: str) -> Stored:
        data = encode(Delta(attempt=attempt, offset=offset, text=text))
        subject = Address(USER, SESSION, self.run_id).tokens
        self.deltas.append(Stored(len(self.deltas) + 1, subject, data))
        return self.deltas[-1]

    def _store(self, what: str, fact: Fact) -> Stored:
        subject = Address(USER, SESSION, self.run_id).fact(what)
        before = [s.seq for s in self.facts if f".{self.run_id}." in s.subject]
        fact = msgspec.structs.replace(fact, prev=before[-1] if before else 0)
        seq = (self.facts[-1].seq if self.facts else 0) + 3
        self.facts.append(Stored(seq, subject, encode(fact)))
        return self.facts[-1]

    # -- the bus ------------------------------------------------------------------

    async def listen(self, subject: str, callback: object) -> Any:
        del subject, callback
        return self

    listen_live = listen

    async def close(self) -> None:
        pass

    async def wait_connected(self) -> None:
        pass

    async def read(
        self, stream: str, subject: str, *, after: int = 0, limit: int = 1000
    ) -> list[Stored]:
        self.reads += 1
        if stream == EVENTS:
            return [s for s in self.facts if s.seq > after][:limit]
        return [s for s in self.deltas if s.seq > after and s.subject == subject][:limit]

    async def head(self, stream: str, subject: str) -> Stored | None:
        assert stream == EVENTS
        found = [s for s in self.facts if s.subject.startswith(subject.removesuffix(">"))]
        return found[-1] if found else None

    # -- the store ------------------------------------------------------------------

    async def ask(self, question: object) -> Any:
        match question:
            case OpenFeed():
                return self._state()
            case GetFacts(after=after):
                found = [
                    StoredFact(seq=s.seq, subject=s.subject, data=msgspec.Raw(s.data))
                    for s in self.facts
                    if s.seq > after
                ]
                return Facts(facts=found[:2], upto=self.facts[-1].seq)
            case GetRun(run_id=run_id):
                return RunAnswer(run=self._run(run_id), seq=self.facts[-1].seq)
            case _:
                raise AssertionError(question)

    def _state(self) -> FeedState:
        ended = any(s.subject.endswith(".final") for s in self.facts if self.run_id in s.subject)
        claims = [s.seq for s in self.facts if s.subject.endswith(".claim")]
        unfinished: list[UnfinishedRun] = []
        if self.facts and not ended:
            assert self._turn
            unfinished = [
                UnfinishedRun(
                    run_id=self.run_id,
                    user_message=_message(self._turn),
                    assistant_message_id=self._turn.assistant_message_id,
                    attempt=claims[-1] if claims else 0,
                    waiting=self.facts[-1].subject.endswith(".waiting"),
                )
            ]
        seq = self.facts[-1].seq if self.facts else 0
        return FeedState(session=SESSION_RECORD, unfinished=unfinished, seq=seq)

    def _run(self, run_id: str) -> Run:
        assert self._turn
        own = [s.seq for s in self.facts if run_id in s.subject]
        return Run(
            id=run_id,
            session_id=SESSION,
            status="running",
            attempt=0,
            sha256=None,
            length=None,
            usage=None,
            error=None,
            created_at=AT,
            ended_at=None,
            user_message_id=self._turn.user_message_id,
            assistant_message_id=self._turn.assistant_message_id,
            first_seq=own[0],
            last_seq=own[-1],
            cancelled=False,
        )


def _message(turn: Turn) -> Message:
    return Message(
        id=turn.user_message_id,
        session_id=SESSION,
        parent_id=None,
        role="user",
        content=turn.content or "",
        tokens=None,
        latency_ms=None,
        created_at=AT,
        status="completed",
        feedback=None,
        attachments=[],
        model=None,
        run_id=None,
    )


SESSION_RECORD = Session(
    id=SESSION,
    user_id=USER,
    title=None,
    mode="general",
    status="active",
    model=None,
    temperature=None,
    max_tokens=None,
    system_prompt=None,
    context_tags=[],
    on_busy="queue",
    enable_tools=False,
    client_ref=None,
    message_count=0,
    created_at=AT,
    updated_at=AT,
    last_message_at=None,
)


def feed_of(log: Log) -> Feed:
    """A feed over ``log``, not yet opened."""
    return Feed(log, log, USER, SESSION)  # type: ignore[arg-type]


def live(stored: Stored) -> Incoming:
    """The delta as it is republished."""
    return Incoming(f"live.{stored.subject}", "", stored.data, b"")
