"""How commands write: times, colours, tables, 80 columns, JSON.

Times are UTC everywhere, because a log is compared with other machines' logs.
"""

import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

import msgspec

WIDTH = 80
_SHORTEST = 13
"""Characters of an id that are shown at least: its time, to the millisecond."""

Style = str
STYLES: Mapping[Style, str] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
}


# -- what is shown ----------------------------------------------------------------------


class Output:
    """What a command prints, with colours where that is a terminal."""

    def __init__(self, out: TextIO | None = None, *, coloured: bool | None = None) -> None:
        self._out = sys.stdout if out is None else out
        self._coloured = has_colours(self._out, os.environ) if coloured is None else coloured

    @property
    def coloured(self) -> bool:
        return self._coloured

    def line(self, text: str = "") -> None:
        self._out.write(f"{text.rstrip()}\n")

    def style(self, text: str, *styles: Style) -> str:
        """``text`` in these styles, on a terminal with colours."""
        if not self._coloured or not styles:
            return text
        return f"\x1b[{';'.join(STYLES[s] for s in styles)}m{text}\x1b[0m"

    def json(self, *values: object) -> None:
        """Print each value as JSON on a line of its own."""
        for value in values:
            self.line(msgspec.json.encode(value).decode())

    def document(self, value: object) -> None:
        """Print one value as indented JSON, for people to read as well."""
        self.line(msgspec.json.format(msgspec.json.encode(value)).decode())

    def wrapped(self, text: str, *, indent: str = "", styles: Sequence[Style] = ()) -> None:
        """Print a text of a person or a model, each of its lines wrapped to the width."""
        for row in printable(text).splitlines() or [""]:
            lines = textwrap.wrap(
                row,
                WIDTH - len(indent),
                replace_whitespace=False,
                break_on_hyphens=False,
            )
            for part in lines or [""]:
                self.line(indent + self.style(part, *styles))

    def flush(self) -> None:
        self._out.flush()


def has_colours(out: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to print colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return out.isatty()


def printable(text: str) -> str:
    """``text`` without what would change the terminal: control characters are shown as such."""
    return "".join(c if c == "\n" or c.isprintable() or c == " " else _shown(c) for c in text)


def _shown(character: str) -> str:
    if character == "\t":
        return "    "
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else f"\\u{{{code:x}}}"


# -- small words ------------------------------------------------------------------------


def at(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def clock(time: datetime) -> str:
    """The time of day, to the millisecond."""
    time = time.astimezone(UTC)
    return f"{time:%H:%M:%S}.{time.microsecond // 1000:03}"


def span(ms: float | None) -> str:
    """Milliseconds for people: 3 ms, 2.06 s, 4 min 5 s."""
    if ms is None:
        return "–"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def dollars(billionths: int | None) -> str:
    """A price to the millionth of a US dollar; a smaller one to the billionth."""
    if billionths is None:
        return "unpriced"
    digits = 9 if 0 < abs(billionths) < 1000 else 6
    whole, _, part = f"{abs(billionths) / 10**9:,.{digits}f}".partition(".")
    return f"{'−' if billionths < 0 else ''}${whole}.{part.rstrip('0').ljust(2, '0')}"


def shortened(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters."""
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def brief_ids(ids: Iterable[str]) -> dict[str, str]:
    """Each id's shortest unique beginning, of 13 characters at least."""
    known = sorted(set(ids))
    brief: dict[str, str] = {}
    for number, each in enumerate(known):
        near = [known[i] for i in (number - 1, number + 1) if 0 <= i < len(known)]
        same = max((_alike(each, other) for other in near), default=0)
        brief[each] = each[: max(_SHORTEST, same + 1)]
    return brief


def _alike(one: str, other: str) -> int:
    """The length of their common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line a row, with columns as wide as their widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def table(out: Output, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; the last one takes what is left of the width."""
    first, *lines = aligned([head, *rows])
    out.line(out.style(_cut(first), "bold"))
    for line in lines:
        out.line(_cut(line))


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
