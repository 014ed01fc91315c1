"""Recordings in the words of each dialect: what a stream or socket says, from its opening on."""

from collections.abc import Callable
from typing import NamedTuple

from services.gateway.cursor import Cursors, Place
from services.gateway.dialects import assistant, assistant_socket, channels, content, documents
from services.gateway.jobs import JobState
from services.gateway.moments import Moment
from services.gateway.replay import JobFrames, Recording, Words
from services.gateway.sse import RETRY
from shared.events import DocumentPlan, PipelinePlan


class Conversation(NamedTuple):
    """How a dialect shows a session's runs."""

    opening: Callable[[Recording, Cursors, Place], bytes]
    """What comes before anything that was recorded."""
    words: Callable[[Recording, Cursors], Words]
    one_run: bool = False
    """Whether one of its streams is about one run only."""


class Job(NamedTuple):
    """How a dialect shows a job."""

    words: Callable[[], JobFrames]


# -- conversations --------------------------------------------------------------


def _sse_words(recording: Recording, cursors: Cursors) -> Words:
    del recording
    frames = assistant.SseFrames(cursors)

    def words(place: Place, moment: Moment) -> list[bytes]:
        frame = frames(place, moment)
        return [] if frame is None else [frame]

    return words


def _subscribed(recording: Recording, cursors: Cursors, place: Place) -> bytes:
    cursor = cursors.format(place)
    return assistant.encode(
        assistant_socket.Subscribed(session_id=recording.session_id, cursor=cursor)
    )


def _socket_words(recording: Recording, cursors: Cursors) -> Words:
    def words(place: Place, moment: Moment) -> list[bytes]:
        where = {"session_id": recording.session_id, "cursor": cursors.format(place)}
        event = assistant.event_of(moment, **where)
        return [] if event is None else [assistant.encode(event)]

    return words


def _retry(recording: Recording, cursors: Cursors, place: Place) -> bytes:
    del recording, cursors, place
    return RETRY


def _greeting(recording: Recording, cursors: Cursors, place: Place) -> bytes:
    del cursors, place
    return channels.encode(channels.greeting(recording.session_id))


def _channels_words(recording: Recording, cursors: Cursors) -> Words:
    del recording, cursors
    return channels.translate


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
ASSISTANT_SOCKET = Conversation(_subscribed, _socket_words)
CHANNELS = Conversation(_greeting, _channels_words)
DOCUMENTS = Job(document_words)
CONTENT = Job(lambda: content_words(streaming=False))
CONTENT_STREAM = Job(lambda: content_words(streaming=True))

DIALECTS: dict[str, Conversation | Job] = {
    "assistant": ASSISTANT,
    "assistant-socket": ASSISTANT_SOCKET,
    "channels": CHANNELS,
    "documents": DOCUMENTS,
    "content": CONTENT,
    "content-stream": CONTENT_STREAM,
}
"""By the name that the command line has for them."""
