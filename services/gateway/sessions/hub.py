"""All feeds of a gateway: who opens them, what reaches them, when they are dropped."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from services.gateway.metrics import FEEDS
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.shared_feeds import SharedFeeds
from services.gateway.sessions.watchers import Watchers
from services.gateway.single_flight import Flight
from shared.bus import Bus, BusError, Incoming, Listening
from shared.errors import NotFound
from shared.log import get_logger
from shared.store_client import StoreClient
from shared.subjects import EVENTS, EVERY_FACT, live_facts_of_user, parse

log = get_logger()

SILENCE = 10.0
"""Seconds after which a reply that says nothing is looked into."""
_ROUND = 1.0
_PAGE = 1000


class _UserFacts:
    """What the gateway hears for one user: a single subscription for all his facts."""

    def __init__(self, subscribing: Flight[Listening]) -> None:
        self.subscribing = subscribing
        self.holders = 0
        self.feeds: dict[str, Feed] = {}
        self.watchers = Watchers[[int, str, bytes]]()

    def take(self, session_id: str, seq: int, subject: str, data: bytes) -> None:
        feed = self.feeds.get(session_id)
        if feed is not None:
            feed.on_fact(seq, subject, data)
        self.watchers.wake(seq, subject, data)

    async def close(self) -> None:
        if await self.subscribing.landed():
            await (await self.subscribing.result()).close()


class Hub:
    """``async with Hub(bus, store) as hub: async with hub.feed(user, session) as feed: …``"""

    def __init__(self, bus: Bus, store: StoreClient) -> None:
        self._bus = bus
        self._store = store
        self._users: dict[str, _UserFacts] = {}
        self._feeds = SharedFeeds(self._new_feed, self._open)
        self._seen = self._wanted = 0
        self._catching_up: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        info = await self._bus.api(f"STREAM.INFO.{EVENTS}")
        self._seen = info["state"]["last_seq"]
        FEEDS.set_function(lambda: len(self._feeds))
        self._bus.on_reconnect(self._reconnected)
        self._keeper = asyncio.create_task(self._keep(), name="hub-keeper")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in (self._keeper, self._catching_up):
            if task is not None:
                task.cancel()
        await self._feeds.drop_all()

    # -- for clients ----------------------------------------------------------------

    @asynccontextmanager
    async def feed(self, user: str, session_id: str) -> AsyncGenerator[Feed]:
        """The session's feed, opened by its first client and shared by the others.

        Raises:
            NotFound: the session is not there, or not this user's.
            Unavailable: the store or the log does not answer.
        """
        async with self._feeds.feed((user, session_id)) as feed:
            if feed.state.gone:  # some client still holds it, and all that was erased with it
                raise NotFound("There is no such session.")
            yield feed

    def opening(self, user: str, session_id: str) -> AbstractContextManager[object]:
        """Have the feed opened while the block waits for something else."""
        return self._feeds.wanted((user, session_id))

    @asynccontextmanager
    async def facts_of(self, user: str) -> AsyncGenerator[Watchers[[int, str, bytes]]]:
        """The callbacks for every fact of the user, who is listened to while the block runs."""
        async with self._heard(user) as heard:
            yield heard.watchers

    # -- one subscription a user --------------------------------------------------------

    @asynccontextmanager
    async def _heard(self, user: str) -> AsyncGenerator[_UserFacts]:
        heard = self._users.get(user)
        if heard is None:
            subscribing = self._bus.listen_live(live_facts_of_user(user), self.on_fact)
            heard = self._users[user] = _UserFacts(Flight(subscribing, name="user-facts"))
        heard.holders += 1
        try:
            await heard.subscribing.result()
            yield heard
        finally:
            heard.holders -= 1
            if not heard.holders:
                del self._users[user]
                await heard.close()

    def on_fact(self, message: Incoming) -> None:
        subject = message.subject.removeprefix("live.")
        self._store.heard(message.sequence)
        if self._bus.connected and self._catching_up is None:
            self._seen = max(self._seen, message.sequence)
            self._hand_out(message.sequence, subject, message.data)
        else:
            # Others before it may be lost; the catch-up reads it from the log in order.
            self._wanted = max(self._wanted, message.sequence)
            feed = self._feed_of(subject)
            if feed is not None:
                feed.miss(message.sequence)

    def _hand_out(self, seq: int, subject: str, data: bytes) -> None:
        address = parse(subject)
        heard = self._users.get(address.user)
        if heard is not None:
            heard.take(address.session, seq, subject, data)

    def _feed_of(self, subject: str) -> Feed | None:
        address = parse(subject)
        heard = self._users.get(address.user)
        return heard.feeds.get(address.session) if heard else None

    # -- feeds ------------------------------------------------------------------------

    def _new_feed(self, key: tuple[str, str]) -> Feed:
        user, session_id = key
        return Feed(self._bus, self._store, user, session_id)

    @asynccontextmanager
    async def _open(self, feed: Feed) -> AsyncGenerator[None]:
        """Hand the session's facts to its feed from before it reads until it is closed."""
        async with self._heard(feed.user) as heard:
            heard.feeds[feed.session_id] = feed
            try:
                await feed.open()
                yield
            finally:
                await feed.close()
                if heard.feeds.get(feed.session_id) is feed:  # it may have been opened anew
                    del heard.feeds[feed.session_id]

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_ROUND)
            await self._feeds.drop_idle(lambda feed: feed.state.gone)
            for feed in self._feeds.open:
                if feed.is_silent(SILENCE) and self._bus.connected:
                    try:
                        await feed.check_silence()
                    except BusError as error:
                        log.warning("hub.look_failed", error=str(error))

    # -- after an outage ------------------------------------------------------------------

    def _reconnected(self) -> None:
        if self._catching_up is not None:
            self._catching_up.cancel()
        self._catching_up = asyncio.create_task(self._catch_up(), name="hub-catch-up")

    async def _catch_up(self) -> None:
        """Read what was missed once for all feeds, then let each look at its reply."""
        while True:
            try:
                await self._read_missed()
                break
            except BusError as error:
                log.warning("hub.catch_up_failed", error=str(error))
                await asyncio.sleep(_ROUND)
        self._catching_up = None
        for feed in self._feeds:
            feed.refill_after_outage()

    async def _read_missed(self) -> None:
        if not self._users:
            return
        while True:
            stored = await self._bus.read(EVENTS, EVERY_FACT, after=self._seen, limit=_PAGE)
            for seq, subject, data in stored:
                self._seen = seq
                self._hand_out(seq, subject, data)
            if len(stored) < _PAGE and self._seen >= self._wanted:
                return
            if not stored:  # a replica that lags
                await asyncio.sleep(_ROUND)
