"""Follow a run to its end: what every dialect does once a message is accepted."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import UNSET

from services.gateway.context import Gateway
from services.gateway.http.stream_writer import Waiter
from services.gateway.sessions.client_events import ReplyEnded, SessionGone
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.follower import Follower
from shared.errors import NotFound, Unavailable, from_code
from shared.events import Fault, RunEnded
from shared.ids import now
from shared.records import Run


@asynccontextmanager
async def follow_run(gateway: Gateway, user: str, run: Run) -> AsyncGenerator[Follower]:
    """A follower of one run, from its first fact on.

    Raises:
        NotFound, Unavailable: the session cannot be followed.
    """
    async with gateway.hub.feed(user, run.session_id) as feed:
        yield Follower(feed, Cursor(run.first_seq - 1), run_id=run.id)


async def wait_for_end(gateway: Gateway, follower: Follower) -> ReplyEnded:
    """Wait for the end of the follower's run.

    Raises:
        NotFound: its session was erased.
        Unavailable: the gateway stops; the run goes on without it.
    """
    waiter = Waiter()
    with (
        gateway.connections.registered(waiter),
        follower.source.watchers.watching(waiter.wake),
    ):
        while events := await waiter.next(follower.next_events):
            for _, event in events:
                if isinstance(event, ReplyEnded):
                    return event
                if isinstance(event, SessionGone):
                    raise NotFound("The session was deleted.")
    raise Unavailable(
        "The gateway is restarting; the reply goes on, please ask again.", retry_after=1.0
    )


def check_success(reply: ReplyEnded) -> None:
    """Raise the run's own error, where a dialect answers with a status.

    Raises:
        NatterlogError: the run failed.
    """
    if reply.final.status == "failed":
        fault = reply.final.error or Fault(code="internal", message="The reply failed.")
        raise from_code(fault.code, fault.message, wait_of(reply.final))


def wait_of(final: RunEnded) -> float | None:
    """Seconds from now after which a failed run's provider may be tried again."""
    fault = final.error
    if fault is None or fault.retry_after is UNSET:
        return None
    return max(0.0, fault.retry_after - (now() - final.at).total_seconds())
