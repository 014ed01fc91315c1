"""Work that many wait for and that is done once: nobody who leaves breaks it off."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Flight(Generic[T]):
    """One piece of work, in a task of its own."""

    def __init__(self, work: Coroutine[Any, Any, T], name: str) -> None:
        self._task = asyncio.create_task(work, name=name)
        self._task.add_done_callback(_take_note)

    async def result(self) -> T:
        """Wait for the work's result, or for the error that it raises."""
        return await asyncio.shield(self._task)

    async def landed(self, within: float | None = None) -> bool:
        """Wait until it is over, so many seconds at most; whether it has succeeded."""
        await asyncio.wait([self._task], timeout=within)
        return self.succeeded

    @property
    def over(self) -> bool:
        return self._task.done()

    @property
    def succeeded(self) -> bool:
        return self.over and not self.failed

    @property
    def failed(self) -> bool:
        return self.over and (self._task.cancelled() or self._task.exception() is not None)

    def when_over(self, call: Callable[[], object]) -> None:
        self._task.add_done_callback(lambda _: call())

    def cancel(self) -> None:
        self._task.cancel()


class SingleFlight(Generic[K, T]):
    """Work by key: whoever asks for it while it is under way shares it."""

    def __init__(self, work: Callable[[K], Coroutine[Any, Any, T]], name: str) -> None:
        self._work = work
        self._name = name
        self._under_way: dict[K, Flight[T]] = {}

    def of(self, key: K) -> Flight[T]:
        """The work that is under way for ``key``, begun now if there is none."""
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = Flight(self._work(key), self._name)
            flight.when_over(partial(self._under_way.pop, key))
        return flight

    def under_way(self, key: K) -> Flight[T] | None:
        return self._under_way.get(key)

    def cancel(self) -> None:
        for flight in [*self._under_way.values()]:
            flight.cancel()


def _take_note(task: "asyncio.Task[Any]") -> None:
    """Look at a failure that nobody may be left to look at: else asyncio reports it."""
    if not task.cancelled():
        task.exception()
