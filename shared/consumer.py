"""Durable consumers of one kind of fact: pulled, kept alive, and always answered.

:class:`Work` handles what a consumer pulled, whichever way it pulls: this module's
:class:`Consumer` one kind, :mod:`shared.priorities` the highest of several levels.

Outcomes are decided here and nowhere else.  A handler

    returns                     → ack: the todo is done, or somebody else did it
    raises RetryLater(after)    → nak with that delay
    raises Rejected, or the     → dead letter, then term: no try will ever help
      fact does not decode
    is cancelled by the stop    → nak now, so that another worker goes on at once
    raises NoAnswer             → nak with a short delay: the bus was away
    raises anything else        → logged with its traceback, nak with a growing
                                  delay, a dead letter after ten times here

A delivery proves nothing (architecture.md, law 4): it is a hint that a todo may be open.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from prometheus_client import Counter

from shared.bus import Bus, BusError, Incoming, Listening, NoAnswer
from shared.endings import end_unhandled
from shared.events import AnyFact, Fault, decode_fact
from shared.ids import new_id, now
from shared.log import get_logger
from shared.objects import ObjectMissing, unpack
from shared.subjects import EVENTS, Address, dead_letters, parse

log = get_logger()

ACK_WAIT = 6.0
"""Seconds after which an unattended delivery goes to another worker."""
_KEEP_ALIVE = 2.0
_EXPIRES = 30.0
_HEARTBEAT = 2.0
_SILENCE = 5.0
_PAUSE = 1.0
_WORST_DELAY = 30.0
_MOST_ERRORS = 10

_outcomes = Counter("natterlog_deliveries", "Deliveries by outcome", ["consumer", "outcome"])


class RetryLater(Exception):
    """Not now: deliver it again after ``after`` seconds."""

    def __init__(self, after: float, reason: str) -> None:
        super().__init__(reason)
        self.after = after


class Rejected(Exception):
    """Never: no later try can handle this fact."""


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
        self, bus: Bus, name: str, handler: Handler, *, slots: int, freed: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._name = name
        self._handler = handler
        self._slots = slots
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
        """How many more it takes now."""
        return self._slots - len(self._running)

    def begin(self, message: Incoming) -> None:
        """Handle a delivery; the caller has seen to it that there is a free slot."""
        self._running[message.reply] = asyncio.create_task(self._handle(message))
        self._idle.clear()

    def hand_back(self, message: Incoming) -> None:
        """Not here: let another worker have it at once."""
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
            await asyncio.sleep(_KEEP_ALIVE)
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
            with suppress(BusError):  # nobody to tell: it is delivered again after ACK_WAIT
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
            fact = decode_fact(await unpack(self._bus, message.data))
            delivery = Delivery(seq, message.subject, parse(message.subject), fact, delivered)
            kind = "rejected"
            await self._handler(delivery)
        except RetryLater as later:
            return "later", _nak(later.after)
        except NoAnswer as error:  # the fact's fault it is not
            log.warning("consumer.unanswered", consumer=self._name, seq=seq, error=str(error))
            return "later", _nak(_PAUSE)
        except (Rejected, msgspec.ValidationError, ObjectMissing) as error:
            return await self._bury(message, seq, str(error), kind)
        except Exception as error:  # whatever it was, the todo must not be lost
            # Deliveries do not count: most of them were nobody's fault (architecture.md, law 4).
            errors = self._errors[seq] = self._errors.get(seq, 0) + 1
            log.exception("consumer.failed", consumer=self._name, seq=seq, errors=errors)
            if errors >= _MOST_ERRORS:
                return await self._bury(message, seq, repr(error), "failed")
            return "failed", _nak(min(2.0**errors, _WORST_DELAY))
        self._errors.pop(seq, None)
        return "done", b"+ACK"

    async def _bury(self, message: Incoming, seq: int, reason: str, kind: str) -> tuple[str, bytes]:
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


class Consumer:
    """Pulls facts for one handler, as many at a time as there are slots.

    Use it as a context manager: inside, it pulls; :meth:`stop` ends it in two
    stages, and leaving ends it at once.
    """

    def __init__(
        self, bus: Bus, name: str, filters: Sequence[str], handler: Handler, *, slots: int
    ) -> None:
        self._bus = bus
        self._name = name
        self._filters = list(filters)
        self._work = Work(bus, name, handler, slots=slots, freed=self._pull)
        self._inbox = ""
        self._listening: Listening | None = None
        self._asked = 0  # messages that the server still owes us
        self._heard = time.monotonic()
        self._pulling = False
        self._watching: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None

    # -- life -------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await ensure_durable(self._bus, self._name, self._filters)
        self._bus.on_reconnect(self._mend)
        self._pulling = True
        await self._work.__aenter__()
        await self._start_over()
        self._watching = asyncio.create_task(self._watch(), name=f"{self._name}-watch")
        return self

    async def stop(self, grace: float) -> None:
        """Stop pulling, let what runs finish within ``grace`` seconds, hand back the rest."""
        self._pulling = False
        await self._work.drain(grace)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pulling = False
        await self._work.__aexit__(kind, error, trace)
        for task in (self._watching, self._mending):
            if task is not None:
                task.cancel()
        if self._listening is not None:
            await self._listening.close()

    # -- pulling ----------------------------------------------------------------

    def _pull(self) -> None:
        """Ask for as many facts as there are free slots that nobody was asked to fill."""
        free = self._work.free - self._asked
        if not self._pulling or free <= 0 or not self._bus.connected:
            return
        query = {
            "batch": free,
            "expires": int(_EXPIRES * 1e9),
            "idle_heartbeat": int(_HEARTBEAT * 1e9),
        }
        self._asked += free
        with suppress(BusError):  # then nothing is heard, and the watch asks again
            self._bus.post(
                f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{self._name}",
                msgspec.json.encode(query),
                reply=self._inbox,
            )

    def _on_message(self, message: Incoming) -> None:
        self._heard = time.monotonic()
        status = message.status
        if status == 0 and message.reply:
            self._asked = max(0, self._asked - 1)
            self._accept(message)
        elif status == 100:  # an idle heartbeat
            return
        elif status in (404, 408):  # the pull expired; this much of it was never sent
            self._asked -= int(message.header(b"Nats-Pending-Messages") or self._asked)
            self._asked = max(0, self._asked)
            self._pull()
        else:  # 409 and 503: the consumer or its leader is gone
            self._mend()

    def _accept(self, message: Incoming) -> None:
        if self._pulling and self._work.free > 0:
            self._work.begin(message)
        else:
            self._work.hand_back(message)

    # A pull that a restarted server has forgotten would wait for ever (nats-py
    # does), so pulls are asked for anew after each reconnect and after any silence.

    async def _start_over(self) -> None:
        """Pull into a new inbox: where nobody listens any more, the server drops what it owed."""
        old, self._inbox = self._listening, f"_INBOX.pull.{new_id()}"
        self._listening = await self._bus.listen(self._inbox, self._on_message)
        if old is not None:
            await old.close()
        self._heard = time.monotonic()
        self._asked = 0
        self._pull()

    def _mend(self) -> None:
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(self._make_anew(), name=f"{self._name}-mend")

    async def _make_anew(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            await self._bus.wait_connected()
            try:
                await ensure_durable(self._bus, self._name, self._filters)
            except BusError as error:
                log.warning("consumer.missing", consumer=self._name, error=str(error))
            else:
                return await self._start_over()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT)
            if self._bus.connected and self._asked and time.monotonic() - self._heard > _SILENCE:
                log.warning("consumer.silent", consumer=self._name)
                self._mend()


async def ensure_durable(bus: Bus, name: str, filters: Sequence[str]) -> None:
    """Make sure that the durable consumer ``name`` of EVENTS is there.

    Raises:
        BusError: it is not known to be there.
    """
    config = {
        "durable_name": name,
        "filter_subjects": list(filters),
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT * 1e9),
        "deliver_policy": "all",
        "max_deliver": -1,
        "max_ack_pending": 20_000,
    }
    await bus.api(
        f"CONSUMER.DURABLE.CREATE.{EVENTS}.{name}", {"stream_name": EVENTS, "config": config}
    )


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
