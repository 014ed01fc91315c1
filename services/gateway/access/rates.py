"""How many messages each user sends a minute, over all gateways and dialects (docs/api.md).

Every start of a run adds one to the user's counter in ``RATES``; how many there
were in the last minute is the difference to the total before the first of them.
So the window slides, and 120 go where the 121st does not, whichever gateways they
come by.  What started nothing is taken back.
"""

import asyncio
import math
from datetime import timedelta
from typing import NamedTuple

from shared import counters
from shared.bus import Bus, BusError
from shared.errors import RateLimited
from shared.ids import now
from shared.log import get_logger
from shared.settings import Settings
from shared.subjects import RATES, rate

log = get_logger()

WINDOW = 60
"""Seconds."""
_TIMEOUT = 1.0
_REMEMBERED = 1.0
"""Seconds at most for which a refusal is repeated without looking."""


class Rate(NamedTuple):
    """What is left of a user's limit, and when there is one more again."""

    most: int
    left: int
    reset: float

    def headers(self) -> dict[str, str]:
        """The header fields RateLimit-Policy and RateLimit."""
        return {
            "RateLimit-Policy": f'"default";q={self.most};w={WINDOW}',
            "RateLimit": f'"default";r={self.left};t={math.ceil(self.reset)}',
        }

    def refusal(self) -> RateLimited:
        return RateLimited(
            f"At most {self.most} messages a minute; please wait.", retry_after=self.reset
        )


class Rates:
    """Counts messages; when the counters cannot be reached it lets them through."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._most = settings.messages_per_minute
        self._bus = bus
        self._full: dict[str, tuple[float, Rate]] = {}
        """Users who were refused a moment ago, and until when that is not looked at again."""

    async def count(self, user: str) -> Rate | None:
        """Count one more message; ``left`` below zero: it is one too many, and was not counted.

        None where nothing is counted: there is no limit, or no counter.
        """
        if not self._most:
            return None
        refused = self._refused(user)
        if refused is not None:
            return refused
        try:
            found = await self._add(user)
        except BusError as error:
            log.warning("rates.unreachable", error=str(error))
            return None
        if found.left < 0:
            self.take_back(user)
            self._remember(user, found)
        return found

    def take_back(self, user: str) -> None:
        """Take back the count of a message that started nothing."""
        try:
            counters.take_back(self._bus, rate(user))
        except BusError as error:
            log.warning("rates.unreachable", error=str(error))

    async def _add(self, user: str) -> Rate:
        subject, start = rate(user), now() - timedelta(seconds=WINDOW)
        total = await counters.add(self._bus, subject, timeout=_TIMEOUT)
        first = await counters.since(self._bus, RATES, subject, start, timeout=_TIMEOUT)
        if first is None:  # the clocks of two machines differ by more than the window
            return Rate(self._most, self._most - 1, WINDOW)
        reset = (first.at - start).total_seconds()
        return Rate(self._most, self._most - (total - first.before), min(max(reset, 0.1), WINDOW))

    def _refused(self, user: str) -> Rate | None:
        known = self._full.get(user)
        if known is None:
            return None
        until, found = known
        if asyncio.get_running_loop().time() < until:
            return found
        del self._full[user]
        return None

    def _remember(self, user: str, found: Rate) -> None:
        until = asyncio.get_running_loop().time() + min(_REMEMBERED, found.reset)
        self._full[user] = (until, found)
