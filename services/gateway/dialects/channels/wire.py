"""The wire of the Channels front ends (docs/api.md)."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from services.gateway.access.limits import NonBlank
from services.gateway.dialects.channels.drf import REQUIRED, Fields, FieldsInvalid, PageQuery
from services.gateway.sessions.client_events import (
    ClientEvent,
    ReplyDue,
    ReplyEnded,
    ReplyReset,
    TextAdded,
    TurnAccepted,
)
from services.gateway.sessions.cursor import Cursor
from shared.commands import CreateSession, UpdateSession
from shared.errors import InvalidRequest, ModelNotFound, NatterlogError
from shared.events import Fault, OnBusy
from shared.ids import new_id
from shared.records import Message, MessageStatus, Role, RunStatus, Session
from shared.settings import Settings

PREFIX = "/ai-chat/api"
SOCKETS = "/ws/ai-chat"
SESSION_SOCKET = SOCKETS + "/session/{session_id}"
LIST_SOCKET = SOCKETS + "/sessions"
TEMPERATURE = 0.7
MAX_TOKENS = 2000

Temperature = Annotated[float, Meta(ge=0, le=2)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Title = Annotated[str, Meta(max_length=500)]
Model = Annotated[str, Meta(max_length=200)]
ClientId = Annotated[str, Meta(max_length=200)]

encode = msgspec.json.Encoder().encode


# -- what clients send ----------------------------------------------------------


class SessionsQuery(PageQuery, frozen=True, kw_only=True):
    include_inactive: bool = False


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    title: Title | None = None
    model: Model | None = None
    system_prompt: str | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    enable_tools: bool | None = None
    on_busy: OnBusy = "queue"


class SessionChange(msgspec.Struct, frozen=True, kw_only=True):
    title: Title | UnsetType | None = UNSET
    model: Model | UnsetType | None = UNSET
    system_prompt: str | UnsetType | None = UNSET
    temperature: Temperature | UnsetType | None = UNSET
    max_tokens: MaxTokens | UnsetType | None = UNSET
    enable_tools: bool | UnsetType = UNSET
    on_busy: OnBusy | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    message: NonBlank | None = None
    content: NonBlank | None = None
    """Another name of ``message``."""
    client_id: ClientId | None = None

    @property
    def text(self) -> str:
        """What the user says.

        Raises:
            InvalidRequest: neither name is there.
        """
        text = self.message if self.message is not None else self.content
        if text is None:
            raise InvalidRequest(REQUIRED, path="$.message")
        return text


NEW_SESSION = Fields(NewSession)
SESSION_CHANGE = Fields(SessionChange)
NEW_MESSAGE = Fields(NewMessage)


def create_session(body: NewSession, user: str, settings: Settings) -> CreateSession:
    """The command that opens a session; what is not given has the settings' defaults."""
    temperature = body.temperature
    if temperature is None:
        temperature = settings.llm_temperature
    tools = settings.enable_tools if body.enable_tools is None else body.enable_tools
    return CreateSession(
        user_id=user,
        session_id=new_id(),
        title=body.title,
        model=body.model,
        temperature=TEMPERATURE if temperature is None else temperature,
        max_tokens=body.max_tokens or settings.llm_max_tokens or MAX_TOKENS,
        system_prompt=body.system_prompt,
        on_busy=body.on_busy,
        enable_tools=tools,
    )


def update_session(body: SessionChange, user: str, session_id: str) -> UpdateSession:
    changes: dict[str, Any] = msgspec.structs.asdict(body)
    active = changes.pop("is_active")
    if active is not UNSET:
        changes["status"] = "active" if active else "inactive"
    return UpdateSession(user_id=user, session_id=session_id, **changes)


def deactivate(user: str, session_id: str) -> UpdateSession:
    """The command for a DELETE, which only makes a session inactive in this dialect."""
    return UpdateSession(user_id=user, session_id=session_id, status="inactive")


# -- what clients are sent --------------------------------------------------------


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    title: str | None
    model: str | None
    system_prompt: str | None
    temperature: float | None
    max_tokens: int | None
    enable_tools: bool
    on_busy: OnBusy
    is_active: bool
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None
    message_count: int


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    role: Role
    content: str
    created_at: datetime
    status: MessageStatus


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    user_message: MessageView
    ai_message: MessageView


def session_view(session: Session) -> SessionView:
    return SessionView(
        id=session.id,
        title=session.title,
        model=session.model,
        system_prompt=session.system_prompt,
        temperature=session.temperature,
        max_tokens=session.max_tokens,
        enable_tools=session.enable_tools,
        on_busy=session.on_busy,
        is_active=session.status == "active",
        created_at=session.created_at,
        updated_at=session.updated_at,
        last_message_at=session.last_message_at,
        message_count=session.message_count,
    )


def message_view(message: Message) -> MessageView:
    return MessageView(
        id=message.id,
        role=message.role,
        content=message.content,
        created_at=message.created_at,
        status=message.status,
    )


# -- the session socket's frames ------------------------------------------------------


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A message of a socket: the contract's fields, and no others."""


class ConnectionEstablished(Frame, frozen=True, kw_only=True, tag="connection_established"):
    """The greeting."""

    session_id: str | UnsetType = UNSET
    message: str


class UserMessage(Frame, frozen=True, kw_only=True, tag="user_message"):
    """A message was sent, by whomever."""

    message: MessageView
    client_id: str | UnsetType = UNSET


class AiTyping(Frame, frozen=True, kw_only=True, tag="ai_typing"):
    """A reply is about to be written."""

    message: str = "AI is thinking..."


class AiMessageChunk(Frame, frozen=True, kw_only=True, tag="ai_message_chunk"):
    """What is new of the reply, and all of it so far, which is what counts."""

    content: str
    full_content: str


class AiMessageComplete(Frame, frozen=True, kw_only=True, tag="ai_message_complete"):
    """The reply is complete."""

    message: MessageView


class AiMessageCancelled(Frame, frozen=True, kw_only=True, tag="ai_message_cancelled"):
    """The reply was stopped; `ai_message_complete` with the same message follows."""

    message: MessageView


class UserTyping(Frame, frozen=True, kw_only=True, tag="user_typing"):
    """Somebody else began or stopped typing."""

    user: str
    typing: bool


class Pong(Frame, frozen=True, kw_only=True, tag="pong"):
    """The answer to a `ping`."""


class Refused(Frame, frozen=True, kw_only=True, tag="error"):
    """A message was refused, or the reply failed; the socket stays open."""

    message: str
    code: str
    retry_after: float | UnsetType = UNSET


class SessionCreated(Frame, frozen=True, kw_only=True, tag="session_created"):
    """A session was opened."""

    session: SessionView


class SessionUpdated(Frame, frozen=True, kw_only=True, tag="session_updated"):
    """A session changed, or was written to."""

    session: SessionView


class SessionId(msgspec.Struct, frozen=True, kw_only=True):
    """All that is left of an erased session."""

    id: str


class SessionDeleted(Frame, frozen=True, kw_only=True, tag="session_deleted"):
    """A session was put away."""

    session: SessionView


class SessionErased(Frame, frozen=True, kw_only=True, tag="session_deleted"):
    """A session was erased for good."""

    session: SessionId


OnSession = (
    ConnectionEstablished
    | UserMessage
    | AiTyping
    | AiMessageChunk
    | AiMessageComplete
    | AiMessageCancelled
    | UserTyping
    | Pong
    | Refused
)
"""What the socket of one session tells."""
OnList = (
    ConnectionEstablished
    | SessionCreated
    | SessionUpdated
    | SessionDeleted
    | SessionErased
    | Pong
    | Refused
)
"""What the socket of all sessions tells."""


def frames_of(event: ClientEvent) -> list[Frame]:
    """The frames that show a client ``event``."""
    match event:
        case TextAdded(text=text, offset=offset):
            return [AiMessageChunk(content=text[offset:], full_content=text)]
        case TurnAccepted():
            return _accepted(event)
        case ReplyDue():
            return [AiTyping()]
        case ReplyReset():
            return [AiTyping(), AiMessageChunk(content="", full_content="")]
        case ReplyEnded():
            return frames_of_end(event.message, event.final.status, event.final.error)
        case _:
            return []


def translate(cursor: Cursor, event: ClientEvent) -> list[bytes]:
    """The frames of ``event`` as bytes; these clients know no cursor."""
    del cursor
    return [encode(frame) for frame in frames_of(event)]


def greeting(session_id: str) -> ConnectionEstablished:
    return ConnectionEstablished(session_id=session_id, message="Connected to chat session")


def user_message(message: Message, client_id: str | None) -> UserMessage:
    return UserMessage(
        message=message_view(message), client_id=UNSET if client_id is None else client_id
    )


def refused(error: NatterlogError) -> Refused:
    return Refused(
        message=error.located,
        code=error.code,
        retry_after=UNSET if error.retry_after is None else error.retry_after,
    )


def _accepted(turn: TurnAccepted) -> list[Frame]:
    run = turn.run
    frames: list[Frame] = []
    if run.user_message is not None and not run.regenerated:
        frames.append(user_message(run.user_message, run.client_id))
    if not run.waiting:
        frames.append(AiTyping())
    return frames


def frames_of_end(reply: Message, status: RunStatus, fault: Fault | None) -> list[Frame]:
    """The frames that show a client how a reply's run ended.

    A continuation that is cancelled before a new word leaves its message as it was.
    """
    view = message_view(reply)
    match status:
        case "failed":
            return [
                Refused(
                    message=fault.message if fault else "The reply failed.",
                    code=fault.code if fault else "internal",
                )
            ]
        case "cancelled":
            return [AiMessageCancelled(message=view), AiMessageComplete(message=view)]
        case _:
            return [AiMessageComplete(message=view)]


# -- errors -----------------------------------------------------------------------


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    detail: str
    code: str


FieldErrors = dict[str, list[str]]
"""Field → its faults, as Django REST framework tells them; the code is in `X-Error-Code`."""


def status_of(error: NatterlogError) -> int:
    """The status of an error; a missing model is a fault of the field that names it."""
    return 400 if isinstance(error, ModelNotFound) and error.path else error.status


def detail(error: NatterlogError) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the answer for ``error``; fields by their names."""
    headers = {"Content-Type": "application/json"}
    if isinstance(error, FieldsInvalid):
        return encode(error.fields), headers | {"X-Error-Code": error.code}
    field = (error.path or "$").removeprefix("$").lstrip(".")
    if field and status_of(error) == 400:
        fields: FieldErrors = {field: [error.message]}
        return encode(fields), headers | {"X-Error-Code": error.code}
    return encode(Detail(detail=error.message, code=error.code)), headers
