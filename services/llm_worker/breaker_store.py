"""The breakers' state in a KV bucket, which all workers share."""

from services.llm_worker.breaker import BreakerStoreUnavailable
from shared.bus import Bus, BusError, WrongSequence
from shared.streams import BREAKERS
from shared.subjects import EVERY_BREAKER, breaker

MOST = 10_000
"""Circuits that the bucket keeps: all of them."""


class KvBreakerStore:
    """Values by key, changed by compare-and-set."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def get(self, key: str) -> tuple[bytes | None, int]:
        """(value, revision); (None, 0) when there is none.

        Raises:
            BreakerStoreUnavailable: the bucket could not be asked.
        """
        try:
            stored = await self._bus.head(BREAKERS, breaker(key))
        except BusError as error:
            raise BreakerStoreUnavailable(str(error)) from error
        return (stored.data, stored.seq) if stored else (None, 0)

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        """Set it if nobody was faster since ``revision``.

        Raises:
            BreakerStoreUnavailable: it is not known to be set.
        """
        try:
            await self._bus.append(breaker(key), value, expected=revision)
        except WrongSequence:
            return False
        except BusError as error:
            raise BreakerStoreUnavailable(str(error)) from error
        return True

    async def every_value(self) -> list[bytes]:
        """The last value of every key.

        Raises:
            BreakerStoreUnavailable: they could not be read.
        """
        try:
            kept = await self._bus.read(BREAKERS, EVERY_BREAKER, limit=MOST)
        except BusError as error:
            raise BreakerStoreUnavailable(str(error)) from error
        return [stored.data for stored in kept]
