"""Feeds that many clients share: opened by the first of them, kept a while after the last."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Generic, TypeVar

from services.gateway.single_flight import Flight
from shared.bus import BusError
from shared.errors import Unavailable

K = TypeVar("K", bound=Hashable)
F = TypeVar("F")

LINGER = 30.0
"""Seconds for which a feed waits for its clients to come back."""


class SharedFeed(Generic[F]):
    """A feed with those who hold it; opened in a task of its own, so no client can break it off."""

    def __init__(
        self, feed: F, opening: Callable[[F], AbstractAsyncContextManager[object]]
    ) -> None:
        self.feed = feed
        self.clients = 0
        self.left_at = 0.0
        self._resources = AsyncExitStack()
        self.opened = Flight(self._open(opening(feed)), name="feed-open")

    async def _open(self, opening: AbstractAsyncContextManager[object]) -> None:
        try:
            await self._resources.enter_async_context(opening)
        except BusError as error:
            raise Unavailable(
                "The log cannot be read at the moment; please try again.", retry_after=2.0
            ) from error

    async def close(self) -> None:
        await self.opened.landed()
        await self._resources.aclose()


class SharedFeeds(Generic[K, F]):
    """Feeds by key: ``make`` gives one that is closed, ``opening`` has it open for a block."""

    def __init__(
        self,
        make: Callable[[K], F],
        opening: Callable[[F], AbstractAsyncContextManager[object]],
    ) -> None:
        self._make = make
        self._opening = opening
        self._shared: dict[K, SharedFeed[F]] = {}

    def __len__(self) -> int:
        return len(self._shared)

    def __iter__(self) -> Iterator[F]:
        """All of them, those too that are being opened."""
        return iter([shared.feed for shared in self._shared.values()])

    @property
    def open(self) -> list[F]:
        """The feeds that are open now."""
        return [shared.feed for shared in self._shared.values() if shared.opened.succeeded]

    def opened(self, key: K) -> F | None:
        """The feed if it is open now."""
        shared = self._shared.get(key)
        return shared.feed if shared is not None and shared.opened.succeeded else None

    @asynccontextmanager
    async def feed(self, key: K) -> AsyncGenerator[F]:
        """The feed, open.

        Raises:
            NotFound: there is nothing to follow under this key.
            Unavailable: the store or the log does not answer.
        """
        with self.wanted(key) as shared:
            await shared.opened.result()
            yield shared.feed

    @contextmanager
    def wanted(self, key: K) -> Generator[SharedFeed[F]]:
        """Have the feed opened while the block does something else: it is wanted soon."""
        shared = self._shared.get(key)
        if shared is None or shared.opened.failed:
            shared = self._shared[key] = SharedFeed(self._make(key), self._opening)
        shared.clients += 1
        try:
            yield shared
        finally:
            shared.clients -= 1
            shared.left_at = asyncio.get_running_loop().time()
            if shared.opened.failed and self._shared.get(key) is shared:
                del self._shared[key]

    async def drop_idle(self, is_over: Callable[[F], bool] = lambda _: False) -> None:
        """Close the feeds that nobody came back to, and those that are over and held by nobody."""
        now = asyncio.get_running_loop().time()
        for key, shared in [*self._shared.items()]:
            idle = now - shared.left_at > LINGER or is_over(shared.feed)
            if not shared.clients and idle:
                await self._drop(key, shared)

    async def drop_all(self) -> None:
        for key, shared in [*self._shared.items()]:
            await self._drop(key, shared)

    async def _drop(self, key: K, shared: SharedFeed[F]) -> None:
        if self._shared.get(key) is shared:  # else another was opened in its place meanwhile
            del self._shared[key]
            await shared.close()
