"""Recordings in the words of each dialect: what a stream or socket says, from its opening on."""

from collections.abc import Callable
from typing import NamedTuple

from services.gateway.dialects.assistant import socket as assistant_socket
from services.gateway.dialects.assistant import wire as assistant
from services.gateway.dialects.channels import wire as channels
from services.gateway.dialects.content import wire as content
from services.gateway.dialects.documents import wire as documents
from services.gateway.dialects.interview import wire as interview
from services.gateway.http.oneshot import ReplyEncoder, check_complete
from services.gateway.http.sse import RETRY
from services.gateway.jobs.state import JobState
from services.gateway.replay.player import JobFrames, Recording, Words
from services.gateway.sessions.client_events import ClientEvent, MessagesChanged, ReplyEnded
from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.errors import NatterlogError
from shared.events import DocumentPlan, PipelinePlan


class Conversation(NamedTuple):
    """How a dialect shows a session's runs."""

    opening: Callable[[Recording, CursorCodec, Cursor], bytes]
    """What comes before anything that was recorded."""
    words: Callable[[Recording, CursorCodec], Words]
    one_run: bool = False
    """Whether one of its streams is about one run only."""
    cursors: bool = True
    """Whether a client can come back and go on."""
    tells_branches: bool = False
    """Whether it has a word for another branch being shown."""


class Job(NamedTuple):
    """How a dialect shows a job."""

    words: Callable[[], JobFrames]


# -- conversations --------------------------------------------------------------


def _sse_words(recording: Recording, cursors: CursorCodec) -> Words:
    del recording
    frames = assistant.SseFrames(cursors)

    def words(place: Cursor, moment: ClientEvent) -> list[bytes]:
        frame = frames(place, moment)
        return [] if frame is None else [frame]

    return words


def _subscribed(recording: Recording, cursors: CursorCodec, place: Cursor) -> bytes:
    cursor = cursors.format(place)
    return assistant.encode(
        assistant_socket.Subscribed(session_id=recording.session_id, cursor=cursor)
    )


def _socket_words(recording: Recording, cursors: CursorCodec) -> Words:
    def words(place: Cursor, moment: ClientEvent) -> list[bytes]:
        where = {"session_id": recording.session_id, "cursor": cursors.format(place)}
        if isinstance(moment, MessagesChanged):
            return [assistant.encode(assistant_socket.resync(moment, **where))]
        event = assistant.event_of(moment, **where)
        return [] if event is None else [assistant.encode(event)]

    return words


def _retry(recording: Recording, cursors: CursorCodec, place: Cursor) -> bytes:
    del recording, cursors, place
    return RETRY


def _greeting(recording: Recording, cursors: CursorCodec, place: Cursor) -> bytes:
    del cursors, place
    return channels.encode(channels.greeting(recording.session_id))


def _channels_words(recording: Recording, cursors: CursorCodec) -> Words:
    del recording, cursors
    return channels.translate


def interview_wire(recording: Recording, place: Callable[[], Cursor]) -> interview.SseLines:
    """The lines of a recorded reply, at the times at which its words were written."""
    return interview.SseLines(
        recording.model or "default",
        recording.accepted_at,
        clock=lambda: recording.written_at(place()),
    )


def _interview_words(recording: Recording, cursors: CursorCodec) -> Words:
    del cursors
    seen = [Cursor(0)]
    telling = ReplyEncoder(interview_wire(recording, lambda: seen[-1]))

    def words(place: Cursor, moment: ClientEvent) -> list[bytes]:
        seen[:] = [place]
        if isinstance(moment, ReplyEnded) and not telling.shown:
            try:
                check_complete(moment)
            except NatterlogError as error:  # its status told it, and no stream began
                return [interview.failure(error)[0]]
        frame = telling.frame(moment)
        return [frame] if frame else []

    return words


def _nothing(recording: Recording, cursors: CursorCodec, place: Cursor) -> bytes:
    del recording, cursors, place
    return b""


# -- jobs -----------------------------------------------------------------------


def document_words() -> JobFrames:
    shown = documents.Shown()

    def words(job: JobState) -> list[bytes]:
        if not isinstance(job.plan, DocumentPlan):
            return []
        return [documents.encode(frame) for frame in documents.frames_of(job, shown)]

    return words


def content_words(*, streaming: bool) -> JobFrames:
    shown = content.Shown(streaming=streaming)

    def words(job: JobState) -> list[bytes]:
        if not isinstance(job.plan, PipelinePlan):
            return []
        return [content.encode(frame) for frame in content.frames_of(job, shown)]

    return words


ASSISTANT = Conversation(_retry, _sse_words, one_run=True)
ASSISTANT_SOCKET = Conversation(_subscribed, _socket_words, tells_branches=True)
CHANNELS = Conversation(_greeting, _channels_words)
INTERVIEW = Conversation(_nothing, _interview_words, one_run=True, cursors=False)
DOCUMENTS = Job(document_words)
CONTENT = Job(lambda: content_words(streaming=False))
CONTENT_STREAM = Job(lambda: content_words(streaming=True))

DIALECTS: dict[str, Conversation | Job] = {
    "assistant": ASSISTANT,
    "assistant-socket": ASSISTANT_SOCKET,
    "channels": CHANNELS,
    "interview": INTERVIEW,
    "documents": DOCUMENTS,
    "content": CONTENT,
    "content-stream": CONTENT_STREAM,
}
"""By the name that the command line has for them."""
