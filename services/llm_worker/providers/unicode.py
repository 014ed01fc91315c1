"""Surrogates: half characters that JSON can say and UTF-8 cannot.

One lone surrogate poisons a run (msgspec refuses it, a digest crashes on it), so
none gets past here.  Only stdlib's json lets them through, which is why nothing
that msgspec has read needs mending.
"""

import json
from typing import Any

REPLACEMENT = "\ufffd"


def mend(held: str, text: str) -> tuple[str, str]:
    """``held + text`` as valid Unicode, and the high surrogate that still waits for its mate.

    A lone surrogate becomes U+FFFD; one that is still held at the end is lone too.
    """
    text = held + text
    held = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    return mended(text[: len(text) - len(held)]), held


def mended(text: str) -> str:
    """``text`` as valid Unicode: pairs of surrogates become their character, lone ones U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_broken(text: str) -> bool:
    """Whether there is a surrogate in ``text``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def decode_tolerantly(line: bytes) -> Any:
    """The JSON of ``line``, with its surrogates, and U+FFFD for bytes that are not UTF-8.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is too deep.
    """
    return json.loads(line.decode("utf-8", "replace"))
