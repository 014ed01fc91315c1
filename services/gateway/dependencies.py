"""Whether the other services answer: what a gateway can do depends on them."""

import asyncio

from shared.bus import Bus, NoAnswer
from shared.subjects import ping

_PING = 0.5
"""Seconds that one of a kind has to say that it is there."""


class Others:
    """Asks after the services of a kind; whoever asks meanwhile shares the answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._asking: dict[str, asyncio.Task[str | None]] = {}

    async def check(self, kind: str) -> str | None:
        """None when one of them answers, else a sentence."""
        asking = self._asking.get(kind)
        if asking is None:
            asking = self._asking[kind] = asyncio.create_task(self._ask(kind))
        return await asyncio.shield(asking)

    async def _ask(self, kind: str) -> str | None:
        # Every NATS micro service answers this by itself; the first one is enough.
        try:
            await self._bus.call(ping(kind), timeout=_PING)
        except NoAnswer:
            return f"no {kind} answers"
        else:
            return None
        finally:
            del self._asking[kind]
