"""How far the projection has got, and the wait for it to get somewhere."""

import asyncio

from shared.errors import Unavailable

TIMEOUT = 2.0
"""Seconds that an answer waits for a fact to be applied (docs/failures.md)."""
LONG = 15.0
"""The same for a fact that brings a whole conversation."""


class Watermark:
    """The last applied sequence; the store's loop alone advances it."""

    def __init__(self) -> None:
        self.seq = 0
        self._waiting: set[tuple[int, asyncio.Future[None]]] = set()

    def advance(self, seq: int) -> None:
        self.seq = seq
        for item in [i for i in self._waiting if i[0] <= seq]:
            self._waiting.discard(item)
            if not item[1].done():
                item[1].set_result(None)

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
