"""Recordings as the content front ends' socket showed them."""

from functools import partial

from aiohttp import web

from services.gateway.dialects.content import wire
from services.gateway.http.requests import not_found
from services.gateway.http.websocket import NORMAL, Socket, serve
from services.gateway.jobs.state import JobState
from services.gateway.replay.formats import JobFormat, TranslateJob
from services.gateway.replay.requests import requested_recording, requested_speed
from services.gateway.replay.sockets import answer_message, shown_job
from shared.errors import NatterlogError
from shared.events import PipelinePlan


async def socket(request: web.Request) -> web.WebSocketResponse:
    """``/ws/chat/{session_id}``; as live, it is closed when the job has ended."""
    requested_speed(request)

    async def converse(socket: Socket) -> None:
        recording = await requested_recording(request)
        if request.match_info["session_id"] != recording.session_id:
            raise not_found("job")
        streaming = request.query.get("stream", "").lower() in ("1", "true")
        pong = wire.encode(wire.Pong())
        frames = _until_its_end(socket, _frames(streaming=streaming))
        with shown_job(request, socket, recording, frames):
            async for text in socket.texts():
                answer_message(socket, text, pong=pong, refused=_refused)

    return await serve(request, converse)


def _refused(error: NatterlogError) -> bytes:
    return wire.encode(wire.refused(error))


def _until_its_end(socket: Socket, frames: TranslateJob) -> TranslateJob:
    def translate(job: JobState) -> list[bytes]:
        found = frames(job)
        if job.ending is not None:
            socket.close(NORMAL, "The job has ended.")
        return found

    return translate


def _frames(*, streaming: bool) -> TranslateJob:
    shown = wire.Shown(streaming=streaming)

    def translate(job: JobState) -> list[bytes]:
        if not isinstance(job.plan, PipelinePlan):
            return []
        return [wire.encode(frame) for frame in wire.frames_of(job, shown)]

    return translate


JOB = JobFormat(partial(_frames, streaming=False))
STREAMED_JOB = JobFormat(partial(_frames, streaming=True))
