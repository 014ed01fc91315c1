"""Writes one attempt's text into the log: one delta in flight, each chained to the last.

Text that comes while a delta is in flight goes with the next one, so order,
backpressure and batching follow from one rule (architecture.md, law 5).  The chain also
fences: once another attempt has written, nothing of this one is stored.

What is longer than a delta may be goes as several, one after the other, and so does
the whole text when it is said again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime

from prometheus_client import Counter

from services.llm_worker.pacer import Pacer
from shared.bus import Bus, BusError, Unsendable
from shared.deltas import split
from shared.events import Delta, Timeline, Try, decode_token_event, encode
from shared.ids import now
from shared.log import get_logger
from shared.subjects import TOKENS, Address

log = get_logger()

SNAPSHOT_LENGTH = 64 * 1024
"""Code points after which the whole text is said again, so that TOKENS may forget old deltas;
then after as many as it had, so that a long text is not said over and over."""
SNAPSHOT_SECONDS = 120.0
"""The same, by time."""
_ACK_TIMEOUT = 5.0

_published = Counter("natterlog_deltas", "Deltas published")


class DeltaWriter:
    """The text of one attempt and how much of it the log has.

    ``still_mine`` asks the run's chain whether this attempt may go on writing;
    ``lost`` is called once when it may not.
    """

    def __init__(
        self,
        bus: Bus,
        address: Address,
        attempt: int,
        pacer: Pacer,
        *,
        head: int,
        still_mine: Callable[[], Awaitable[bool]],
        lost: Callable[[], None],
        claimed_at: datetime | None = None,
    ) -> None:
        self._bus = bus
        self._subject = address.tokens
        self.attempt = attempt
        self._pacer = pacer
        self._head = head
        self._still_mine = still_mine
        self._lost = lost
        # Times are told since the claim's own, whose append may have taken a while.
        age = (now() - claimed_at).total_seconds() if claimed_at else 0.0
        self._began = time.monotonic() - max(age, 0.0)
        self._earlier: list[str] = []  # the text so far, but for what is new
        self._new: list[str] = []  # what came since the last delta was made
        self._pieces: deque[str] = deque()  # of the text, as deltas will carry them
        self._sent = 0  # where the first of them begins
        self._length = 0
        self.size = 0
        """Bytes of the text so far, as UTF-8."""
        self._opening = 0  # code points that were there before the attempt
        self._flight = 0  # counts up, so that an answer that came too late is known as such
        self._busy = False  # a delta is in flight, queued, or being chained anew
        self._closed = False
        self._snapshot_at = time.monotonic()
        self._snapshot_length = 0
        self._mending: asyncio.Task[None] | None = None
        self.timeline: Timeline = []
        self.tries: list[Try] = []
        """The provider's failed calls so far; no delta tells of them."""

    def add(self, text: str) -> None:
        """Take the next piece of the reply; it leaves as soon as the pacer lets it."""
        if not text:
            return
        self._new.append(text)
        self._length += len(text)
        self.size += len(text) if text.isascii() else len(text.encode())
        if not self._busy:
            self._busy = True
            self._pacer.request(self._publish, first=not self.timeline)

    def open_with(self, text: str) -> None:
        """Begin with what was written before the attempt: its reply goes on."""
        self._opening = len(text)
        self.add(text)

    @property
    def grew(self) -> bool:
        """Whether any text has come from the provider."""
        return self._length > self._opening

    @property
    def text(self) -> str:
        """Everything that was added."""
        return "".join((*self._earlier, *self._new))

    @property
    def first_delta_ms(self) -> int | None:
        return next((ms for ms, length in self.timeline if length > self._opening), None)

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the claim."""
        return round((time.monotonic() - self._began) * 1000)

    def begin(self) -> None:
        """Say "nothing yet" before the first piece: it fences off the attempt before."""
        self._busy = True
        self._send(Delta(self.attempt, 0, ""))

    def close(self) -> None:
        """Publish nothing more; what is left goes with the final."""
        self._closed = True
        if self._mending is not None:
            self._mending.cancel()

    def recheck(self) -> None:
        """The connection was lost: the delta in flight may be stored, or not.  Look."""
        if not self._closed and (self._mending is None or self._mending.done()):
            self._flight += 1
            self._busy = True
            self._mending = asyncio.create_task(self._chain_anew())

    # -- publishing ---------------------------------------------------------------

    def _publish(self) -> None:
        if self._closed:
            return
        if not self._pieces:
            self._cut()
        self._send_piece()

    def _cut(self) -> None:
        """Make pieces of what is new, or of the whole text when that is due."""
        new = "".join(self._new)
        self._new.clear()
        self._earlier.append(new)
        if self._snapshot_due():
            self._earlier = [self.text]
            self._sent = 0
            self._snapshot_at, self._snapshot_length = time.monotonic(), self._length
        self._pieces.extend(split(new if self._sent else self.text))

    def _send_piece(self) -> None:
        """Send the next piece; without any that the attempt has begun."""
        piece = self._pieces.popleft() if self._pieces else ""
        delta = Delta(self.attempt, self._sent, piece, self.elapsed_ms)
        self._sent += len(piece)
        if self._sent > (self.timeline[-1][1] if self.timeline else 0):
            self.timeline.append((delta.ms, self._sent))
        _published.inc()
        self._send(delta)

    def _snapshot_due(self) -> bool:
        new = self._length - self._snapshot_length
        return new > max(SNAPSHOT_LENGTH, self._snapshot_length) or (
            time.monotonic() - self._snapshot_at > SNAPSHOT_SECONDS
        )

    def _send(self, delta: Delta) -> None:
        self._flight += 1
        flight = self._flight
        try:
            self._bus.append_soon(
                self._subject,
                encode(delta),
                lambda result: self._answered(flight, result),
                expected=self._head,
                timeout=_ACK_TIMEOUT,
            )
        except Unsendable as error:  # the final will tell; what can be said, is said in the log
            log.error("deltas.unsendable", error=str(error))
            self.close()
        except BusError:  # once whoever sends is done, who may be the mending itself
            asyncio.get_running_loop().call_soon(self.recheck)

    def _answered(self, flight: int, result: int | BusError) -> None:
        if flight != self._flight or self._closed:
            return
        if isinstance(result, BusError):
            self.recheck()
            return
        self._head = result
        if self._pieces or self._new:
            self._pacer.request(self._publish, first=not self.timeline)
        else:
            self._busy = False

    # -- after a conflict, a time-out or a reconnect ------------------------------

    async def _chain_anew(self) -> None:
        """Find out what TOKENS has of this attempt and go on from there.

        TOKENS alone is not asked: a crash may have made it forget, and after a
        hard delete it is empty, so the run's chain must still be ours first.
        """
        while not self._closed:
            try:
                await self._bus.wait_connected()
                mine = await self._still_mine()
                last = await self._bus.head(TOKENS, self._subject)
            except BusError as error:
                log.info("deltas.cannot_look", error=str(error))
                await asyncio.sleep(0.2)
                continue
            token_event = decode_token_event(last.data) if last else None
            if not mine or (token_event is not None and token_event.attempt > self.attempt):
                self._closed = True
                self._lost()
                return
            stored = 0
            if isinstance(token_event, Delta) and token_event.attempt == self.attempt:
                stored = token_event.offset + len(token_event.text)
            self._head = last.seq if last else 0
            self._earlier = [self.text]
            self._new.clear()
            self._pieces = deque(split(self._earlier[0][stored:]))
            self._sent = stored
            if self._pieces or stored == 0:
                self._send_piece()
            else:
                self._busy = False
            return
