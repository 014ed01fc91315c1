"""Publishes how much of a step is done: a few times a second, and never less than before."""

import asyncio
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from shared.bus import Bus, BusError
from shared.events import Progress, Timeline, encode
from shared.subjects import TOKENS, Address

EVERY = 0.2
"""Seconds between two of them at least."""


class ProgressWriter:
    """One attempt's progress; chained, so that nothing of an overtaken attempt is stored.

    ``least`` is what the attempts before it had told.
    """

    def __init__(
        self, bus: Bus, address: Address, attempt: int, step: str, *, least: float = 0.0
    ) -> None:
        self._bus = bus
        self._subject = address.tokens
        self.attempt = attempt
        self._step = step
        self._fraction = least
        self._reported = -1.0
        self.reached = least
        """The most that anybody may have been told."""
        self._began = time.monotonic()
        self.timeline: Timeline = []
        """(milliseconds since the claim, thousandths done) of what was told."""
        self._changed = asyncio.Event()
        self._head: int | None = None
        self._writing: asyncio.Task[None] | None = None

    def report(self, fraction: float) -> None:
        """Publish how much of the step is done, soon and not too often."""
        self._fraction = max(self._fraction, min(fraction, 1.0))
        self._changed.set()

    async def __aenter__(self) -> Self:
        self._changed.set()  # 0 is news too: the step has begun
        self._writing = asyncio.create_task(self._write(), name="progress")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Publish nothing more: the next fact ends the step."""
        if self._writing is not None:
            self._writing.cancel()

    def recheck(self) -> None:
        """The connection was lost, and what was stored last is not known."""
        self._head = None

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._fraction > self._reported:
                with suppress(BusError):  # then the next one tells
                    await self._publish(self._fraction)
            await asyncio.sleep(EVERY)

    async def _publish(self, fraction: float) -> None:
        if self._head is None:
            last = await self._bus.head(TOKENS, self._subject)
            self._head = last.seq if last else 0
        expected, self._head = self._head, None
        self.reached = round(fraction, 3)  # although its acknowledgement may get lost
        ms = round((time.monotonic() - self._began) * 1000)
        self.timeline.append((ms, round(self.reached * 1000)))
        token_event = encode(Progress(self.attempt, self._step, self.reached, ms))
        self._head = await self._bus.append(self._subject, token_event, expected=expected)
        self._reported = fraction
