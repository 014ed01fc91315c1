"""How far a client has got, as a short text that it can give back (architecture.md, *Cursors*)."""

import hashlib
from typing import NamedTuple


class Cursor(NamedTuple):
    """How far a client has got: the last fact it saw, and how much of the running attempt.

    ``attempt`` is the sequence of the attempt's claim, 0 when no reply was being
    written; ``offset`` counts the code points of it that were shown.
    """

    seq: int
    attempt: int = 0
    offset: int = 0


NOTHING_SEEN = Cursor(0)
"""Of whoever must be shown everything: it is answered with a resync."""


class CursorCodec:
    """Writes and reads the cursors of one incarnation of the log.

    The epoch is hashed because it holds dashes, which separate a cursor's parts.
    """

    def __init__(self, epoch: str) -> None:
        self._epoch = hashlib.sha256(epoch.encode()).hexdigest()[:12]

    def format(self, cursor: Cursor) -> str:
        return f"{self._epoch}-{cursor.seq}-{cursor.attempt}-{cursor.offset}"

    def parse(self, text: str) -> Cursor | None:
        """The cursor in ``text``; None when it is malformed or of another log."""
        epoch, *numbers = text.split("-", 4)
        if epoch != self._epoch or len(numbers) != 3 or not all(map(_is_number, numbers)):
            return None
        cursor = Cursor(*map(int, numbers))
        return cursor if cursor.attempt <= cursor.seq else None


def _is_number(text: str) -> bool:
    # str.isdigit alone also takes digits of other scripts; 2**64 has 20 digits.
    short = text.isascii() and text.isdigit() and len(text) <= 19
    return short and (text == "0" or text[0] != "0")
