"""A watch over one stream: seconds without content, whatever else keeps coming."""

import asyncio
from types import TracebackType
from typing import NamedTuple, Self

from services.llm_worker.providers.base import ProviderError


class Timeouts(NamedTuple):
    """Seconds that content is waited for; 0: for ever."""

    first_word: float
    """For the first of it: a model may have to be loaded, a long prompt to be read."""
    between: float
    """For more of it."""


class Silence:
    """Ends the wait of the task inside it when the provider says nothing for too long.

    Nothing but content counts: no heartbeat, no headers.  One timer for the stream,
    set anew only when it fires: what a token costs is an assignment.

    Raises:
        ProviderError: code ``timeout``, on leaving the ``with`` block; nothing where
            only the mark of the end was waited for.
    """

    __slots__ = (
        "_began",
        "_ending",
        "_fired",
        "_limit",
        "_loop",
        "_provider",
        "_since",
        "_task",
        "_timeouts",
        "_timer",
    )

    def __init__(self, provider: str, timeouts: Timeouts) -> None:
        self._provider = provider
        self._timeouts = timeouts
        self._limit = timeouts.first_word
        self._began = False
        """Content has come."""
        self._ending = False
        """The reply has had its end."""
        self._fired = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._since = self._loop.time()
        self._set_timer(self._limit)
        return self

    def hear(self) -> None:
        """Start the wait anew: content has come, and more is awaited."""
        self._since = self._loop.time()
        if not self._began:
            self._began = True
            self._set_timer(self._timeouts.between)

    def await_end(self, ending: bool, tail: float) -> None:
        """The reply has had its end, or goes on after all: ``tail`` seconds for what may follow."""
        self._ending = ending
        self._since = self._loop.time()
        self._set_timer(tail if ending else self._timeouts.between)

    def _set_timer(self, limit: float) -> None:
        self._limit = limit
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(limit, self._look) if limit else None

    def _look(self) -> None:
        left = self._since + self._limit - self._loop.time()
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
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        if not self._fired or self._task is None:
            return False
        # as asyncio.timeout does it: a cancel from elsewhere that came meanwhile goes first
        is_ours = self._task.uncancel() == 0 and kind is asyncio.CancelledError
        if is_ours and not self._ending:
            raise self._fault() from error
        return is_ours

    def _fault(self) -> ProviderError:
        silence = f"{self._provider} said nothing for {self._limit:g} seconds"
        if self._began:
            return ProviderError(f"{silence}.", code="timeout", transient=True)
        # Another try would abort the loading that it waits for, and begin it again.
        return ProviderError(
            f"{silence}, not even a first word. If its model takes longer to load or to read a "
            "long prompt, raise NATTERLOG_FIRST_WORD_TIMEOUT.",
            code="timeout",
            transient=True,
            leave_alone=True,
        )
