"""An attempt's text, put together from deltas: the same rule for whoever reads them.

Order is by (attempt, offset), never by the sequence in TOKENS: an async stream
that crashes uses sequences again (docs/failures.md).
"""

from enum import Enum
from typing import NamedTuple

from shared.bus import Bus
from shared.events import Delta, Timeline, decode_token_event
from shared.subjects import TOKENS, Address

LONGEST = 43_000
"""Code points of one delta: JSON needs six bytes for each at most (a control character), so
that whatever they are, a delta has less than 256 KiB."""


def split(text: str, longest: int = LONGEST) -> list[str]:
    """The text in pieces, each short enough for a delta."""
    return [text[start : start + longest] for start in range(0, len(text), longest)]


class Merge(Enum):
    """What became of a delta."""

    GREW = "grew"
    KNOWN = "known"
    """Nothing in it was new: an older attempt, a snapshot, a repetition."""
    GAP = "gap"
    """Something before it is missing, or its attempt is not known yet."""


class AttemptText:
    """The text of a run's latest attempt, as far as it is known."""

    __slots__ = ("attempt", "text")

    def __init__(self, attempt: int = 0, text: str = "") -> None:
        self.attempt = attempt
        self.text = text

    def begin(self, attempt: int) -> bool:
        """A claim was seen; True if it is a newer attempt, whose text starts over."""
        if attempt <= self.attempt:
            return False
        self.attempt, self.text = attempt, ""
        return True

    def merge(self, delta: Delta) -> Merge:
        """Add what is new in ``delta``."""
        if delta.attempt != self.attempt:
            return Merge.KNOWN if delta.attempt < self.attempt else Merge.GAP
        known = len(self.text)
        if delta.offset == known:
            self.text += delta.text
            return Merge.GREW if delta.text else Merge.KNOWN
        if delta.offset > known:
            return Merge.GAP
        if delta.offset + len(delta.text) <= known:
            return Merge.KNOWN
        self.text += delta.text[known - delta.offset :]
        return Merge.GREW


class Written(NamedTuple):
    """What TOKENS holds of an attempt; ``seq`` is the last message of the run's subject."""

    attempt: int
    text: str
    seq: int
    fraction: float
    """The most that any attempt said to have done of a step."""
    timeline: Timeline
    """When each piece of the text came."""
    progress: Timeline
    """Of a reading: (milliseconds since the claim, thousandths done)."""


NOTHING = Written(0, "", 0, 0.0, [], [])


async def read_attempt(bus: Bus, address: Address, attempt: int | None = None) -> Written:
    """The text of ``attempt``, or of the highest attempt there is, from TOKENS.

    Raises:
        NoAnswer, ApiError: TOKENS could not be read.
    """
    found: dict[int, list[Delta]] = {}
    progress: dict[int, Timeline] = {}
    seq, fraction = 0, 0.0
    while batch := await bus.read(TOKENS, address.tokens, after=seq):
        seq = batch[-1].seq
        for message in batch:
            token_event = decode_token_event(message.data)
            if isinstance(token_event, Delta):
                found.setdefault(token_event.attempt, []).append(token_event)
            else:
                fraction = max(fraction, token_event.fraction)
                at = (token_event.ms, round(token_event.fraction * 1000))
                progress.setdefault(token_event.attempt, []).append(at)
    wanted = attempt if attempt is not None else max(found, default=0)
    text = AttemptText(wanted)
    deltas = found.get(wanted, [])
    for delta in sorted(deltas, key=lambda d: d.offset):
        text.merge(delta)
    timeline = _timeline(deltas, len(text.text))
    return Written(wanted, text.text, seq, fraction, timeline, progress.get(wanted, []))


def _timeline(deltas: list[Delta], length: int) -> Timeline:
    """When the text got as long as each delta made it, said again or not."""
    times: dict[int, int] = {}
    for delta in deltas:
        end = delta.offset + len(delta.text)
        times[end] = min(delta.ms, times.get(end, delta.ms))
    return [(times[end], end) for end in sorted(times) if 0 < end <= length]
