"""An in-memory twin of nats-server, as far as natterlog uses it.

Time stands still here until a test calls :meth:`MemoryNats.advance`.  What the
twin says is held against the real server in ``tests/contract``.
"""

import base64
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol

import msgspec

from shared.bus import Incoming


class Client(Protocol):
    """The far end of a connection."""

    @property
    def up(self) -> bool: ...

    def hand_over(self, sid: int, message: Incoming) -> None:
        """A message came for the subscription ``sid``."""
        ...

    def lost(self, reply: str) -> None:
        """No answer will ever come to ``reply``."""
        ...


class Subscription(NamedTuple):
    client: Client
    sid: int
    subject: str
    queue: str


class MemoryNats:
    """One server: its subscriptions, its streams, and switches for its bad days."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.subscriptions: list[Subscription] = []
        self.now = 0.0
        self._to_refuse = 0
        self._to_lose = 0
        self._held: list[Callable[[], None]] | None = None

    # -- switches -----------------------------------------------------------------

    def refuse(self, n: int) -> None:
        """Answer the next ``n`` appends as a stream without a leader does: nothing is stored."""
        self._to_refuse = n

    def lose_answers(self, n: int) -> None:
        """Store the next ``n`` appends and never say so: their publishers time out at once."""
        self._to_lose = n

    def hold_answers(self) -> None:
        """Store appends, and keep the answers back until :meth:`release_answers`."""
        self._held = []

    def release_answers(self) -> None:
        held, self._held = self._held or [], None
        for answer in held:
            answer()

    def forget(self, stream: str) -> None:
        """Lose a stream's messages and its sequence, as an asynchronous one may at a crash."""
        self.streams[stream].messages.clear()
        self.streams[stream].last = 0

    def advance(self, seconds: float) -> None:
        """Let time pass: what is due is delivered again, and pulls expire."""
        self.now += seconds
        for durable in self._durables():
            durable.expire()
            durable.pump()

    # -- what the wire does ---------------------------------------------------------

    def receive(
        self, client: Client, subject: str, data: bytes, reply: str, headers: bytes
    ) -> None:
        """A client published."""
        heard = self.deliver(Incoming(subject, reply, data, headers))
        stream = next((s for s in self.streams.values() if s.takes(subject)), None)
        if subject.startswith("$JS.API."):
            self._call(subject.removeprefix("$JS.API."), data, reply)
        elif subject.startswith("$JS.ACK."):
            for durable in self._durables():
                durable.acked(subject, data)
        elif stream is not None:
            self._append(stream, client, Incoming(subject, reply, data, headers))
        elif reply and not heard:
            self.answer(reply, status="503")

    def deliver(self, message: Incoming, *, to: str | None = None) -> bool:
        """Hand a message to all who listen on its subject, or on ``to``; False if nobody does."""
        heard = [
            s
            for s in self.subscriptions
            if s.client.up and matches(s.subject, to or message.subject)
        ]
        one_a_queue = {s.queue or s.sid: s for s in heard}
        for subscription in one_a_queue.values():
            subscription.client.hand_over(subscription.sid, message)
        return bool(heard)

    def is_heard(self, subject: str) -> bool:
        return any(s.client.up and matches(s.subject, subject) for s in self.subscriptions)

    def answer(self, reply: str, data: bytes = b"", *, status: str = "", **headers: object) -> None:
        self.deliver(Incoming(reply, "", data, header_bytes(status, headers)))

    # -- JetStream ------------------------------------------------------------------

    def _append(self, stream: "Stream", client: Client, message: Incoming) -> None:
        if self._to_refuse:
            self._to_refuse -= 1
            return self.answer(message.reply, status="503")
        expected = message.header(b"Nats-Expected-Last-Subject-Sequence")
        chain = message.header(b"Nats-Expected-Last-Subject-Sequence-Subject")
        last = stream.last_of(chain or message.subject)
        if expected is not None and int(expected) != (last.seq if last else 0):
            return self.answer(message.reply, _failed(Refused(10071, "wrong last sequence")))
        seq = stream.add(message.subject, message.data, rollup=b"Nats-Rollup" in message.headers)
        if stream.is_republished(message.subject):
            headers = header_bytes("", {"Nats_Subject": message.subject, "Nats_Sequence": seq})
            self.deliver(Incoming(f"live.{message.subject}", "", message.data, headers))
        for durable in stream.durables.values():
            durable.pump()
        if self._to_lose:
            self._to_lose -= 1
            return client.lost(message.reply)
        ack = msgspec.json.encode({"stream": stream.name, "seq": seq})
        if self._held is not None:
            return self._held.append(lambda: self.answer(message.reply, ack))
        return self.answer(message.reply, ack)

    def _call(self, call: str, data: bytes, reply: str) -> None:
        query: dict[str, Any] = msgspec.json.decode(data) if data else {}
        verb = next((verb for verb in _CALLS if call.startswith(f"{verb}.")), None)
        if verb is None:
            return self.answer(reply, status="503")
        name, *rest = call.removeprefix(f"{verb}.").split(".")
        if verb == "STREAM.CREATE":
            self.streams[name] = Stream(self, name, query)
        try:
            if name not in self.streams:
                raise Refused(10059, "stream not found")
            answer = _CALLS[verb](self.streams[name], query, reply, *rest)
        except Refused as refused:
            self.answer(reply, _failed(refused))
        else:
            if answer is not None:
                self.answer(reply, msgspec.json.encode(answer))

    def _durables(self) -> "list[Durable]":
        return [d for stream in self.streams.values() for d in stream.durables.values()]


class Refused(Exception):
    """JetStream's API says no."""

    def __init__(self, err_code: int, description: str) -> None:
        super().__init__(description)
        self.err_code = err_code


class Message(NamedTuple):
    seq: int
    subject: str
    data: bytes


@dataclass
class Stream:
    """A stream, and a method for each call of JetStream's API about it."""

    server: MemoryNats
    name: str
    config: dict[str, Any]
    messages: dict[int, Message] = field(default_factory=dict)
    durables: "dict[str, Durable]" = field(default_factory=dict)
    last: int = 0

    def takes(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.config["subjects"])

    def is_republished(self, subject: str) -> bool:
        return "republish" in self.config and matches(self.config["republish"]["src"], subject)

    def add(self, subject: str, data: bytes, *, rollup: bool) -> int:
        if rollup or self.config.get("max_msgs_per_subject") == 1:
            self._erase(list(self.find(subject)))
        self.last += 1
        self.messages[self.last] = Message(self.last, subject, data)
        return self.last

    def find(self, pattern: str, start: int = 0) -> Iterator[Message]:
        """The messages under ``pattern`` from ``start`` on, oldest first."""
        return (m for m in self.messages.values() if m.seq >= start and matches(pattern, m.subject))

    def last_of(self, pattern: str) -> Message | None:
        newest_first = reversed(self.messages.values())
        return next((m for m in newest_first if matches(pattern, m.subject)), None)

    def _erase(self, messages: list[Message]) -> None:
        for message in messages:
            del self.messages[message.seq]

    # -- JetStream's API ------------------------------------------------------------

    def info(self, query: dict[str, Any], reply: str) -> dict[str, Any]:
        first = next(iter(self.messages), self.last + 1)
        state: dict[str, Any] = {
            "messages": len(self.messages),
            "first_seq": first,
            "last_seq": self.last,
        }
        if "subjects_filter" in query:
            state["subjects"] = Counter(m.subject for m in self.find(query["subjects_filter"]))
        return {"config": self.config, "state": state}

    def purge(self, query: dict[str, Any], reply: str) -> dict[str, Any]:
        gone = list(self.find(query.get("filter", ">")))
        self._erase(gone)
        return {"success": True, "purged": len(gone)}

    def delete(self, query: dict[str, Any], reply: str) -> dict[str, Any]:
        if self.messages.pop(query["seq"], None) is None:
            raise Refused(10043, f"sequence {query['seq']} not found")
        return {"success": True}

    def get(self, query: dict[str, Any], reply: str) -> dict[str, Any]:
        if "last_by_subj" in query:
            found = self.last_of(query["last_by_subj"])
        else:
            found = next(self.find(query["next_by_subj"], query["seq"]), None)
        if found is None:
            raise Refused(10037, "no message found")
        return {"message": found._asdict() | {"data": base64.b64encode(found.data).decode()}}

    def direct_get(self, query: dict[str, Any], reply: str) -> None:
        found = list(self.find(query["next_by_subj"], query["seq"]))[: query["batch"]]
        for seq, subject, data in found:
            self.server.answer(reply, data, Nats_Subject=subject, Nats_Sequence=seq)
        self.server.answer(reply, status="204 EOB" if found else "404 Message Not Found")

    def create_consumer(self, query: dict[str, Any], reply: str, name: str) -> dict[str, Any]:
        self.durables.setdefault(name, Durable(self, name, query["config"]))
        return {"name": name, "config": query["config"]}

    def delete_consumer(self, query: dict[str, Any], reply: str, name: str) -> dict[str, Any]:
        self.durables.pop(name).end()
        return {"success": True}

    def pull(self, query: dict[str, Any], reply: str, name: str) -> None:
        if name not in self.durables:
            return self.server.answer(reply, status="503")
        expires = self.server.now + query["expires"] / 1e9
        return self.durables[name].pull(Pull(reply, query["batch"], expires))


_CALLS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "STREAM.CREATE": Stream.info,
    "STREAM.INFO": Stream.info,
    "STREAM.PURGE": Stream.purge,
    "STREAM.MSG.DELETE": Stream.delete,
    "STREAM.MSG.GET": Stream.get,
    "DIRECT.GET": Stream.direct_get,
    "CONSUMER.DURABLE.CREATE": Stream.create_consumer,
    "CONSUMER.DELETE": Stream.delete_consumer,
    "CONSUMER.MSG.NEXT": Stream.pull,
}


@dataclass
class Pull:
    reply: str
    batch: int
    expires: float


@dataclass
class Handed:
    """A delivery that was not acked yet; ``due``: when it is delivered again."""

    times: int = 0
    due: float = 0.0


class Durable:
    """A durable pull consumer with explicit acks."""

    def __init__(self, stream: Stream, name: str, config: dict[str, Any]) -> None:
        self._stream = stream
        self._server = stream.server
        self._name = name
        self._filters: list[str] = config["filter_subjects"]
        self._ack_wait = config["ack_wait"] / 1e9
        self._read = 0
        self._handed: dict[int, Handed] = {}
        self._pulls: deque[Pull] = deque()

    @property
    def unacked(self) -> set[int]:
        return set(self._handed)

    @property
    def owed(self) -> int:
        """How many messages somebody asked for and may still get."""
        return sum(pull.batch for pull in self._pulls if self._server.is_heard(pull.reply))

    def pull(self, pull: Pull) -> None:
        self._pulls.append(pull)
        self.pump()

    def pump(self) -> None:
        """Deliver what may be delivered, as long as somebody asks for it."""
        while self._pulls:
            pull = self._pulls[0]
            if not pull.batch or not self._server.is_heard(pull.reply):
                self._pulls.popleft()
                continue
            message = self._next()
            if message is None:
                return
            pull.batch -= 1
            handed = self._handed.setdefault(message.seq, Handed())
            handed.times += 1
            handed.due = self._server.now + self._ack_wait
            ack = f"{self._acks}.{handed.times}.{message.seq}.1.1.0"
            self._server.deliver(Incoming(message.subject, ack, message.data, b""), to=pull.reply)

    def _next(self) -> Message | None:
        for seq, handed in list(self._handed.items()):
            if seq not in self._stream.messages:
                del self._handed[seq]
            elif handed.due <= self._server.now:
                return self._stream.messages[seq]
        for message in self._stream.find(">", self._read + 1):
            self._read = message.seq
            if any(matches(pattern, message.subject) for pattern in self._filters):
                return message
        return None

    @property
    def _acks(self) -> str:
        return f"$JS.ACK.{self._stream.name}.{self._name}"

    def acked(self, subject: str, answer: bytes) -> None:
        seq = int(subject.split(".")[5])
        if not subject.startswith(f"{self._acks}.") or seq not in self._handed:
            return
        word, _, rest = answer.partition(b" ")
        if word == b"-NAK":
            delay = msgspec.json.decode(rest)["delay"] if rest else 0
            self._handed[seq].due = self._server.now + delay / 1e9
        elif word == b"+WPI":
            self._handed[seq].due = self._server.now + self._ack_wait
        else:
            del self._handed[seq]
        self.pump()

    def expire(self) -> None:
        for pull in [p for p in self._pulls if p.expires <= self._server.now]:
            self._pulls.remove(pull)
            self._server.answer(
                pull.reply, status="408 Request Timeout", Nats_Pending_Messages=pull.batch
            )

    def end(self) -> None:
        for pull in self._pulls:
            self._server.answer(pull.reply, status="409 Consumer Deleted")


def _failed(refused: Refused) -> bytes:
    error = {"err_code": refused.err_code, "description": str(refused)}
    return msgspec.json.encode({"error": error})


def header_bytes(status: str, headers: dict[str, Any]) -> bytes:
    """Headers as the wire has them; an underscore in a name stands for a hyphen."""
    if not status and not headers:
        return b""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"NATS/1.0 {status}".rstrip().encode() + b"\r\n" + "".join(lines).encode() + b"\r\n"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    tokens = {"*": r"[^.]+", ">": r".+"}
    return re.compile(r"\.".join(tokens.get(t, re.escape(t)) for t in pattern.split(".")))


def matches(pattern: str, subject: str) -> bool:
    """Whether the subject, or the narrower pattern, falls under ``pattern``."""
    return pattern == subject or _compiled(pattern).fullmatch(subject) is not None
