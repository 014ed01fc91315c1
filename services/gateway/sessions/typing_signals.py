"""Who is typing: sent to a session's other sockets on every gateway, kept by nobody."""

from contextlib import suppress

import msgspec

from services.gateway.sessions.watchers import Watchers
from shared.bus import Bus, Incoming, NoAnswer
from shared.subjects import typing


class Typing(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody began or stopped typing; ``socket`` is his own, which need not be told."""

    user: str
    typing: bool
    socket: str


_decode = msgspec.json.Decoder(Typing).decode
_encode = msgspec.json.Encoder().encode


def send_typing(bus: Bus, user: str, session_id: str, signal: Typing) -> None:
    """Send it to whoever listens right now."""
    with suppress(NoAnswer):  # it would be stale by the time the bus is back
        bus.post(typing(user, session_id), _encode(signal))


class TypingListeners(Watchers[[Typing]]):
    """The sockets of a session that show who is typing; each is called with the signal."""

    def on_signal(self, message: Incoming) -> None:
        if self:
            self.wake(_decode(message.data))
