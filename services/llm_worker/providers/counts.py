"""Counts of tokens as providers write them: read leniently, bounded, never worth a reply."""

import re

import msgspec

from shared.events import Usage

MOST = 10**12
"""Tokens that one call can have taken; sums of such counts still fit into a table."""

Number = int | float | str | None
"""What a count may be written as."""

_TEXT = re.compile(r"\s*(\d{1,15})(?:\.0*)?\s*", re.ASCII)


class Counts:
    """The counts of one reply so far: for each the last that was believable."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._known: dict[str, int] = {}
        self.cached_within = False
        """The count of input includes what was read from a cache; ours does not."""
        self.notes: list[str] = []
        """What could not be believed, one sentence each."""

    def take(self, name: str, number: object) -> None:
        """Note what the provider says of one count; None says nothing."""
        if number is None:
            return
        count = tokens(number)
        if count is not None:
            self._known[name] = count
        elif len(self.notes) < 2:
            shown = number if isinstance(number, int | float | str) else type(number).__name__
            self.notes.append(
                f"{self._provider} counted {str(shown)[:40]!r} as {name}; that was left out."
            )

    def usage(self) -> Usage | None:
        """The usage that they make; None where nothing was counted."""
        if not self._known:
            return None
        usage = Usage(**self._known)
        if not self.cached_within:
            return usage
        rest = max(0, usage.input_tokens - usage.cache_read_input_tokens)
        return msgspec.structs.replace(usage, input_tokens=rest)


def tokens(number: object) -> int | None:
    """The count that ``number`` is; None where it can be none."""
    if isinstance(number, str):
        written = _TEXT.fullmatch(number)
        number = int(written[1]) if written else None
    if isinstance(number, float):
        number = int(number) if number.is_integer() else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST:
        return None
    return number
