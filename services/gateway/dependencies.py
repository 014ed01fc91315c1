"""Whether the other services answer: what a gateway can do depends on them."""

from services.gateway.single_flight import SingleFlight
from shared.bus import Bus, NoAnswer
from shared.subjects import ping

_PING = 0.5
"""Seconds that one of a kind has to say that it is there."""


class OtherServices:
    """Asks after the services of a kind; whoever asks meanwhile shares the answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._pings = SingleFlight(self._ping, name="service-ping")

    async def check(self, kind: str) -> str | None:
        """None when one of them answers, else a sentence."""
        return await self._pings.of(kind).result()

    async def _ping(self, kind: str) -> str | None:
        # Every NATS micro service answers this by itself; the first one is enough.
        try:
            await self._bus.call(ping(kind), timeout=_PING)
        except NoAnswer:
            return f"no {kind} answers"
        return None
