"""How far the projection has got, and the wait for it to get somewhere."""

import asyncio
from contextlib import suppress

from shared.errors import Unavailable

TIMEOUT = 10.0
"""Seconds that an answer waits for a fact to be applied (docs/failures.md)."""
SOON = 0.5
"""Seconds that an answer waits for what the store has only heard of."""
LONG = 15.0
"""The same for a fact that brings a whole conversation."""


class Watermark:
    """The last applied sequence; the store's loop alone advances it."""

    def __init__(self) -> None:
        self.seq = 0
        self.known = 0
        """The highest sequence that the store has heard of, or appended."""
        self._waiting: set[tuple[int, asyncio.Future[None]]] = set()

    def advance(self, seq: int) -> None:
        self.seq = seq
        for item in [i for i in self._waiting if i[0] <= seq]:
            self._waiting.discard(item)
            if not item[1].done():
                item[1].set_result(None)

    def note(self, seq: int) -> None:
        """A fact of this sequence is in the log."""
        self.known = max(self.known, seq)

    async def catch_up(self, min_seq: int) -> None:
        """Wait for ``min_seq``, and for what the store knows of already, if it comes soon.

        So whoever was answered by a command, through whichever gateway, finds in the
        tables what it did.

        Raises:
            Unavailable: ``min_seq`` takes too long.
        """
        await self.wait_for(min_seq)
        with suppress(Unavailable):
            await self.wait_for(self.known, within=SOON)

    async def wait_for(self, seq: int, *, within: float | None = None) -> None:
        """Wait until the fact is applied, for ``within`` seconds (None: ``TIMEOUT``).

        Raises:
            Unavailable: it takes too long; worth trying again.
        """
        if seq <= self.seq:
            return
        item = (seq, asyncio.get_running_loop().create_future())
        self._waiting.add(item)
        try:
            async with asyncio.timeout(TIMEOUT if within is None else within):
                await item[1]
        except TimeoutError:
            raise Unavailable(
                "The answer is not known yet; please try again.", retry_after=1.0
            ) from None
        finally:
            self._waiting.discard(item)
