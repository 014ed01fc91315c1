"""All feeds of a gateway: who opens them, what reaches them, when they are dropped."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self

from services.gateway.metrics import FEEDS
from services.gateway.sessions.feed import Feed
from shared.bus import Bus, BusError, Incoming, Listening
from shared.errors import NotFound, Unavailable
from shared.log import get_logger
from shared.store_client import StoreClient
from shared.subjects import EVENTS, EVERY_FACT, live_facts_of_user, parse

log = get_logger()

LINGER = 30.0
"""Seconds for which a feed waits for its clients to come back."""
SILENCE = 10.0
"""Seconds after which a reply that says nothing is looked into."""
_ROUND = 1.0
_PAGE = 1000

FactWatcher = Callable[[int, str, bytes], None]


class _User:
    """What the gateway hears for one user: a single subscription for all his facts."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.watchers: set[FactWatcher] = set()
        self.opening: asyncio.Task[Listening] | None = None
        self.leases = 0


class Hub:
    """``async with Hub(bus, store) as hub: async with hub.feed(user, session) as feed: …``"""

    def __init__(self, bus: Bus, store: StoreClient) -> None:
        self._bus = bus
        self._store = store
        self._users: dict[str, _User] = {}
        self._feeds: dict[tuple[str, str], _Shared] = {}
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
        for shared in list(self._feeds.values()):
            await self._drop(shared)

    # -- for clients ----------------------------------------------------------------

    @asynccontextmanager
    async def feed(self, user: str, session_id: str) -> AsyncGenerator[Feed]:
        """The session's feed, opened by its first client and shared by the others.

        Raises:
            NotFound: the session is not there, or not this user's.
            Unavailable: the store or the log does not answer.
        """
        with self.opening(user, session_id) as shared:
            await shared.ready()
            if shared.feed.gone:  # some client still holds it, and all that was erased with it
                raise NotFound("There is no such session.")
            yield shared.feed

    @contextmanager
    def opening(self, user: str, session_id: str) -> Generator["_Shared"]:
        """Have the feed opened while something else is waited for: it is wanted in a moment."""
        key = (user, session_id)
        shared = self._feeds.get(key)
        if shared is None or shared.failed:
            shared = self._feeds[key] = _Shared(
                Feed(self._bus, self._store, user, session_id), self._open
            )
        shared.clients += 1
        try:
            yield shared
        finally:
            shared.clients -= 1
            shared.left_at = asyncio.get_running_loop().time()
            if shared.failed and self._feeds.get(key) is shared:
                del self._feeds[key]

    @asynccontextmanager
    async def facts_of(self, user: str, watcher: FactWatcher) -> AsyncGenerator[None]:
        """Hand every fact of the user to ``watcher`` while the block runs."""
        heard = await self._hear(user)
        heard.watchers.add(watcher)
        try:
            yield
        finally:
            heard.watchers.discard(watcher)
            await self._unhear(user)

    # -- one subscription a user --------------------------------------------------------

    async def _hear(self, user: str) -> _User:
        heard = self._users.setdefault(user, _User())
        heard.leases += 1
        try:
            if heard.opening is None:
                heard.opening = asyncio.create_task(
                    self._bus.listen_live(live_facts_of_user(user), self._on_fact)
                )
            await asyncio.shield(heard.opening)
        except BaseException:
            await self._unhear(user)
            raise
        return heard

    async def _unhear(self, user: str) -> None:
        heard = self._users[user]
        heard.leases -= 1
        if heard.leases:
            return
        del self._users[user]
        if heard.opening is not None and not heard.opening.cancelled():
            await (await heard.opening).close()

    def _on_fact(self, message: Incoming) -> None:
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
        if heard is None:
            return
        feed = heard.feeds.get(address.session)
        if feed is not None:
            feed.on_fact(seq, subject, data)
        for watcher in heard.watchers:
            watcher(seq, subject, data)

    def _feed_of(self, subject: str) -> Feed | None:
        address = parse(subject)
        heard = self._users.get(address.user)
        return heard.feeds.get(address.session) if heard else None

    # -- feeds ------------------------------------------------------------------------

    async def _open(self, feed: Feed) -> None:
        heard = await self._hear(feed.user)
        heard.feeds[feed.session_id] = feed
        try:
            await feed.open()
        except BaseException as error:
            await self._close(feed)
            if isinstance(error, BusError):
                raise Unavailable(
                    "The log cannot be read at the moment; please try again.", retry_after=2.0
                ) from error
            raise

    async def _close(self, feed: Feed) -> None:
        await feed.close()
        heard = self._users[feed.user]
        if heard.feeds.get(feed.session_id) is feed:  # it may have been opened anew meanwhile
            del heard.feeds[feed.session_id]
        await self._unhear(feed.user)

    async def _drop(self, shared: "_Shared") -> None:
        self._feeds.pop((shared.feed.user, shared.feed.session_id), None)
        if await shared.settled():
            await self._close(shared.feed)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_ROUND)
            now = loop.time()
            for shared in list(self._feeds.values()):
                try:
                    await self._look_after(shared, now)
                except BusError as error:
                    log.warning("hub.look_failed", error=str(error))

    async def _look_after(self, shared: "_Shared", now: float) -> None:
        running = shared.feed.running
        if not shared.clients and (now - shared.left_at > LINGER or shared.feed.gone):
            await self._drop(shared)
        elif running is not None and now - running.heard > SILENCE and self._bus.connected:
            await shared.feed.check_silence()

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
        for shared in self._feeds.values():
            shared.feed.refill_after_outage()

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


class _Shared:
    """A feed with those who hold it; opened in a task of its own, so no client can break it off."""

    def __init__(self, feed: Feed, open_feed: Callable[[Feed], Coroutine[Any, Any, None]]) -> None:
        self.feed = feed
        self.clients = 0
        self.left_at = 0.0
        self._opening = asyncio.create_task(open_feed(feed), name="feed-open")
        self._opening.add_done_callback(_seen)  # whoever waited for it may have left

    async def ready(self) -> None:
        await asyncio.shield(self._opening)

    async def settled(self) -> bool:
        """Whether the feed was opened, once that is known."""
        await asyncio.wait([self._opening])
        return not self.failed

    @property
    def failed(self) -> bool:
        done = self._opening.done()
        return done and (self._opening.cancelled() or self._opening.exception() is not None)


def _seen(opening: "asyncio.Task[None]") -> None:
    if not opening.cancelled():
        opening.exception()
