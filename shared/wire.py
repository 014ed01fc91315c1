"""What travels over NATS, as natterlog sees it, and what may go wrong on the way."""

from typing import NamedTuple

from shared.log import get_logger

log = get_logger()

FRAME_HEADER = "Natterlog-Frame"
"""Which of how many frames of an answer a message is, as ``2/3``."""
_LONGEST_LINE = 4_000
"""Bytes of a publish's subjects and sizes; nats-server takes 4,096."""


class BusError(Exception):
    """An exchange with the bus did not go as asked."""


class NoAnswer(BusError):
    """Nobody answered in time: the request may have been carried out, or not."""


class NoResponders(NoAnswer):
    """Nobody listens there: the request was certainly not carried out."""


class Unsendable(BusError):
    """The message is too large for the server, or its subject is none; nothing was sent.

    nats-server hangs up on whoever sends one, and nats-py closes its client for ever then.
    """


class BusClosed(BusError):
    """The connection is closed for good: only a new process will have another."""


class Incoming(NamedTuple):
    """A message as it came in; ``header`` finds one value without parsing the rest."""

    subject: str
    reply: str
    data: bytes
    headers: bytes

    def header(self, name: bytes) -> str | None:
        start = self.headers.find(b"\r\n" + name + b":")
        if start < 0:
            return None
        start += len(name) + 3
        return self.headers[start : self.headers.find(b"\r\n", start)].strip().decode()

    @property
    def status(self) -> int:
        """The status of a message that carries one (404, 408, 503, …), else 0."""
        word = self.headers[8:12].strip()
        return int(word) if word.isdigit() else 0

    @property
    def sequence(self) -> int:
        """The sequence in its stream of a republished or directly read message."""
        return int(self.header(b"Nats-Sequence") or 0)

    @property
    def frame(self) -> tuple[int, int]:
        """Which of how many frames of an answer this is."""
        number, _, of = (self.header(FRAME_HEADER.encode()) or "1/1").partition("/")
        return int(number), int(of)

    @property
    def is_last(self) -> bool:
        number, of = self.frame
        return number == of


def check_sendable(subject: str, reply: str, size: int, *, most: int) -> None:
    """Find out whether the server takes a publish with ``size`` bytes of headers and data.

    Raises:
        Unsendable: it would hang up on us.
    """
    if size > most:
        log.error("bus.unsendable", subject=subject[:200], size=size, most=most)
        raise Unsendable(f"{size} bytes are more than nats-server's max_payload, {most}")
    if not _is_subject(subject, reply):
        log.error("bus.unsendable", subject=subject[:200], length=len(subject))
        raise Unsendable("no subject, or one that is too long")


def _is_subject(subject: str, reply: str) -> bool:
    if not subject or " " in subject or not subject.isprintable():
        return False
    length = len(subject) + len(reply)
    return length * 4 <= _LONGEST_LINE or len(f"{subject}{reply}".encode()) <= _LONGEST_LINE
