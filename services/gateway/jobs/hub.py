"""All boards of a gateway: one a user, opened by his first client, kept a while after the last."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from services.gateway.jobs.feed import JobFeed
from services.gateway.sessions.hub import Hub
from shared.bus import Bus, BusError
from shared.errors import NatterlogError, Unavailable
from shared.log import get_logger
from shared.store_client import StoreClient

log = get_logger()

LINGER = 30.0
"""Seconds for which a board waits for its clients to come back."""
_ROUND = 1.0


class JobHub:
    """``async with JobHub(hub, bus, store) as jobs: async with jobs.of(user) as feed: …``"""

    def __init__(self, hub: Hub, bus: Bus, store: StoreClient) -> None:
        self._hub = hub
        self._bus = bus
        self._store = store
        self._shared: dict[str, _Shared] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._bus.on_reconnect(self._reconnected)
        self._keeper = asyncio.create_task(self._keep(), name="boards-keeper")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        for shared in list(self._shared.values()):
            await self._drop(shared)

    @asynccontextmanager
    async def of(self, user: str) -> AsyncGenerator[JobFeed]:
        """The user's board, opened by the first of his clients and shared by the others.

        Raises:
            Unavailable: the store or the log does not answer.
        """
        shared = self._shared.get(user)
        if shared is None or shared.failed:
            shared = self._shared[user] = _Shared(JobFeed(self._hub, self._bus, self._store, user))
        shared.clients += 1
        try:
            await asyncio.shield(shared.opening)
            yield shared.board
        finally:
            shared.clients -= 1
            shared.left_at = asyncio.get_running_loop().time()
            if shared.failed and self._shared.get(user) is shared:
                del self._shared[user]

    def _reconnected(self) -> None:
        for shared in self._shared.values():
            shared.board.refill()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_ROUND)
            for shared in list(self._shared.values()):
                if not shared.clients and loop.time() - shared.left_at > LINGER:
                    await self._drop(shared)
                elif shared.is_open and self._bus.connected:
                    try:
                        await shared.board.look_after(loop.time())
                    except (BusError, NatterlogError) as error:
                        log.warning("board.look_failed", error=str(error))

    async def _drop(self, shared: "_Shared") -> None:
        self._shared.pop(shared.board.user, None)
        await asyncio.wait([shared.opening])
        if not shared.failed:
            await shared.board.close()


class _Shared:
    """A board with those who hold it; opened in a task, so no client can break that off."""

    def __init__(self, board: JobFeed) -> None:
        self.board = board
        self.clients = 0
        self.left_at = 0.0
        self.opening = asyncio.create_task(self._open(), name="board-open")

    async def _open(self) -> None:
        try:
            await self.board.open()
        except BaseException as error:
            await self.board.close()
            if isinstance(error, BusError):
                raise Unavailable(
                    "The log cannot be read at the moment; please try again.", retry_after=2.0
                ) from error
            raise

    @property
    def is_open(self) -> bool:
        return self.opening.done() and not self.failed

    @property
    def failed(self) -> bool:
        done = self.opening.done()
        return done and (self.opening.cancelled() or self.opening.exception() is not None)
