"""Recordings as the document front ends' socket showed them: one job alone."""

from aiohttp import web

from services.gateway.dialects.documents import wire
from services.gateway.http.websocket import Socket, serve
from services.gateway.jobs.state import JobState
from services.gateway.replay.formats import JobFormat, TranslateJob
from services.gateway.replay.requests import requested_recording, requested_speed
from services.gateway.replay.sockets import answer_message, shown_job
from shared.errors import NatterlogError
from shared.events import DocumentPlan


async def socket(request: web.Request) -> web.WebSocketResponse:
    """``/ws``: the recorded job alone."""
    requested_speed(request)

    async def converse(socket: Socket) -> None:
        recording = await requested_recording(request)
        pong = wire.encode(wire.Pong())
        with shown_job(request, socket, recording, _frames()):
            async for text in socket.texts():
                answer_message(socket, text, pong=pong, refused=_refused)

    return await serve(request, converse)


def _refused(error: NatterlogError) -> bytes:
    return wire.encode(wire.refused(error))


def _frames() -> TranslateJob:
    shown = wire.Shown()

    def translate(job: JobState) -> list[bytes]:
        if not isinstance(job.plan, DocumentPlan):
            return []
        return [wire.encode(frame) for frame in wire.frames_of(job, shown)]

    return translate


JOBS = JobFormat(_frames)
