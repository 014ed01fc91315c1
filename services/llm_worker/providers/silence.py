"""A watch over one stream: seconds without content, whatever else keeps coming."""

import asyncio
from math import inf
from types import TracebackType
from typing import Self

from services.llm_worker.providers.base import ProviderError


class Silence:
    """Ends the wait of the task inside it when the provider says nothing for too long.

    One timer for the stream, set anew only when it fires: what a token costs is
    two assignments.  The time that the *reader* takes does not count, so around
    each ``yield`` stand :meth:`pause` and :meth:`listen`.

    Raises:
        ProviderError: code ``timeout``, on leaving the ``with`` block.
    """

    __slots__ = ("_fired", "_limit", "_loop", "_provider", "_since", "_task", "_timer")

    def __init__(self, provider: str, limit: float) -> None:
        self._provider = provider
        self._limit = limit
        """Seconds; 0: for ever."""
        self._fired = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.listen()
        if self._limit:
            self._timer = self._loop.call_later(self._limit, self._look)
        return self

    def listen(self) -> None:
        """From now on content is awaited, by this task."""
        self._task = asyncio.current_task()
        self._since = self._loop.time()

    def pause(self) -> None:
        """Content has come, and the reader is busy with it."""
        self._since = inf

    def _look(self) -> None:
        left = self._limit if self._since == inf else self._since + self._limit - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif self._task is not None and not self._task.cancelling():
            self._fired = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._fired or self._task is None:
            return
        # as asyncio.timeout does it: a cancel from elsewhere that came meanwhile goes first
        if self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ProviderError(
                f"{self._provider} said nothing for {self._limit:g} seconds.",
                code="timeout",
                passing=True,
            ) from error
