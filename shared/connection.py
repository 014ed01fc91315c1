"""The one module that imports nats-py: a connection that mends itself.

nats-py spends most of its time on a future, a queue and a header dictionary for
each message.  Here live subscriptions and answers are handed their raw bytes
straight from the parser, and publishes are written without a task switch
(:class:`_Client`): the delta's way is the hottest of the system.
"""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import nats.micro
from nats.aio.client import Client
from nats.errors import Error
from nats.micro.request import Request as MicroRequest
from nats.micro.service import Service, ServiceConfig

from shared.ids import new_id
from shared.log import RepeatedWarning, get_logger
from shared.wire import BusClosed, BusError, Incoming, NoAnswer, NoResponders, check_sendable

log = get_logger()

MIN_SERVER = (2, 12)
MIN_PAYLOAD = 512 * 1024  # a fact, a delta, a frame of an answer has half of it at most
_REFUSED = re.compile(r"authorization violation|authentication (expired|revoked)", re.IGNORECASE)
_SWEEP = 0.1
_GOODBYE = 2.0
_MAX_PENDING = 64 * 1024 * 1024


@dataclass(slots=True)
class _Pending:
    answer: Callable[[Incoming | None], None]
    deadline: float


class _Client(Client):
    """nats-py's client with two short cuts, for reading and for writing."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcuts: dict[int, Callable[[Incoming], None]] = {}

    @property
    def gave_up(self) -> str | None:
        """Why it will never connect again; None while it is connected, or tries to be.

        nats-py closes itself after every error of the server but two, and stops
        reconnecting after an exception that it does not expect.
        """
        task = self._reconnection_task
        if self.is_closed or (self.is_reconnecting and task is not None and task.done()):
            return str(self._err or "nats-py stopped reconnecting")
        return None

    async def _read_loop(self) -> None:
        # What nats-py does not expect ends its loop, and leaves the client deaf and "connected".
        await super()._read_loop()
        mine = self._reading_task is asyncio.current_task()  # pyright: ignore[reportUnknownMemberType]
        if mine and self.is_connected:
            await self._process_op_err(Error("nats-py stopped reading"))

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        shortcut = self.shortcuts.get(sid)
        if shortcut is None:
            return await super()._process_msg(sid, subject, reply, data, headers)
        try:
            shortcut(Incoming(subject.decode(), reply.decode(), data, headers or b""))
        except Exception:  # one bad message must not end the connection's read loop
            log.exception("bus.handler_failed", subject=subject.decode())

    def post(self, subject: str, data: bytes, reply: str, headers: bytes) -> None:
        """Write a publish into the connection's buffer; the flusher sends it at once.

        Raises:
            NoAnswer: the connection is closed, or too much is waiting for a reconnect.
        """
        if self.is_closed or self._pending_data_size > _MAX_PENDING:
            raise NoAnswer("the bus is not connected")
        if headers:
            size = len(headers)
            line = f"HPUB {subject} {reply} {size} {size + len(data)}\r\n".encode()
            frame = b"".join((line, headers, data, b"\r\n"))
        else:
            frame = b"".join((f"PUB {subject} {reply} {len(data)}\r\n".encode(), data, b"\r\n"))
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        queue = self._flush_queue
        if queue is not None and self.is_connected and queue.empty():
            queue.put_nowait(asyncio.get_running_loop().create_future())


class Listening:
    """A live subscription; close it when nobody looks any more."""

    def __init__(self, client: _Client, sid: int, close: Callable[[], Awaitable[None]]):
        self._client = client
        self._sid = sid
        self._close = close

    async def close(self) -> None:
        self._client.shortcuts.pop(self._sid, None)
        if not self._client.is_closed:
            await self._close()


class Connection:
    """A connection to NATS that mends itself, or says why it never will (:meth:`wait_closed`)."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._client = _Client()
        self._inbox = f"_INBOX.{new_id()}"
        self._tokens = itertools.count(1)
        self._pending: dict[str, _Pending] = {}
        self._answered_at = time.monotonic()
        self._sweeper: asyncio.Task[None] | None = None
        self._services: list[Service] = []
        self._reconnected: list[Callable[[], None]] = []
        self._connected = asyncio.Event()
        self._closed = asyncio.Event()
        self._errors = RepeatedWarning("bus.error")
        self.closed_because: str | None = None
        """Why it is closed for good, other than by us; None as long as it mends itself."""

    # -- life -------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._connect()
        if fault := self._unfit():
            await self._client.close()
            raise BusError(fault)
        self._connected.set()
        await self.listen(f"{self._inbox}.*", self._on_answer)
        self._sweeper = asyncio.create_task(self._sweep(), name="bus-sweeper")
        return self

    async def _connect(self) -> None:
        """Connect, however long that takes; BusClosed: the server does not let us in."""
        connecting = asyncio.create_task(
            self._client.connect(
                self._url,
                name=self._name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,  # pyright: ignore[reportArgumentType]  (seconds; it sleeps)
                pending_size=_MAX_PENDING,
                ping_interval=20,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
            )
        )
        refused = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait({connecting, refused}, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise BusClosed(self.closed_because)
            await connecting
        finally:
            connecting.cancel()
            refused.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.connected:  # else the server knows that we are gone
            with suppress(Error, OSError):
                async with asyncio.timeout(_GOODBYE):
                    for service in self._services:
                        await service.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        # close() flushes what is pending, so the last acks and naks get out; where the
        # line broke a moment ago, nothing can.
        with suppress(OSError):
            await self._client.close()
        self._connected.clear()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every reconnect: live messages may have been missed."""
        self._reconnected.append(callback)

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        await self._connected.wait()

    async def wait_closed(self) -> None:
        """Wait until ``closed_because`` says something."""
        await self._closed.wait()

    def _give_up(self, why: str) -> None:
        self._connected.clear()
        if self.closed_because is None:
            self.closed_because = why
            log.error("bus.closed", reason=why)
        self._closed.set()

    def _unfit(self) -> str | None:
        """What is wrong with the server, if anything is."""
        version, most = self._client.connected_server_version, self._client.max_payload
        if (version.major, version.minor) < MIN_SERVER:
            return f"nats-server {version} is too old: natterlog needs 2.12 or newer"
        if most < MIN_PAYLOAD:
            return f"nats-server's max_payload is {most}: natterlog needs {MIN_PAYLOAD} at least"
        return None

    # An exception in one of these would end nats-py's reconnecting for good.

    async def _on_error(self, error: Exception) -> None:
        self._errors.log(repr(error))
        if _REFUSED.search(str(error)) and not self._client.is_connected:
            self._give_up(f"nats-server refuses our user: {str(error).strip()}")

    async def _on_disconnect(self) -> None:
        self._connected.clear()
        if not self._client.is_closed:
            log.warning("bus.disconnected")

    async def _on_reconnect(self) -> None:
        if fault := self._unfit():
            self._give_up(fault)
            return
        self._connected.set()
        self._errors.forget()
        log.info("bus.reconnected")
        for callback in self._reconnected:
            try:
                callback()
            except Exception:  # see above
                log.exception("bus.reconnect_callback_failed")

    # -- asking and publishing ----------------------------------------------------

    def post(self, subject: str, data: bytes = b"", *, reply: str = "") -> None:
        """Publish without waiting for an answer: signals, acks.

        Raises:
            NoAnswer: the connection is closed or far behind.
            Unsendable: the server would hang up on us.
        """
        self._post(subject, data, reply, b"")

    def _post(self, subject: str, data: bytes, reply: str, headers: bytes) -> None:
        """Publish what the server takes, and nothing else: every publish of ours comes here."""
        check_sendable(subject, reply, len(headers) + len(data), most=self._client.max_payload)
        self._client.post(subject, data, reply, headers)

    def call_soon(
        self,
        subject: str,
        data: bytes,
        answer: Callable[[Incoming | None], None],
        *,
        headers: bytes = b"",
        timeout: float,
    ) -> None:
        """Send a request; ``answer`` is called once, with None after ``timeout`` seconds.

        Raises:
            NoAnswer: it could not even be sent.
            Unsendable: the server would hang up on us.
        """
        token = str(next(self._tokens))
        self._post(subject, data, f"{self._inbox}.{token}", headers)
        self._pending[token] = _Pending(answer, time.monotonic() + timeout)

    async def call(
        self, subject: str, data: bytes = b"", *, headers: bytes = b"", timeout: float = 5.0
    ) -> Incoming:
        """Send a request and wait for its answer.

        Raises:
            NoAnswer: none came within ``timeout`` seconds, connecting included.
            NoResponders: nobody listens on ``subject``.
            Unsendable: the server would hang up on us.
        """
        async with _deadline(timeout):
            await self._connected.wait()
        future: asyncio.Future[Incoming | None] = asyncio.get_running_loop().create_future()
        self.call_soon(
            subject,
            data,
            lambda message: None if future.done() else future.set_result(message),
            headers=headers,
            timeout=timeout,
        )
        message = await future
        if message is None:
            raise NoAnswer(f"no answer on {subject} within {timeout} s")
        if message.status == 503 and not message.data:
            raise NoResponders(f"nobody listens on {subject}")
        return message

    def silence(self) -> float:
        """Seconds since anything that was asked over the bus was answered."""
        return time.monotonic() - self._answered_at

    def _on_answer(self, message: Incoming) -> None:
        self._answered_at = time.monotonic()
        # Answers in several parts keep their token until the last part has come.
        token = message.subject.rpartition(".")[2]
        pending = self._pending.pop(token, None) if message.is_last else self._pending.get(token)
        if pending is not None:
            pending.answer(message)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            if why := self._client.gave_up:  # looked for here: nats-py may fail to call back
                self._give_up(why)
            now = time.monotonic()
            for token in [t for t, p in self._pending.items() if p.deadline < now]:
                pending = self._pending.pop(token)
                try:
                    pending.answer(None)
                except Exception:  # nobody else's time-out may depend on it
                    log.exception("bus.handler_failed")

    async def call_parts(
        self, subject: str, data: bytes, goes_on: Callable[[Incoming], bool], timeout: float = 5.0
    ) -> AsyncGenerator[Incoming]:
        """The parts of an answer in several messages: all for which ``goes_on``, and the last.

        Raises:
            NoAnswer, NoResponders, Unsendable: as for :meth:`call`.
        """
        async with _deadline(timeout):
            await self._connected.wait()
        token = str(next(self._tokens))
        parts: asyncio.Queue[Incoming | None] = asyncio.Queue()

        def answer(part: Incoming | None) -> None:
            parts.put_nowait(part)
            if part is not None and goes_on(part):
                self._pending[token] = _Pending(answer, time.monotonic() + timeout)

        self._post(subject, data, f"{self._inbox}.{token}", b"")
        self._pending[token] = _Pending(answer, time.monotonic() + timeout)
        try:
            while True:
                part = await parts.get()
                if part is None:
                    raise NoAnswer(f"no answer on {subject} within {timeout} s")
                if part.status == 503 and not part.data:
                    raise NoResponders(f"nobody listens on {subject}")
                yield part
                if not goes_on(part):
                    return
        finally:
            self._pending.pop(token, None)

    # -- listening ----------------------------------------------------------------

    async def listen(self, subject: str, callback: Callable[[Incoming], None]) -> Listening:
        """Hand every message on ``subject`` to ``callback`` at once, in order of arrival.

        The callback runs inside the connection's read loop: it must not wait.
        """

        async def unused(_: object) -> None:
            raise AssertionError("the short cut takes every message")

        subscription = await self._client.subscribe(subject, cb=unused)  # pyright: ignore[reportUnknownMemberType]
        sid = subscription._id  # pyright: ignore[reportPrivateUsage]  (the parser's key)
        self._client.shortcuts[sid] = callback
        return Listening(self._client, sid, subscription.unsubscribe)

    async def serve_micro(
        self, name: str, endpoints: dict[str, Callable[[MicroRequest], Awaitable[None]]]
    ) -> None:
        """Answer requests as a NATS micro service: one endpoint a subject."""
        service = await nats.micro.add_service(  # pyright: ignore[reportUnknownMemberType]
            self._client, ServiceConfig(name=name, version="0.1.0")
        )
        for subject, handler in endpoints.items():
            await service.add_endpoint(
                name=subject.rpartition(".")[2], subject=subject, handler=handler
            )
        self._services.append(service)


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise NoAnswer("the bus is not connected") from None
