"""What the fake provider is told to do, in words that fit into a prompt.

``tokens=200 rate=50 delay=0.5 fault=drop@30 fail=529x2`` anywhere in the last
user message wins over whatever the fake was told before:

=================  ===========================================================
``tokens=n``       length of the reply
``rate=r``         tokens a second of this stream, evenly; 0: all at once
``delay=s``        seconds before the first byte of the answer
``load=s``         seconds of heartbeats before the first token, as while a model is loaded
``think=n``        tokens of thinking before the text
``stop=length``    how it says that it ended, in OpenAI's words (default stop)
``fail=529x2``     the first two such requests get this HTTP status (default 1)
``retry_after=s``  what a failing answer asks for
``error=type``     the type of an ``error`` fault (default overloaded_error)
``fault=kind@n``   at token n, in each such request; ``kind@nxk``: in the first k
``refuses=name``   a schema, files, a parameter …, as :mod:`tests.support.fake_refusals`
                   has it; several names with commas
=================  ===========================================================

"Such requests" are those with the same last user message; for a script set by
the test, all those that it answers.  Faults: ``drop`` the connection breaks,
``stall`` silence, ``pings`` silence with heartbeats, ``end`` a clean end without
the end marker, ``error`` an error event, ``garbage`` malformed JSON, ``lone`` a
lone surrogate, ``split`` a surrogate pair across two tokens, ``empty`` a reply
without text, ``undone`` the connection breaks before the very last frame.
"""

import re
from typing import Literal, get_args

import msgspec

FaultKind = Literal[
    "drop", "stall", "pings", "end", "error", "garbage", "lone", "split", "empty", "undone"
]
ALWAYS = 1_000_000_000

_WORD = re.compile(
    r"\b(tokens|rate|delay|load|think|stop|fail|retry_after|error|fault|refuses)=(\S+)"
)
_FAIL = re.compile(r"(\d{3})(?:x(\d+))?$")
_FAULT = re.compile(rf"({'|'.join(get_args(FaultKind))})(?:@(\d+))?(?:x(\d+))?$")


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is answered; see the module for the words."""

    tokens: int = 20
    rate: float = 0.0
    delay: float = 0.0
    load: float = 0.0
    think: int = 0
    stop: str = "stop"
    fail: str | None = None
    retry_after: float | None = None
    error: str = "overloaded_error"
    fault: str | None = None
    refuses: str = ""
    reply: str | None = None
    """Exact words in place of tagged tokens (not to be had from a prompt)."""
    sentence: str | None = None
    """The sentence of a failing answer (likewise)."""

    def overruled_by(self, message: str) -> "Script":
        """This script with what ``message`` asks for."""
        overrides: dict[str, str] = dict(_WORD.findall(message))
        return msgspec.convert(msgspec.to_builtins(self) | overrides, Script, strict=False)

    def status(self, nth: int) -> int | None:
        """The HTTP status with which the ``nth`` request (from 0) fails, if it does."""
        if self.fail is None:
            return None
        status, times = _matched(_FAIL, self.fail)
        return int(status) if nth < int(times or 1) else None

    def fault_of(self, nth: int) -> tuple[FaultKind, int] | None:
        """The fault of the ``nth`` request (from 0), and the token at which it comes."""
        if self.fault is None:
            return None
        kind, at, times = _matched(_FAULT, self.fault)
        found = msgspec.convert(kind, FaultKind), int(at or 0)
        return found if nth < int(times or ALWAYS) else None


def _matched(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    match = pattern.match(text)
    if match is None:
        raise ValueError(f"the fake provider does not understand {text!r}")
    return match.groups()
