"""A gateway's job feeds: one a user, opened by his first client, kept a while after the last."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from services.gateway.jobs.feed import JobFeed
from services.gateway.jobs.log import JobLog
from services.gateway.sessions.hub import Hub
from services.gateway.sessions.shared_feeds import SharedFeeds
from shared.bus import Bus, BusError
from shared.errors import NatterlogError
from shared.log import get_logger
from shared.records import Job
from shared.store_client import StoreClient

log = get_logger()

_ROUND = 1.0
_MOST_ENDED = 10_000


class JobHub:
    """``async with JobHub(hub, bus, store) as jobs: async with jobs.of(user) as feed: …``"""

    def __init__(self, hub: Hub, bus: Bus, store: StoreClient) -> None:
        self._hub = hub
        self._bus = bus
        self._store = store
        self._feeds = SharedFeeds(self._new_feed, _opening)
        self._ended: OrderedDict[str, int] = OrderedDict()
        """Run → progress of jobs that ended, which never changes; the latest that were listed."""
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._bus.on_reconnect(self._reconnected)
        self._keeper = asyncio.create_task(self._keep(), name="job-hub-keeper")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        await self._feeds.drop_all()

    def of(self, user: str) -> AbstractAsyncContextManager[JobFeed]:
        """The user's feed, opened by the first of his clients and shared by the others.

        Raises:
            Unavailable: the store or the log does not answer.
        """
        return self._feeds.feed(user)

    async def progress_of(self, user: str, record: Job) -> int:
        """How far one job has got, by the user's feed if it is open, else read without following.

        Raises:
            Unavailable, BusError: the store or the log cannot be asked.
        """
        run_id = record.run.id
        feed = self._feeds.opened(user)
        if feed is not None and run_id in feed.jobs:
            return feed.jobs[run_id].progress
        if run_id in self._ended:
            return self._ended[run_id]
        progress = (await JobLog(self._bus, self._store, user).state_of(record)).progress
        if record.run.ended_at is not None:
            self._ended[run_id] = progress
            if len(self._ended) > _MOST_ENDED:
                self._ended.popitem(last=False)
        return progress

    def _new_feed(self, user: str) -> JobFeed:
        return JobFeed(self._hub, self._bus, self._store, user)

    def _reconnected(self) -> None:
        for feed in self._feeds:
            feed.refill()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_ROUND)
            await self._feeds.drop_idle()
            for feed in self._feeds.open if self._bus.connected else ():
                try:
                    await feed.look_after()
                except (BusError, NatterlogError) as error:
                    log.warning("jobs.look_failed", error=str(error))


@asynccontextmanager
async def _opening(feed: JobFeed) -> AsyncGenerator[None]:
    try:
        await feed.open()
        yield
    finally:
        await feed.close()
