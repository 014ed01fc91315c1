"""A session as JSON, out and in again: every branch, and nothing lost but the ids.

What comes in gets new ids, so that it may come in as often as somebody likes.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from services.gateway.dialects.assistant.files import FileView, view_of
from services.gateway.dialects.assistant.wire import (
    MaxTokens,
    Mode,
    Model,
    Tags,
    Temperature,
    Title,
)
from shared.commands import Export
from shared.errors import InvalidRequest
from shared.events import (
    EndStatus,
    History,
    OnBusy,
    PastMessage,
    Rating,
    StopReason,
    Thoughts,
)
from shared.ids import is_id, new_id
from shared.records import HIDDEN_MODES, Message, MessageStatus, Role
from shared.run_state import stop_reason

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
VERSION = 1
MOST = 20_000
"""Messages of one import: they become one fact, and nobody else's is applied meanwhile."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is besides its messages."""

    title: Title | None = None
    mode: Mode = "general"
    model: Model | None = None
    temperature: Temperature | None = None
    max_tokens: MaxTokens | None = None
    system_prompt: str | None = None
    context_tags: Tags = []
    on_busy: OnBusy = "queue"
    enable_tools: bool = False


class Opinion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody said that a reply is worth."""

    rating: Rating
    comment: Annotated[str, Meta(max_length=10_000)] | None = None


class DocumentMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message; ``id`` is what others of the same document call it."""

    id: str
    parent_id: str | None = None
    role: Role
    content: str
    created_at: datetime
    status: EndStatus = "completed"
    tokens: Count | None = None
    latency_ms: Count | None = None
    model: str | None = None
    feedback: Opinion | None = None
    attachments: Annotated[list[str], Meta(max_length=1000)] = []
    stop_reason: StopReason | None = None
    thoughts: str | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A session with all of its branches, each message after the one that it follows."""

    format: Literal["natterlog session"]
    version: Literal[1]
    session: Settings = Settings()
    active_message_id: str | None = None
    """The last message of the active branch."""
    messages: Annotated[list[DocumentMessage], Meta(max_length=MOST)] = []
    files: list[FileView] = []
    """What the attachments are; their bytes are not in here."""


decode = msgspec.json.Decoder(Document).decode


# -- out --------------------------------------------------------------------------


def document_of(export: Export) -> Document:
    """The document that says all of a session."""
    session = export.session
    return Document(
        format="natterlog session",
        version=VERSION,
        session=msgspec.convert(session, Settings, from_attributes=True, strict=False),
        active_message_id=export.branch[-1] if export.branch else None,
        messages=[_document_message(message) for message in export.messages],
        files=[view_of(file.id, file.ref) for file in export.files],
    )


def as_json(export: Export) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document_of(export)), indent=1)


def _document_message(message: Message) -> DocumentMessage:
    return DocumentMessage(
        id=message.id,
        parent_id=message.parent_id,
        role=message.role,
        content=message.content,
        created_at=message.created_at,
        status=_ended(message.status),
        tokens=message.tokens,
        latency_ms=message.latency_ms,
        model=message.model,
        feedback=msgspec.convert(message.feedback, Opinion | None),
        attachments=message.attachments,
        stop_reason=message.stop_reason,
        thoughts=message.thoughts,
    )


def _ended(status: MessageStatus) -> EndStatus:
    return "completed" if status == "waiting" else status


# -- in ---------------------------------------------------------------------------


def history_of(document: Document) -> History:
    """What a new session begins with: the document's messages under new ids.

    Raises:
        InvalidRequest: they are no tree; the path says where.
    """
    new: dict[str, str] = {}
    for number, message in enumerate(document.messages):
        path = f"$.messages[{number}]"
        if message.id in new:
            raise InvalidRequest("Two messages have the same id.", path=f"{path}.id")
        if message.parent_id is not None and message.parent_id not in new:
            sentence = "A message comes after the one that it follows."
            raise InvalidRequest(sentence, path=f"{path}.parent_id")
        for at, file in enumerate(message.attachments):
            if not is_id(file):
                raise InvalidRequest("No file is called so.", path=f"{path}.attachments[{at}]")
        new[message.id] = new_id()
    leaf = document.active_message_id
    if leaf is not None and leaf not in new:
        raise InvalidRequest("There is no such message.", path="$.active_message_id")
    if leaf is None and document.messages:
        leaf = document.messages[-1].id
    return History(
        messages=[_past(message, new) for message in document.messages],
        leaf=None if leaf is None else new[leaf],
    )


def mode_of(document: Document) -> str:
    """The mode of the session: it is a conversation now, whatever it was before."""
    mode = document.session.mode
    return "general" if mode in HIDDEN_MODES else mode


def _past(message: DocumentMessage, new: dict[str, str]) -> PastMessage:
    feedback, is_reply = message.feedback, message.role == "assistant"
    return PastMessage(
        id=new[message.id],
        parent_id=None if message.parent_id is None else new[message.parent_id],
        role=message.role,
        content=message.content,
        created_at=_in_utc(message.created_at),
        status=message.status,
        tokens=message.tokens,
        latency_ms=message.latency_ms,
        model=message.model,
        feedback=None if feedback is None else msgspec.to_builtins(feedback),
        attachments=message.attachments,
        stop_reason=stop_reason(message.status, message.stop_reason) if is_reply else None,
        thoughts=Thoughts(text=message.thoughts) if is_reply and message.thoughts else None,
    )


def _in_utc(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        return time.replace(tzinfo=UTC)
