"""Who is typing: told to a session's other sockets on every gateway, kept by nobody."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

import msgspec

from shared.bus import Bus, Incoming, NoAnswer
from shared.subjects import typing


class Typing(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody began or stopped typing; ``socket`` is his own, which need not be told."""

    user: str
    typing: bool
    socket: str


_decode = msgspec.json.Decoder(Typing).decode
_encode = msgspec.json.Encoder().encode


def tell_typing(bus: Bus, user: str, session_id: str, note: Typing) -> None:
    """Tell it to whoever listens right now."""
    with suppress(NoAnswer):  # it would be stale by the time the bus is back
        bus.post(typing(user, session_id), _encode(note))


class TypingListeners:
    """Those sockets of a session that want to know who is typing."""

    def __init__(self) -> None:
        self._told: set[Callable[[Typing], None]] = set()

    def on_signal(self, message: Incoming) -> None:
        if self._told:
            note = _decode(message.data)
            for tell in self._told:
                tell(note)

    @contextmanager
    def holding(self, tell: Callable[[Typing], None]) -> Generator[None]:
        self._told.add(tell)
        try:
            yield
        finally:
            self._told.discard(tell)
