"""Spends the worker's publishes fairly: few replies stream token by token, many in larger pieces.

While few runs ask, each publishes at once.  When many do they go together, on a
beat: a message that travels with others costs less than half of one that travels
alone (docs/benchmarks.md), in each process on its way.  Over all, at most so many
publishes a second, round robin over the runs that have new text; a run's first
delta goes at once in any case (architecture.md, law 5).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

BEAT = 0.025
FEW = 10
"""How many may ask within a beat for each to go at once: what eight replies do."""


class Pacer:
    """A bucket of publishes for all of a worker's runs, and the beat that empties it."""

    def __init__(self, publishes_per_second: int, clock: Callable[[], float] = time.monotonic):
        self._rate = publishes_per_second
        self._clock = clock
        self._most = max(1.0, publishes_per_second * BEAT)
        self._tokens = self._most
        self._filled = clock()
        self._queue: deque[Callable[[], None]] = deque()
        self._requested = 0  # since the last beat
        self._many = False
        self._beating = False

    def request(self, publish: Callable[[], None], *, first: bool = False) -> None:
        """Have ``publish`` called when it is its turn: at once where there is little to do.

        A run asks only once until it was called.
        """
        self._requested += 1
        self._beat_later()
        self._fill()
        if first or self._idle():
            self._tokens -= 1
            publish()
        else:
            self._queue.append(publish)

    def _idle(self) -> bool:
        few = self._requested <= FEW and not self._many
        return few and self._tokens >= 1 and not self._queue

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now

    def _beat_later(self) -> None:
        if not self._beating:
            self._beating = True
            asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _beat(self) -> None:
        self._beating = False
        self._many, self._requested = self._requested > FEW, 0
        self._fill()
        try:
            while self._queue and self._tokens >= 1:
                self._tokens -= 1
                self._queue.popleft()()
        finally:  # whatever one run's publish raised, the others want their turn
            if self._queue or self._many:
                self._beat_later()
