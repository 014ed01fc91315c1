"""Follow a run to its end: what every dialect does once a message is accepted."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import UNSET

from services.gateway.context import Gateway
from services.gateway.sessions.client_events import ReplyEnded, SessionGone
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.follower import Follower
from shared.errors import NotFound, Unavailable, from_code
from shared.events import Fault, RunEnded
from shared.ids import now
from shared.records import Run


@asynccontextmanager
async def following(
    gateway: Gateway, user: str, run: Run, place: Cursor | None = None
) -> AsyncGenerator[Follower]:
    """A follower of one run, from ``place`` or its first fact on.

    Raises:
        NotFound, Unavailable: the session cannot be followed.
    """
    async with gateway.hub.feed(user, run.session_id) as feed:
        start = place if place is not None else Cursor(run.first_seq - 1)
        yield Follower(feed, gateway.store, start, run_id=run.id)


async def ended(gateway: Gateway, follower: Follower) -> ReplyEnded:
    """Wait for the end of the follower's run.

    Raises:
        NotFound: its session was erased.
        Unavailable: the gateway stops; the run goes on without it.
    """
    waiter = _Waiter()
    follower.feed.watchers.add(waiter.changed.set)
    try:
        with gateway.connections.holding(waiter):
            while True:
                waiter.changed.clear()
                news = await follower.news()
                for _, moment in news:
                    if isinstance(moment, ReplyEnded):
                        return moment
                    if isinstance(moment, SessionGone):
                        raise NotFound("The session was deleted.")
                if not news:
                    waiter.check()
                    await waiter.changed.wait()
    finally:
        follower.feed.watchers.discard(waiter.changed.set)


def check_success(reply: ReplyEnded) -> None:
    """Where a dialect answers with a status, a failed run is one.

    Raises:
        NatterlogError: the run failed.
    """
    if reply.final.status == "failed":
        fault = reply.final.error or Fault(code="internal", message="The reply failed.")
        raise from_code(fault.code, fault.message, wait_of(reply.final))


def wait_of(final: RunEnded) -> float | None:
    """Seconds after which a failed run's provider wished to be asked again, as of now."""
    fault = final.error
    if fault is None or fault.retry_after is UNSET:
        return None
    return max(0.0, fault.retry_after - (now() - final.at).total_seconds())


class _Waiter:
    """A request that waits for a reply without a stream."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._stopping = False

    def beat(self, now: float) -> None:
        del now

    def stop(self) -> None:
        self._stopping = True
        self.changed.set()

    def check(self) -> None:
        if self._stopping:
            raise Unavailable(
                "The gateway is restarting; the reply goes on, please ask again.", retry_after=1.0
            )
