"""Server-sent events: one stream, one follower, for every dialect that speaks them."""

from collections.abc import Callable

from aiohttp import web

from services.gateway.context import gateway_of
from services.gateway.http.stream_writer import StreamWriter
from services.gateway.sessions.client_events import ClientEvent, ReplyEnded, SessionGone
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.follower import ClientEvents, Follower

RETRY = b"retry: 2000\n\n"
"""What every stream begins with."""
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

Frame = Callable[[Cursor, ClientEvent], bytes | None]


async def stream(
    request: web.Request,
    follower: Follower,
    frame: Frame,
    *,
    first: bytes = b"",
) -> web.StreamResponse:
    """Answer with what ``follower`` sees, in the frames of a dialect, until its run has ended."""
    writer = StreamWriter(request, HEADERS)

    def frames(events: ClientEvents) -> bytes:
        return b"".join(made for cursor, event in events if (made := frame(cursor, event)))

    with (
        gateway_of(request).connections.registered(writer),
        follower.source.watchers.watching(writer.wake),
    ):
        async with writer.begun():
            await writer.send(first + RETRY)
            writer.write_at_once(lambda: frames(follower.new_text()))
            while not writer.stopping and (events := await writer.next(follower.next_events)):
                await writer.send(frames(events))
                if any(isinstance(event, ReplyEnded | SessionGone) for _, event in events):
                    break
    return writer.response
