"""How many commands go on at once, and who is next: fair by user, and bounded by the wait.

Every command that appends is on its way into one log, so more than a few at once only
wait for each other there.  What waits here waits in its user's own line, and the lines
are served one after the other: a flood of one user's is nobody else's wait.
"""

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client import Gauge

from shared.errors import Overloaded, RateLimited

SLOTS = 64
"""Commands on their way into the log at once."""
LONGEST_WAIT = 8.0
"""Seconds that a command may be expected to wait; beyond that it is refused at once."""
TIMEOUT = 11.0
"""Seconds after which whoever asked has given up, or is about to (shared/store_client.py)."""
MOST_OF_ONE = 100
"""Commands of one user that may wait while others wait as well."""
USUAL_RATE = 200.0
"""Commands a second, as long as too few have ended to say."""
_ENDED = 100
_FEW = 10

_going = Gauge("natterlog_store_commands_going", "Commands on their way into the log")
_waiting = Gauge("natterlog_store_commands_waiting", "Commands that wait for their turn")
_expected = Gauge("natterlog_store_expected_wait_seconds", "What one more command would wait")


class Admission:
    """``async with admission.slot(user): …`` for each command that appends."""

    def __init__(self, *, slots: int = SLOTS, longest: float = LONGEST_WAIT) -> None:
        self._slots = slots
        self._longest = longest
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Those who wait, by user; the first line is served next."""
        self._ended: deque[float] = deque(maxlen=_ENDED)
        self.going = 0
        self.waiting = 0

    @asynccontextmanager
    async def slot(self, user: str) -> AsyncGenerator[None]:
        """Wait for one's turn, and have it until the block ends.

        Raises:
            Overloaded: it would take too long, or has.
            RateLimited: too many of this user's wait already, and others as well.
        """
        if self.going >= self._slots or self.waiting:
            await self._wait(user)
        else:
            self.going += 1
        try:
            yield
        finally:
            self._ended.append(time.monotonic())
            self._pass_on()

    def expected_wait(self, user: str) -> float:
        """Seconds that one more command of the user's is expected to wait."""
        if self.going < self._slots and not self.waiting:
            return 0.0
        mine = len(self._lines.get(user, ()))
        # A round serves one of each line, so long lines of others do not count in full.
        before = sum(min(len(line), mine + 1) for name, line in self._lines.items() if name != user)
        return (before + mine + 1) / self._rate()

    def _rate(self) -> float:
        """Commands a second of late, but for one pause: a stall that is over tells nothing."""
        ended = self._ended
        if len(ended) < _FEW:
            return USUAL_RATE
        pauses = [after - before for before, after in zip(ended, list(ended)[1:], strict=False)]
        return (len(pauses) - 1) / max(sum(pauses) - max(pauses), 1e-3)

    async def _wait(self, user: str) -> None:
        self._check(user)
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(user, deque()).append(turn)
        self.waiting += 1
        self._show()
        try:
            async with asyncio.timeout(TIMEOUT):
                await turn
        except TimeoutError:
            self._leave(user, turn)
            raise self._overloaded(TIMEOUT) from None
        except asyncio.CancelledError:
            self._leave(user, turn)
            raise

    def _check(self, user: str) -> None:
        wait = self.expected_wait(user)
        if wait > self._longest:
            raise self._overloaded(wait)
        if len(self._lines) > 1 and len(self._lines.get(user, ())) >= MOST_OF_ONE:
            raise RateLimited(
                f"{MOST_OF_ONE} messages of yours wait to be accepted already; "
                f"please wait about {math.ceil(wait)} s.",
                retry_after=math.ceil(wait),
            )

    def _overloaded(self, wait: float) -> Overloaded:
        return Overloaded(
            f"natterlog is overloaded: {self.waiting} messages wait to be accepted, which takes "
            f"about {math.ceil(wait)} s. Yours was not accepted; please try again then.",
            retry_after=math.ceil(wait),
        )

    def _leave(self, user: str, turn: asyncio.Future[None]) -> None:
        """Somebody gave up; a slot that came to him in the same moment goes to the next one."""
        if turn.done() and not turn.cancelled():
            self._pass_on()
            return
        line = self._lines.get(user)
        if line is not None and turn in line:
            line.remove(turn)
            self.waiting -= 1
            if not line:
                del self._lines[user]
        self._show()

    def _pass_on(self) -> None:
        """Hand the slot to the next line's first."""
        self.going -= 1
        while self._lines and self.going < self._slots:
            user, line = next(iter(self._lines.items()))
            turn = line.popleft()
            self.waiting -= 1
            del self._lines[user]
            if line:
                self._lines[user] = line  # it is the last one now
            if not turn.done():
                self.going += 1
                turn.set_result(None)
        self._show()

    def _show(self) -> None:
        _going.set(self.going)
        _waiting.set(self.waiting)
        _expected.set(self.expected_wait(""))
