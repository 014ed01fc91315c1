"""Spends the worker's publishes fairly: few replies stream token by token, many in larger pieces.

At most so many publishes a second, round robin over the runs that have new
text; a run's first delta goes at once (DESIGN, law 5).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

_TICK = 0.004
_BURST = 0.01


class Pacer:
    """A bucket of publishes for all of a worker's runs."""

    def __init__(self, publishes_per_second: int, clock: Callable[[], float] = time.monotonic):
        self._rate = publishes_per_second
        self._clock = clock
        self._most = max(1.0, publishes_per_second * _BURST)
        self._tokens = self._most
        self._filled = clock()
        self._queue: deque[Callable[[], None]] = deque()
        self._ticking = False

    def ask(self, publish: Callable[[], None], *, first: bool = False) -> None:
        """Have ``publish`` called when it is its turn: at once where the rate allows it.

        A run asks only once until it was called.
        """
        self._fill()
        if first or (self._tokens >= 1 and not self._queue):
            self._tokens -= 1
            publish()
            return
        self._queue.append(publish)
        self._tick_later()

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now

    def _tick_later(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self._fill()
        try:
            while self._queue and self._tokens >= 1:
                self._tokens -= 1
                self._queue.popleft()()
        finally:  # whatever one run's publish raised, the others want their turn
            if self._queue:
                self._tick_later()
