"""Whoever wants to know when there is something new."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Watchers(Generic[P]):
    """A set of callbacks that are called at every change, with what changed."""

    def __init__(self) -> None:
        self._watchers: set[Callable[P, None]] = set()

    @contextmanager
    def watching(self, watcher: Callable[P, None]) -> Generator[None]:
        """Have ``watcher`` called while the block runs."""
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def wake(self, *args: P.args, **kwargs: P.kwargs) -> None:
        for watcher in self._watchers:
            watcher(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self._watchers)
