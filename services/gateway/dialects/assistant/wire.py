"""The native API, translated (docs/api.md): requests to commands, client events to its own."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from services.gateway.access.limits import NonBlank
from services.gateway.http.requests import CURSOR, MOST, SPEED, Count, Natural
from services.gateway.sessions.client_events import (
    ClientEvent,
    ReplyEnded,
    ReplyReset,
    RunView,
    SessionGone,
    TextAdded,
    ThoughtsAdded,
    TurnAccepted,
)
from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.commands import CreateSession, UpdateSession
from shared.errors import InvalidRequest, NatterlogError
from shared.events import Fault, OnBusy, Rating, SessionStatus, StopReason, Usage
from shared.ids import new_id
from shared.records import Message, Run, RunStatus, Session
from shared.settings import Settings

PREFIX = "/api/v1/chat"
TEMPERATURE = 0.7
MAX_TOKENS = 1024
FILE_MODE = "file"
"""Of the sessions that files lie in, each in one of its own."""

Temperature = Annotated[float, Meta(ge=0, le=2)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Title = Annotated[str, Meta(max_length=500)]
Model = Annotated[str, Meta(max_length=200)]
SystemPrompt = Annotated[str, Meta(max_length=200_000)]
LONGEST_ID = 200
ClientId = Annotated[str, Meta(max_length=LONGEST_ID)]
Attachments = Annotated[list[str], Meta(max_length=20)]
Comment = Annotated[str, Meta(max_length=10_000)]
Mode = Annotated[str, Meta(min_length=1, max_length=50)]
Tags = Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=100)]

T = TypeVar("T")

encode = msgspec.json.Encoder().encode


# -- what clients send ----------------------------------------------------------


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a list: ``limit`` and ``cursor``, or ``page`` and ``page_size``."""

    limit: Count = 50
    """How many; 200 at most."""
    cursor: Natural = 0
    """The `next_cursor` of the page before."""
    page: Count = 1
    page_size: Natural = 0
    """The same as `limit`."""

    @property
    def most(self) -> int:
        return min(self.page_size or self.limit, MOST)

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.most


class NumberedWindow(Window, frozen=True, kw_only=True):
    """The same where a cursor is the number of the entry with which the page begins."""

    @property
    def start(self) -> int:
        return self.cursor or self.offset


class SessionsQuery(Window, frozen=True, kw_only=True):
    q: Annotated[str, Meta(extra_json_schema={"pattern": r"^[^\x00]*$"})] = ""
    """Words of the title."""
    status: Literal["active", "inactive", "all"] = "active"
    mode: str = ""
    """Also `adhoc`, `document`, `content` and `file`, which are left out otherwise."""


CursorText = Annotated[str, Meta(pattern=CURSOR)]


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True):
    at: CursorText | None = None
    """A cursor: the session as it was when that was the last that a client had seen."""


class MessagesQuery(NumberedWindow, frozen=True, kw_only=True):
    order: Literal["asc", "desc"] = "asc"
    branches: Literal["active", "all"] = "active"
    """All: every message of the session; `parent_id` says what it follows."""
    at: CursorText | None = None
    """A cursor: the conversation as it was when that was the last that a client had seen."""


Speed = Annotated[str, Meta(pattern=SPEED)]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    replay: str = ""
    """A run: answer with its recording, streamed, and start nothing."""
    speed: Speed = "1"
    """Of a recording: `1`, `10`, `0.5` or `max`."""


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    q: Annotated[str, Meta(min_length=1, max_length=1000, extra_json_schema={"pattern": r"\w"})]
    """What to search for: words, and phrases in quotes."""
    limit: Count = 50
    """How many; 200 at most."""
    cursor: str = ""
    """The `next_cursor` of the page before."""
    page: Count = 1
    page_size: Natural = 0
    """The same as `limit`."""

    @property
    def window(self) -> Window:
        return Window(limit=self.limit, page=self.page, page_size=self.page_size)


class StreamQuery(Replayed, frozen=True, kw_only=True):
    thoughts: bool = False
    """In a stream: also what the model thought, as `thought`."""


class ReplyQuery(StreamQuery, frozen=True, kw_only=True):
    stream: bool = False
    """Stream the reply, as `Accept: text/event-stream` does."""


class RunStreamQuery(StreamQuery, frozen=True, kw_only=True):
    cursor: str = ""
    """The same as `Last-Event-ID`, for those who cannot send headers."""


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    title: Title | None = None
    mode: Mode = "general"
    model: Model | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    system_prompt: SystemPrompt | None = None
    context_tags: Tags = []
    preset_id: str | None = None
    """Whose choices count where this makes none."""
    on_busy: OnBusy = "queue"


class SessionChange(msgspec.Struct, frozen=True, kw_only=True):
    title: Title | UnsetType | None = UNSET
    status: SessionStatus | UnsetType = UNSET
    model: Model | UnsetType | None = UNSET
    temperature: Temperature | UnsetType | None = UNSET
    max_tokens: MaxTokens | UnsetType | None = UNSET
    system_prompt: SystemPrompt | UnsetType | None = UNSET
    context_tags: Tags | UnsetType = UNSET
    on_busy: OnBusy | UnsetType = UNSET


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    session_id: str
    content: NonBlank
    attachments: Attachments = []
    model: Model | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    content: NonBlank
    attachments: Attachments | None = None
    model: Model | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None


class MessageChoice(msgspec.Struct, frozen=True, kw_only=True):
    message_id: str


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    rating: Rating | None
    comment: Comment | None = None


decode_new_session = msgspec.json.Decoder(NewSession).decode
decode_session_change = msgspec.json.Decoder(SessionChange).decode
decode_new_message = msgspec.json.Decoder(NewMessage).decode
decode_edit = msgspec.json.Decoder(Edit).decode
decode_message_choice = msgspec.json.Decoder(MessageChoice).decode
decode_feedback = msgspec.json.Decoder(Feedback).decode


def create_session(body: NewSession, user: str, settings: Settings) -> CreateSession:
    """The command that opens a session; what is not given has the settings' defaults.

    Raises:
        InvalidRequest: the mode is of natterlog's own sessions.
    """
    if body.mode == FILE_MODE:
        raise InvalidRequest("This mode is of uploaded files.", path="$.mode")
    temperature, max_tokens = body.temperature, body.max_tokens
    if temperature is None:
        temperature = settings.llm_temperature
    return CreateSession(
        user_id=user,
        session_id=new_id(),
        title=body.title,
        mode=body.mode,
        model=body.model,
        temperature=TEMPERATURE if temperature is None else temperature,
        max_tokens=max_tokens
        or settings.llm_max_tokens
        or settings.claude_max_tokens
        or MAX_TOKENS,
        system_prompt=body.system_prompt,
        context_tags=body.context_tags,
        on_busy=body.on_busy,
    )


def update_session(body: SessionChange, user: str, session_id: str) -> UpdateSession:
    changes: dict[str, Any] = msgspec.structs.asdict(body)
    return UpdateSession(user_id=user, session_id=session_id, **changes)


# -- what clients are sent --------------------------------------------------------


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user_id: str
    title: str | None
    mode: str
    status: SessionStatus
    model: str | None
    temperature: float | None
    max_tokens: int | None
    system_prompt: str | None
    context_tags: list[str]
    on_busy: OnBusy
    message_count: int
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None


class RunStateView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    session_id: str
    status: RunStatus
    attempt: int
    sha256: str | None
    length: int | None
    stop_reason: StopReason | None
    usage: Usage | None
    error: Fault | None
    created_at: datetime
    ended_at: datetime | None


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    user_message: Message | None
    assistant_message: Message


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list, and where the next one goes on."""

    items: list[T]
    next_cursor: str | None
    total: int


def session_view(session: Session) -> SessionView:
    return msgspec.convert(session, SessionView, from_attributes=True)


def run_view(run: Run) -> RunStateView:
    return msgspec.convert(run, RunStateView, from_attributes=True)


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """One event of a stream; a socket shows many sessions, so there it names its own."""

    session_id: str | UnsetType = UNSET
    cursor: str | UnsetType = UNSET


class MessageStart(Event, frozen=True, kw_only=True, tag="message_start"):
    """A message is in the log, and its reply is under way."""

    run_id: str
    user_message: Message | None
    assistant_message_id: str
    client_id: str | UnsetType = UNSET


class Chunk(Event, frozen=True, kw_only=True, tag="chunk"):
    """What is new of the text."""

    content: str


class Thought(Event, frozen=True, kw_only=True, tag="thought"):
    """What the model thought before it answered; only with `thoughts`."""

    content: str


class Reset(Event, frozen=True, kw_only=True, tag="reset"):
    """Forget the text so far: the reply starts over."""


class MessageComplete(Event, frozen=True, kw_only=True, tag="message_complete"):
    """The end: `message.status` is `completed` or `cancelled`."""

    message: Message
    usage: Usage | None
    sha256: str


class Failed(Event, frozen=True, kw_only=True, tag="error"):
    """The end: the run failed, or its session was deleted."""

    message: str
    code: str
    retryable: bool
    retry_after: float | UnsetType = UNSET
    """Seconds that the provider wants to be left alone for."""


StreamEvent = MessageStart | Chunk | Reset | MessageComplete | Failed
"""What is shown of a run."""
RunEvent = StreamEvent | Thought
"""What the stream of one run shows."""


def message_start(run: RunView, **where: str) -> MessageStart:
    return MessageStart(
        run_id=run.run_id,
        user_message=run.user_message,
        assistant_message_id=run.assistant_message_id,
        client_id=run.client_id if run.client_id is not None else UNSET,
        **where,
    )


def event_of(shown: ClientEvent, **where: str) -> Event | None:
    """The event that shows a client ``shown``; None where the dialect has none for it."""
    match shown:
        case TextAdded(text=text, offset=offset):
            return Chunk(content=text[offset:], **where)
        case TurnAccepted(run=run):
            return message_start(run, **where)
        case ReplyReset():
            return Reset(**where)
        case ReplyEnded():
            return _end_of(shown, **where)
        case SessionGone():
            return Failed(
                message="The session was deleted.",
                code="not_found",
                retryable=False,
                retry_after=UNSET,
                **where,
            )
        case _:
            return None


def _end_of(reply: ReplyEnded, **where: str) -> Event:
    final = reply.final
    if final.status != "failed":
        return MessageComplete(
            message=reply.message, usage=final.usage, sha256=reply.sha256, **where
        )
    fault = final.error or Fault(code="internal", message="The reply failed.")
    return Failed(
        message=fault.message,
        code=fault.code,
        retryable=fault.retryable,
        retry_after=fault.retry_after,
        **where,
    )


class SseFrames:
    """Client events as server-sent events, each with its cursor as ``id:``."""

    def __init__(self, cursors: CursorCodec, *, thoughts: bool = False) -> None:
        self._cursors = cursors
        self._thoughts = thoughts

    def __call__(self, cursor: Cursor, shown: ClientEvent) -> bytes | None:
        if isinstance(shown, ThoughtsAdded):
            return self.frame(cursor, Thought(content=shown.text)) if self._thoughts else None
        event = event_of(shown)
        return None if event is None else self.frame(cursor, event)

    def frame(self, cursor: Cursor, event: Event) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (self._cursors.format(cursor).encode(), encode(event))


# -- errors -----------------------------------------------------------------------


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457, with natterlog's stable code."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    path: str | UnsetType = UNSET


def problem(error: NatterlogError) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the answer for ``error``."""
    body = Problem(
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message,
        code=error.code,
        path=UNSET if error.path is None else error.path,
    )
    return encode(body), {"Content-Type": "application/problem+json"}
