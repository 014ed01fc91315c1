"""``?replay=<run>&speed=``: a recording over the stream or socket that showed it (docs/replay.md).

A request with ``replay`` starts nothing and changes nothing: whatever its method
and body, it is answered from the log, in the frames that were sent back then.
"""

from collections.abc import Callable
from functools import wraps

import msgspec
from aiohttp import web

from services.gateway.context import RUN_ID, USER, Handler, gateway_of
from services.gateway.dialects.assistant import messages as assistant_messages
from services.gateway.dialects.assistant import runs as assistant_runs
from services.gateway.dialects.assistant import socket as assistant_socket
from services.gateway.dialects.assistant import wire as assistant
from services.gateway.dialects.channels import socket as channels_socket
from services.gateway.dialects.channels import wire as channels
from services.gateway.dialects.content import socket as content_socket
from services.gateway.dialects.content import wire as content
from services.gateway.dialects.documents import socket as documents_socket
from services.gateway.dialects.documents import wire as documents
from services.gateway.dialects.interview import http as interview_http
from services.gateway.http.oneshot import Followed, streamed
from services.gateway.http.requests import decode_json, missing, read_query, require_id
from services.gateway.http.sse import stream
from services.gateway.http.websocket import NORMAL, Socket, Track, serve
from services.gateway.jobs.state import JobState
from services.gateway.replay import dialects as replays
from services.gateway.replay.dialects import Conversation
from services.gateway.replay.player import JobFrames, JobReplay, Recording, Replay, speed_of
from services.gateway.sessions.cursor import Cursor
from shared.commands import GetRun
from shared.errors import Conflict, InvalidRequest, NatterlogError, NotFound
from shared.recording import read_session

ASKED = "replay"


def or_replayed(route: web.RouteDef) -> web.RouteDef:
    """The route as it is, but for requests that ask for a recording."""
    live, replayed = route.handler, _REPLAYED.get(route.handler)
    if replayed is None:
        return route

    @wraps(live)
    async def either(request: web.Request) -> web.StreamResponse:
        return await (replayed if ASKED in request.query else live)(request)

    return web.RouteDef(route.method, route.path, either, route.kwargs)


async def recording_of(request: web.Request) -> Recording:
    """What the request names: a run of its user's, or a session.

    Raises:
        NotFound: the user has neither.
    """
    gateway, user = gateway_of(request), request[USER].id
    named = require_id(request.query[ASKED], "run")
    try:
        run = (await gateway.store.ask(GetRun(user_id=user, run_id=named))).run
    except NotFound:
        session_id, run_id = named, None
    else:
        session_id, run_id = run.session_id, run.id
        request[RUN_ID] = run.id
    try:
        links = await read_session(gateway.bus, gateway.store, user, session_id)
    except NotFound as error:
        raise missing("run") from error
    return Recording(user, session_id, links, run_id)


def _speed(request: web.Request) -> float | None:
    return speed_of(request.query.get("speed", "1"))


# -- one run over server-sent events ----------------------------------------------


async def run_stream(request: web.Request) -> web.StreamResponse:
    """``/runs/{run_id}/stream``, and whatever begins a run and streams it."""
    speed, recording = _speed(request), await recording_of(request)
    if recording.run_id is None:
        raise InvalidRequest("This stream shows one run: name a run.", path="$.replay")
    if recording.is_job or request.match_info.get("run_id") not in (None, recording.run_id):
        raise missing("run")
    recording.need_end()
    place = _place(request)
    if place is not None and place.seq >= recording.last_seq:
        return web.Response(status=204)
    replay = Replay(recording, speed, place)
    try:
        asked = read_query(request, assistant.StreamAsked)
        frames = assistant.SseFrames(gateway_of(request).cursors, thoughts=asked.thoughts)
        return await stream(request, replay, frames)
    finally:
        replay.playing.stop()


def _place(request: web.Request) -> Cursor | None:
    cursor = request.headers.get("Last-Event-ID") or request.query.get("cursor")
    if not cursor:
        return None
    place = gateway_of(request).cursors.parse(cursor)
    if place is None:
        raise InvalidRequest("That cursor is none of this log's.", path="$.cursor")
    return place


async def interview_stream(request: web.Request) -> web.StreamResponse:
    """``/api/generate/``: the recorded reply, as a stream of pieces."""
    speed, recording = _speed(request), await recording_of(request)
    if recording.run_id is None:
        raise InvalidRequest("This stream shows one run: name a run.", path="$.replay")
    if recording.is_job:
        raise missing("run")
    recording.need_end()
    replay = Replay(recording, speed)
    wire = replays.interview_wire(recording, lambda: replay.place)
    try:
        followed = Followed(gateway=gateway_of(request), follower=replay)
        return await streamed(request, followed, wire)
    finally:
        replay.playing.stop()


# -- conversations over sockets ---------------------------------------------------


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """Any message of a client; few of them mean something to a recording."""

    type: str
    session_id: str | None = None
    cursor: str | None = None


_decode = msgspec.json.Decoder(_Said).decode
_UNHEARD = frozenset(("typing", "stop_typing", "subscribe", "unsubscribe"))
"""What front ends say by themselves, and what means nothing here."""


def _answer(
    socket: Socket, text: bytes, pong: bytes, refused: Callable[[NatterlogError], bytes]
) -> None:
    """A front end goes on talking to what it takes for its live socket."""
    try:
        said = decode_json(text, _decode)
        if said.type == "ping":
            socket.reply(pong)
        elif said.type not in _UNHEARD:
            raise Conflict("This is a replay: nothing is sent, stopped or begun.")
    except NatterlogError as error:
        socket.reply(refused(error))


class _Showing:
    """A recorded conversation on a socket, from its opening on."""

    def __init__(
        self, request: web.Request, socket: Socket, dialect: Conversation, recording: Recording
    ) -> None:
        self._cursors = gateway_of(request).cursors
        self._speed = _speed(request)
        self._socket = socket
        self._dialect = dialect
        self._recording = recording
        self._shown: tuple[Track, Replay] | None = None

    def begin(self, place: Cursor | None = None) -> None:
        """Show it from ``place`` on, or from its start once more."""
        self.end()
        branches = self._dialect.tells_branches
        replay = Replay(self._recording, self._speed, place, tells_branches=branches)
        track = Track(self._socket, replay, self._dialect.words(self._recording, self._cursors))
        self._shown = track, replay
        self._socket.reply(self._dialect.opening(self._recording, self._cursors, replay.place))
        track.begin()

    def end(self) -> None:
        if self._shown is not None:
            track, replay = self._shown
            track.end()
            replay.playing.stop()


async def native_socket(request: web.Request) -> web.WebSocketResponse:
    """``/api/v1/chat/ws``: as live, it begins when the client subscribes to the session."""
    _speed(request)

    async def converse(socket: Socket) -> None:
        recording = await _conversation(request)
        showing = _Showing(request, socket, replays.ASSISTANT_SOCKET, recording)
        pong = assistant.encode(assistant_socket.Pong())
        try:
            async for text in socket.texts():
                asked = _subscribe(text)
                if asked is None:
                    _answer(socket, text, pong, _native_refused)
                elif asked.session_id != recording.session_id:
                    other = NotFound("This replay shows another session.")
                    socket.reply(_native_refused(other))
                else:
                    showing.begin(_place_in(request, recording, asked.cursor))
        finally:
            showing.end()

    return await serve(request, converse)


def _subscribe(text: bytes) -> _Said | None:
    try:
        said = decode_json(text, _decode)
    except InvalidRequest:
        return None
    return said if said.type == "subscribe" else None


def _place_in(request: web.Request, recording: Recording, cursor: str | None) -> Cursor | None:
    """Where the client was cut off; None when its cursor is of elsewhere, or of the end."""
    place = gateway_of(request).cursors.parse(cursor) if cursor else None
    if place is None or not recording.first_seq - 1 <= place.seq < recording.last_seq:
        return None
    return place


def _native_refused(error: NatterlogError) -> bytes:
    return assistant.encode(assistant_socket.Refused(message=error.message, code=error.code))


async def channels_session(request: web.Request) -> web.WebSocketResponse:
    """``/ws/ai-chat/session/{id}/``."""
    _speed(request)

    async def converse(socket: Socket) -> None:
        recording = await _conversation(request)
        if request.match_info["session_id"] != recording.session_id:
            raise missing("session")
        showing = _Showing(request, socket, replays.CHANNELS, recording)
        pong = channels.encode(channels.Pong())
        showing.begin()
        try:
            async for text in socket.texts():
                _answer(socket, text, pong, lambda e: channels.encode(channels.refused(e)))
        finally:
            showing.end()

    return await serve(request, converse)


async def _conversation(request: web.Request) -> Recording:
    recording = await recording_of(request)
    if recording.is_job:
        raise missing("run")
    return recording


# -- jobs over sockets ------------------------------------------------------------


async def documents_jobs(request: web.Request) -> web.WebSocketResponse:
    """``/ws``: the recorded job alone."""
    _speed(request)

    async def converse(socket: Socket) -> None:
        recording = await recording_of(request)
        pong = documents.encode(documents.Pong())
        await _show_job(
            request,
            socket,
            recording,
            replays.document_words(),
            lambda text: _answer(
                socket, text, pong, lambda e: documents.encode(documents.refused(e))
            ),
        )

    return await serve(request, converse)


async def content_job(request: web.Request) -> web.WebSocketResponse:
    """``/ws/chat/{session_id}``; as live, it is closed when the job has ended."""
    _speed(request)

    async def converse(socket: Socket) -> None:
        recording = await recording_of(request)
        if request.match_info["session_id"] != recording.session_id:
            raise missing("job")
        streaming = request.query.get("stream", "").lower() in ("1", "true")
        words = replays.content_words(streaming=streaming)

        def until_its_end(job: JobState) -> list[bytes]:
            frames = words(job)
            if job.ending is not None:
                socket.close(NORMAL, "The job has ended.")
            return frames

        pong = content.encode(content.Pong())
        await _show_job(
            request,
            socket,
            recording,
            until_its_end,
            lambda text: _answer(socket, text, pong, lambda e: content.encode(content.refused(e))),
        )

    return await serve(request, converse)


async def _show_job(
    request: web.Request,
    socket: Socket,
    recording: Recording,
    words: JobFrames,
    answer: Callable[[bytes], None],
) -> None:
    shown = JobReplay(recording, _speed(request), words, lambda: socket.due(shown))
    socket.due(shown)
    try:
        async for text in socket.texts():
            answer(text)
    finally:
        shown.playing.stop()
        socket.drop(shown)


_REPLAYED: dict[Handler, Handler] = {
    assistant_runs.stream_run: run_stream,
    assistant_messages.send_message: run_stream,
    assistant_messages.regenerate: run_stream,
    assistant_messages.edit: run_stream,
    assistant_messages.continue_reply: run_stream,
    assistant_socket.socket: native_socket,
    channels_socket.session_socket: channels_session,
    interview_http.generate: interview_stream,
    interview_http.generate_without_slash: interview_stream,
    documents_socket.socket: documents_jobs,
    content_socket.socket: content_job,
}
"""What answers instead of the live handler."""
