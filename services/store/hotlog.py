"""EVENTS as the store sees it: where it begins, and how its old end is cut off."""

from typing import Any

from shared.bus import Bus
from shared.subjects import EVENTS


class HotLog:
    """What the store knows of the extent of EVENTS."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.first = 0
        """No fact below this sequence is there; more may be gone by now."""

    def expected(self, last_seq: int) -> int:
        """The head of a chain whose last fact was ``last_seq``: 0 once that was trimmed."""
        return last_seq if last_seq >= self.first else 0

    async def refresh(self) -> tuple[int, int]:
        """Ask for the first and the last sequence.

        Raises:
            NoAnswer, ApiError: the server did not say.
        """
        state: dict[str, Any] = (await self._bus.api(f"STREAM.INFO.{EVENTS}"))["state"]
        self.first = state["first_seq"]
        return state["first_seq"], state["last_seq"]

    async def drop_before(self, seq: int) -> None:
        """Drop every fact below ``seq``; in an emptier stream, go on numbering from there.

        Raises:
            NoAnswer, ApiError: it is not known to be done.
        """
        await self._bus.api(f"STREAM.PURGE.{EVENTS}", {"seq": seq})
        await self.refresh()
