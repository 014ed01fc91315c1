"""What becomes of a delivery: it is kept alive, handled, and always answered.

:class:`Work` handles what a consumer pulled, whichever way that pulls
(:mod:`shared.pulling`, :mod:`shared.priorities`).

Outcomes are decided here and nowhere else.  A handler

    returns                     → ack: the todo is done, or somebody else did it
    raises RetryLater(after)    → nak with that delay
    raises Rejected, or the     → dead letter, then term: no try will ever help
      fact does not decode, or
      what follows it cannot
      be sent (Unsendable)
    is cancelled by the stop    → nak now, so that another worker goes on at once
    raises NoAnswer             → nak with a short delay: the bus was away
    raises anything else        → logged with its traceback, nak with a growing
                                  delay, a dead letter after ten times here

A delivery proves nothing (architecture.md, law 4): it is a hint that a todo may be open.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from prometheus_client import Counter

from shared.bus import Bus, BusError, Incoming, NoAnswer, Unsendable
from shared.endings import end_unhandled
from shared.errors import shortened
from shared.events import AnyFact, Fault, decode_fact
from shared.ids import now
from shared.log import get_logger
from shared.objects import ObjectMissing, unpack
from shared.subjects import Address, dead_letters, parse

log = get_logger()

LEASE = 6.0
"""Seconds after which an unattended delivery goes to another worker, where no setting says so."""
_SIGNS = 3
"""Signs of life within a lease: one may come late, and another be lost."""
_PAUSE = 1.0
_WORST_DELAY = 30.0
_MOST_ERRORS = 10

_outcomes = Counter("natterlog_deliveries", "Deliveries by outcome", ["consumer", "outcome"])


class RetryLater(Exception):
    """Raised by a handler: deliver the fact again after ``after`` seconds."""

    def __init__(self, after: float, reason: str) -> None:
        super().__init__(reason)
        self.after = after


class Rejected(Exception):
    """Raised by a handler: no later try can handle this fact."""


class Delivery(NamedTuple):
    """One fact, handed over for work."""

    seq: int
    subject: str
    address: Address
    fact: AnyFact
    delivered: int
    """How often it was handed out, this time included (as far as the server remembers)."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that could not be handled; the fact itself is in the log at ``seq``."""

    consumer: str
    seq: int
    subject: str
    reason: str
    at: str
    kind: str = "rejected"
    """undecodable, rejected, or failed: by its handler, again and again."""
    deliveries: int = 0
    """How often it was handed out, as far as the server remembers."""
    errors: int = 0
    """How often the process that gave up had failed at it."""


Handler = Callable[[Delivery], Awaitable[None]]


class Work:
    """The deliveries that are being handled, each kept alive and answered at its end.

    A consumer begins them; ``freed`` is called whenever one has ended.  Use it as a
    context manager: leaving it cancels what runs and hands it back.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        handler: Handler,
        *,
        slots: int,
        lease: float,
        freed: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._name = name
        self._handler = handler
        self._slots = slots
        self._lease = lease
        self._freed = freed
        self._running: dict[str, asyncio.Task[None]] = {}  # by the subject that acks it
        self._errors: dict[int, int] = {}  # by sequence: how often this process failed at it
        self._idle = asyncio.Event()
        self._idle.set()
        self._alive: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._alive = asyncio.create_task(self._keep_alive(), name=f"{self._name}-keep-alive")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.drain(0)
        if self._alive is not None:
            self._alive.cancel()

    @property
    def free(self) -> int:
        """How many more deliveries it takes now."""
        return self._slots - len(self._running)

    def begin(self, message: Incoming) -> None:
        """Handle a delivery; the caller has seen to it that there is a free slot."""
        self._running[message.reply] = asyncio.create_task(self._handle(message))
        self._idle.clear()

    def nak_now(self, message: Incoming) -> None:
        """Refuse the delivery, so that another worker gets it at once."""
        with suppress(BusError):
            self._bus.post(message.reply, b"-NAK")

    async def drain(self, grace: float) -> None:
        """Let what runs finish within ``grace`` seconds, and hand back the rest."""
        if self._running and grace:
            log.info("consumer.draining", consumer=self._name, running=len(self._running))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        for task in list(self._running.values()):
            task.cancel()
        await self._idle.wait()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._lease / _SIGNS)
            if self._bus.connected:
                with suppress(BusError):  # far behind: the next round says so again
                    for ack in self._running:
                        self._bus.post(ack, b"+WPI")

    # -- outcomes ---------------------------------------------------------------

    async def _handle(self, message: Incoming) -> None:
        ack = message.reply
        outcome, answer = "cancelled", b"-NAK"
        try:
            outcome, answer = await self._outcome(message)
        finally:
            with suppress(BusError):  # nobody to tell: it is delivered again after its lease
                self._bus.post(ack, answer)
            _outcomes.labels(self._name, outcome).inc()
            self._running.pop(ack, None)
            if not self._running:
                self._idle.set()
            self._freed()

    async def _outcome(self, message: Incoming) -> tuple[str, bytes]:
        delivered, seq = _ack_numbers(message.reply)
        kind = "undecodable"
        try:
            fact = await self._read(message.data)
            delivery = Delivery(seq, message.subject, parse(message.subject), fact, delivered)
            kind = "rejected"
            await self._handler(delivery)
        except RetryLater as later:
            return "later", _nak(later.after)
        except NoAnswer as error:  # the fact's fault it is not
            log.warning("consumer.unanswered", consumer=self._name, seq=seq, error=str(error))
            return "later", _nak(_PAUSE)
        except (Rejected, msgspec.ValidationError, ObjectMissing, Unsendable) as error:
            return await self._dead_letter(message, seq, str(error), kind)
        except Exception as error:  # whatever it was, the todo must not be lost
            # Deliveries do not count: most of them were nobody's fault (architecture.md, law 4).
            errors = self._errors[seq] = self._errors.get(seq, 0) + 1
            log.exception("consumer.failed", consumer=self._name, seq=seq, errors=errors)
            if errors >= _MOST_ERRORS:
                return await self._dead_letter(message, seq, repr(error), "failed")
            return "failed", _nak(min(2.0**errors, _WORST_DELAY))
        self._errors.pop(seq, None)
        return "done", b"+ACK"

    async def _read(self, data: bytes) -> AnyFact:
        """The fact whole; Rejected: it is no JSON, or none that this version knows."""
        try:
            return decode_fact(await unpack(self._bus, data))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Rejected(str(error)) from error

    async def _dead_letter(
        self, message: Incoming, seq: int, reason: str, kind: str
    ) -> tuple[str, bytes]:
        reason = shortened(reason)
        log.error("consumer.rejected", consumer=self._name, seq=seq, reason=reason)
        letter = DeadLetter(
            consumer=self._name,
            seq=seq,
            subject=message.subject,
            reason=reason,
            at=now().isoformat(),
            kind=kind,
            deliveries=_ack_numbers(message.reply)[0],
            errors=self._errors.get(seq, 0),
        )
        fault = Fault(code="internal", message="This could not be handled; the log says why.")
        try:
            await self._bus.store(dead_letters(self._name), msgspec.json.encode(letter))
            address = parse(message.subject)
            await end_unhandled(self._bus, address, fault, although_claimed=True)
        except BusError:
            return "later", _nak(_WORST_DELAY)
        self._errors.pop(seq, None)
        return "dead", b"+TERM"


def _nak(after: float) -> bytes:
    return b'-NAK {"delay": %d}' % int(after * 1e9)


def _ack_numbers(ack: str) -> tuple[int, int]:
    """(times delivered, stream sequence) from an ack's subject.

    ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.…``, with a domain and
    an account hash before the stream where the server has such.
    """
    tokens = ack.split(".")
    start = 4 if len(tokens) == 9 else 6
    return int(tokens[start]), int(tokens[start + 1])
