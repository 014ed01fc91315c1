"""The messages of the native WebSocket, in both directions (docs/api.md)."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from services.gateway.dialects.assistant import wire
from services.gateway.sessions.client_events import ClientEvent, MessagesChanged
from shared.records import Message

# -- what clients send ----------------------------------------------------------


class Subscribe(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribe"):
    """Follow a session, from a cursor or from now."""

    session_id: str
    cursor: str | None = None


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="unsubscribe"):
    """Follow a session no longer."""

    session_id: str


class Send(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="send"):
    """Send a message, and follow its session; the same `client_id` is the same message."""

    session_id: str
    content: str
    client_id: wire.ClientId | None = None
    attachments: wire.Attachments = []
    model: wire.Model | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Stop a run, in whatever state it is."""

    run_id: str


class TypingNow(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="typing"):
    """Tell the session's other sockets."""

    session_id: str
    typing: bool = True


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ping"):
    """Ask for a `pong`."""


ClientMessage = Subscribe | Unsubscribe | Send | Cancel | TypingNow | Ping
decode_message = msgspec.json.Decoder(ClientMessage).decode


class _Addressed(msgspec.Struct):
    session_id: Any = None
    client_id: Any = None


def addressed_in(text: bytes) -> tuple[str | None, str | None]:
    """The session and the client id that a message names, whatever else is wrong with it."""
    try:
        named = msgspec.json.decode(text, type=_Addressed)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None, None
    return _if_an_id(named.session_id), _if_an_id(named.client_id)


def _if_an_id(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= wire.LONGEST_ID else None


# -- what only sockets are sent -----------------------------------------------------


class Subscribed(wire.Event, frozen=True, kw_only=True, tag="subscribed"):
    """From here on the session is followed."""


class Resync(wire.Event, frozen=True, kw_only=True, tag="resync"):
    """What is shown is another than before, or the cursor leads nowhere: this is all there is.

    A reply that is being written is not in it, and goes on as if nothing were said.
    """

    messages: list[Message]
    client_id: str | UnsetType = UNSET
    """Of a `send` that came again: its message is there, and this is what became of it."""


class UserTyping(wire.Event, frozen=True, kw_only=True, tag="user_typing"):
    """Somebody else began or stopped typing."""

    user: str
    typing: bool


class Pong(wire.Event, frozen=True, kw_only=True, tag="pong"):
    """The answer to a `ping`."""


class Refused(wire.Event, frozen=True, kw_only=True, tag="error"):
    """What the client sent was refused; the socket stays open."""

    message: str
    code: str
    path: str | UnsetType = UNSET
    """The field at fault, as `$.content`."""
    client_id: str | UnsetType = UNSET
    """As the client sent it."""
    retry_after: float | UnsetType = UNSET


ServerMessage = wire.StreamEvent | Subscribed | Resync | UserTyping | Pong


def frames_of(event: ClientEvent, **where: str) -> list[bytes]:
    """The frames that show a client of the session ``event``."""
    if isinstance(event, MessagesChanged):
        client_id = UNSET if event.client_id is None else event.client_id
        return [wire.encode(Resync(messages=event.messages, client_id=client_id, **where))]
    found = wire.event_of(event, **where)
    return [] if found is None else [wire.encode(found)]
