"""What natterlog asks of NATS: appends, reads, live facts, requests between services.

Everything above it sees bytes, subjects and sequences.  An append is checked by
the server against the chain that its subject belongs to (architecture.md, law 3); what a
time-out or a refusal means is decided in :mod:`shared.chain`, not here.
"""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from shared import errors
from shared.connection import Connection, Listening, MicroRequest
from shared.log import get_logger
from shared.responding import (
    FRAME,
    WireError,
    flooded,
    respond,
    respond_error,
    restarting,
    unanswered,
)
from shared.subjects import LIVE, Scope, chain_filter
from shared.wire import BusClosed, BusError, Incoming, NoAnswer, NoResponders, Unsendable

__all__ = [
    "FRAME",
    "ApiError",
    "Bus",
    "BusClosed",
    "BusError",
    "Incoming",
    "Listening",
    "NoAnswer",
    "NoResponders",
    "Unsendable",
]

log = get_logger()

_AT_ONCE = 8 * 1024 * 1024
"""Bytes of a batch: nats-server hangs up on whoever does not take what it sends fast enough."""
RESTART = 5.0
"""Seconds that a service is given to come back when nobody listens."""
MAX_REQUESTS = 256
"""Requests that a service works on at a time unless it says otherwise; more are answered 503."""
_PONGS = 0.25
"""Seconds in which the instances of a service say that they are there."""


class WrongSequence(BusError):
    """The chain's head is not the expected one (10071): nothing was stored."""


class ApiError(BusError):
    """The server refused; ``err_code`` is JetStream's own number."""

    def __init__(self, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.err_code = err_code


class Stored(NamedTuple):
    """A message read back from a stream."""

    seq: int
    subject: str
    data: bytes


class _PubError(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    seq: int = 0
    error: _PubError | None = None


class _Pong(msgspec.Struct):
    id: str


class _StoredMessage(msgspec.Struct):
    subject: str
    seq: int
    data: str = ""


class _GetAnswer(msgspec.Struct):
    message: _StoredMessage | None = None
    error: _PubError | None = None


_decode_ack = msgspec.json.Decoder(_PubAck).decode
_decode_get = msgspec.json.Decoder(_GetAnswer).decode


class Bus(Connection):
    """The verbs of the log and of the services, over one connection."""

    def __init__(self, url: str, *, name: str) -> None:
        super().__init__(url, name=name)
        self._requests: set[asyncio.Task[None]] = set()

    # -- the log ------------------------------------------------------------------

    def append_soon(
        self,
        subject: str,
        data: bytes,
        done: Callable[[int | BusError], None],
        *,
        expected: int,
        timeout: float = 5.0,
    ) -> None:
        """Append to the run's chain; ``done`` gets the sequence or what went wrong.

        Raises:
            NoAnswer: it could not even be sent.
        """
        headers = _expectation(subject, expected, Scope.RUN)
        self.call_soon(subject, data, lambda m: done(_acked(m)), headers=headers, timeout=timeout)

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        expected: int,
        scope: Scope = Scope.RUN,
        timeout: float = 5.0,
    ) -> int:
        """Append if the chain's head is ``expected``, and answer the new sequence.

        Raises:
            WrongSequence: the chain has another head; nothing was stored.
            NoAnswer: it may have been stored, or not.
            ApiError: the server refused for another reason.
        """
        headers = _expectation(subject, expected, scope)
        try:
            message = await self.call(subject, data, headers=headers, timeout=timeout)
        except NoResponders as error:
            # A stream whose leader is just being elected answers nobody.
            raise NoAnswer(str(error)) from error
        result = _acked(message)
        if isinstance(result, BusError):
            raise result
        return result

    async def store(self, subject: str, data: bytes, *, rollup: bool = False) -> int:
        """Store a message that belongs to no chain; ``rollup`` replaces its subject's others.

        Raises:
            NoAnswer, ApiError: it is not known to be stored.
        """
        headers = b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n" if rollup else b""
        result = _acked(await self.call(subject, data, headers=headers))
        if isinstance(result, BusError):
            raise result
        return result

    async def schedule(self, subject: str, data: bytes, *, at: datetime, target: str) -> int:
        """Let the server append ``data`` under ``target`` at a time (UTC), at once if it is over.

        One schedule a subject: another one replaces it.  Neither ever expires.

        Raises:
            NoAnswer, ApiError: it is not known to be kept.
        """
        headers = (
            f"NATS/1.0\r\nNats-Schedule: @at {at:%Y-%m-%dT%H:%M:%S.%fZ}\r\n"
            f"Nats-Schedule-Target: {target}\r\n"
            "Nats-Schedule-TTL: never\r\nNats-TTL: never\r\n\r\n"
        ).encode()
        result = _acked(await self.call(subject, data, headers=headers))
        if isinstance(result, BusError):
            raise result
        return result

    async def head(self, stream: str, subject_filter: str) -> Stored | None:
        """The last message under ``subject_filter``, asked of the leader.

        Raises:
            NoAnswer, ApiError: it could not be read.
        """
        return await self._get(stream, {"last_by_subj": subject_filter})

    async def facts_after(self, stream: str, subject_filter: str, after: int) -> list[Stored]:
        """Every message under ``subject_filter`` after ``after``, asked of the leader.

        Raises:
            NoAnswer, ApiError: they could not be read.
        """
        found: list[Stored] = []
        while True:
            last = found[-1].seq if found else after
            stored = await self._get(stream, {"seq": last + 1, "next_by_subj": subject_filter})
            if stored is None:
                return found
            found.append(stored)

    async def _get(self, stream: str, query: dict[str, object]) -> Stored | None:
        message = await self.call(f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(query))
        answer = _decode_get(message.data)
        if answer.message is not None:
            found = answer.message
            return Stored(found.seq, found.subject, base64.b64decode(found.data))
        if answer.error is not None and answer.error.err_code == 10037:  # no message found
            return None
        raise _api_error(answer.error)

    async def read(
        self, stream: str, subject_filter: str, *, after: int = 0, limit: int = 1000
    ) -> list[Stored]:
        """The first ``limit`` messages after ``after``, in batched direct gets.

        Fast, and answered by any replica: it may lag behind the leader.

        Raises:
            NoAnswer, ApiError: they could not be read.
        """
        found: list[Stored] = []
        more = True
        while more and len(found) < limit:
            last = found[-1].seq if found else after
            query: dict[str, object] = {
                "seq": last + 1,
                "next_by_subj": subject_filter,
                "batch": limit - len(found),
                "max_bytes": _AT_ONCE,
            }
            more = await self._read_some(stream, query, found)
        return found

    async def _read_some(self, stream: str, query: dict[str, object], found: list[Stored]) -> bool:
        """Add what one batch brings; is there more, that it had no room for?"""
        direct_get = f"$JS.API.DIRECT.GET.{stream}"
        answer = self.call_parts(direct_get, msgspec.json.encode(query), _direct_get_goes_on)
        more, before = False, len(found)
        async with aclosing(answer) as parts:
            async for part in parts:
                if part.status == 0:
                    subject = part.header(b"Nats-Subject") or ""
                    found.append(Stored(part.sequence, subject, part.data))
                elif part.status == 204:
                    more = int(part.header(b"Nats-Num-Pending") or 0) > 0
                elif part.status != 404:
                    raise ApiError(part.status, "direct get refused")
        return more and len(found) > before

    async def api(self, subject: str, query: object = None) -> dict[str, Any]:
        """Ask JetStream's own API (``$JS.API.`` is put in front).

        Raises:
            ApiError: it refused.
            NoAnswer: it did not answer.
        """
        body = b"" if query is None else msgspec.json.encode(query)
        message = await self.call(f"$JS.API.{subject}", body)
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if "error" in answer:
            raise _api_error(msgspec.convert(answer["error"], _PubError))
        return answer

    async def listen_live(self, subject: str, callback: Callable[[Incoming], None]) -> Listening:
        """Listen to what the server republishes once it is stored.

        Never to ``evt.>`` itself: there one also sees what the stream refused.
        """
        if not subject.startswith(LIVE):
            raise ValueError(f"not a live subject: {subject}")
        return await self.listen(subject, callback)

    # -- request and reply between services -----------------------------------------

    async def ask(
        self,
        subject: str,
        request: bytes,
        *,
        timeout: float = 5.0,
        tries: int = 1,
        restart: float = RESTART,
    ) -> bytes:
        """Ask a service; one that is just restarting is given ``restart`` seconds to come back.

        After ``timeout`` seconds of silence it is asked again, ``tries`` times in
        all: only for what may be carried out twice.

        Raises:
            NatterlogError: the service's own answer, raised again here.
            TooLarge: it is larger than a message on the bus may be.
            Unreached: it never got the request.
            Unavailable: it did not answer.
        """
        reached, waited = False, timeout * tries
        while True:
            give_up = time.monotonic() + restart
            try:
                return await self._request_from_any(subject, request, timeout, give_up)
            except NoResponders:
                if reached:
                    raise unanswered(subject, waited) from None
                raise restarting(subject, restart) from None
            except Unsendable:
                raise errors.TooLarge("This is more than one request can carry.") from None
            except NoAnswer:
                reached, tries = True, tries - 1
                if not tries:
                    raise unanswered(subject, waited) from None

    async def instances(self, service: str) -> set[str]:
        """The ids of the service's processes that answer just now; empty when none does."""
        found = set[str]()
        ping = self.call_parts(f"$SRV.PING.{service}", b"", _more_follow, _PONGS)
        with suppress(NoAnswer):  # which comes after the last of them
            async with aclosing(ping) as pongs:
                async for pong in pongs:
                    found.add(msgspec.json.decode(pong.data, type=_Pong).id)
        return found

    async def _request_from_any(
        self, subject: str, request: bytes, timeout: float, give_up: float
    ) -> bytes:
        while True:
            try:
                return await self._request_once(subject, request, timeout)
            except NoResponders:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(0.05)

    async def _request_once(self, subject: str, request: bytes, timeout: float) -> bytes:
        frames: list[bytes] = []
        async with aclosing(self.call_parts(subject, request, _frames_follow, timeout)) as parts:
            async for part in parts:
                if b"Nats-Service-Error" in part.headers:
                    fault = msgspec.json.decode(part.data, type=WireError)
                    raise errors.from_wire(
                        fault.code, fault.status, fault.message, fault.path, fault.retry_after
                    )
                frames.append(part.data)
                if part.frame[0] != len(frames):  # the connection was cut in between
                    raise NoAnswer("a frame of the answer was lost")
        return b"".join(frames)

    async def serve(
        self,
        name: str,
        endpoints: dict[str, Callable[[bytes], Awaitable[bytes]]],
        *,
        most: int = MAX_REQUESTS,
    ) -> None:
        """Answer requests on these subjects, ``most`` at a time.

        Each request gets a task of its own, because nats-py's micro service would
        answer them one after another.
        """
        await self.serve_micro(
            name, {s: self._spawning(handler, most) for s, handler in endpoints.items()}
        )

    def _spawning(
        self, handler: Callable[[bytes], Awaitable[bytes]], most: int
    ) -> Callable[[MicroRequest], Awaitable[None]]:
        async def accept(request: MicroRequest) -> None:
            if len(self._requests) >= most:
                await respond_error(request, flooded(request.subject, most))
                return
            task = asyncio.create_task(respond(request, handler, self.silence))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

        return accept


def _expectation(subject: str, expected: int, scope: Scope) -> bytes:
    chain = chain_filter(subject, scope)
    headers = f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {expected}\r\n"
    if chain != subject:  # the server checks the subject itself unless it is told otherwise
        headers += f"Nats-Expected-Last-Subject-Sequence-Subject: {chain}\r\n"
    return f"{headers}\r\n".encode()


def _acked(message: Incoming | None) -> int | BusError:
    """The sequence that a publish got, or what happened to it."""
    if message is None:
        return NoAnswer("the append was not acknowledged")
    if message.status == 503 and not message.data:
        return NoAnswer("the stream has no leader")
    ack = _decode_ack(message.data)
    if ack.error is None:
        return ack.seq
    if ack.error.err_code == 10071:
        return WrongSequence(ack.error.description)
    if ack.error.err_code == 10164:  # a cluster that is catching up: try again
        return NoAnswer(ack.error.description)
    return _api_error(ack.error)


def _api_error(error: _PubError | None) -> ApiError:
    return ApiError(error.err_code, error.description) if error else ApiError(0, "empty answer")


def _direct_get_goes_on(part: Incoming) -> bool:
    return part.status == 0


def _more_follow(part: Incoming) -> bool:
    return part.status == 0


def _frames_follow(part: Incoming) -> bool:
    return not part.is_last
