"""Recordings as the interview front ends' stream showed them."""

from collections.abc import Callable
from contextlib import closing

from aiohttp import web

from services.gateway.context import gateway_of
from services.gateway.dialects.interview import wire
from services.gateway.http.oneshot import FollowedRun, ReplyEncoder, check_complete, stream_reply
from services.gateway.replay.formats import ConversationFormat, Translate
from services.gateway.replay.player import Replay
from services.gateway.replay.recording import Recording
from services.gateway.replay.requests import requested_reply, requested_speed
from services.gateway.sessions.client_events import ClientEvent, ReplyEnded
from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.errors import NatterlogError


async def generate(request: web.Request) -> web.StreamResponse:
    """``/api/generate/``: the recorded reply, as a stream of pieces."""
    speed, recording = requested_speed(request), await requested_reply(request)
    replay = Replay(recording, speed)
    with closing(replay.playing):
        run = FollowedRun(gateway=gateway_of(request), follower=replay)
        return await stream_reply(request, run, _lines(recording, lambda: replay.cursor))


def _lines(recording: Recording, cursor: Callable[[], Cursor]) -> wire.SseLines:
    """The lines of a recorded reply, at the times at which its text was written."""
    return wire.SseLines(
        recording.model or "default",
        recording.accepted_at,
        clock=lambda: recording.written_at(cursor()),
    )


def _nothing(recording: Recording, cursors: CursorCodec, cursor: Cursor) -> bytes:
    del recording, cursors, cursor
    return b""


def _pieces(recording: Recording, cursors: CursorCodec) -> Translate:
    del cursors
    seen = [Cursor(0)]
    encoder = ReplyEncoder(_lines(recording, lambda: seen[-1]))

    def translate(cursor: Cursor, event: ClientEvent) -> list[bytes]:
        seen[:] = [cursor]
        if isinstance(event, ReplyEnded) and not encoder.shown:
            try:
                check_complete(event)
            except NatterlogError as error:  # its status said so, and no stream began
                return [wire.failure(error)[0]]
        frame = encoder.frame(event)
        return [frame] if frame else []

    return translate


PIECES = ConversationFormat(_nothing, _pieces, one_run=True, cursors=False)
