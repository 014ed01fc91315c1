"""What one user may ask for at a time (docs/settings.md).

Bodies and frames are bounded where they are read: by aiohttp, with the sizes of
the settings.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

from msgspec import Meta

from shared.errors import InvalidRequest, RateLimited, TooLarge
from shared.settings import Settings

NonBlank = Annotated[
    str, Meta(extra_json_schema={"pattern": r"[^\s\x1c-\x1f\x85]"}, examples=["Hello"])
]
"""What somebody says: not blank, and no longer than :func:`check_text` allows."""


class SocketCount:
    """How many WebSockets each user has open in this gateway."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.sockets_per_user
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, user: str) -> Generator[None]:
        """Count a socket while the block runs.

        Raises:
            RateLimited: the user has as many as there may be.
        """
        if self._most and self._open[user] >= self._most:
            raise RateLimited(f"There are {self._most} sockets open already; close one first.")
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


def check_text(text: str, settings: Settings, *, path: str) -> None:
    """A message must say something, and not too much.

    Raises:
        InvalidRequest: it is blank.
        TooLarge: it is longer than a message may be.
    """
    if not text.strip():
        raise InvalidRequest("The message is empty.", path=path)
    if len(text) > settings.max_message:
        raise TooLarge(f"A message may have {settings.max_message:,} characters.", path=path)
