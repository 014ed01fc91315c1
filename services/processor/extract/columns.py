"""What the cells of one column have in common, learnt piece by piece."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any, ClassVar

MISSING = frozenset(("", "NA", "N/A", "n/a", "null", "NULL", "None", "NaN", "nan", "NAN", "-"))
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})
_DISTINCT = 10_000
"""Different values that are counted; a column with more is not one of categories."""
_COUNTED_LENGTH = 100
_TOP = 5
_STRAYS = 0.1
"""Cells of another type that a column may have and keep its own."""


def _with_comma(cell: str) -> float:
    """1.234,5 as it is written in most of Europe."""
    if "," not in cell:
        raise ValueError(cell)
    return float(cell.replace(".", "").replace(",", "."))


def _iso_date(cell: str) -> str:
    date.fromisoformat(cell)
    return cell


def _iso_datetime(cell: str) -> str:
    datetime.fromisoformat(cell)
    return cell


# dates stay as they are written: in ISO 8601 their order is that of their characters, and
# times with and without a zone cannot be compared otherwise
_PARSERS: dict[str, tuple[Callable[[str], Any], ...]] = {
    "integer": (int,),
    "decimal": (float, _with_comma),
    "date": (_iso_date,),
    "date and time": (_iso_datetime,),
}
_WIDER = {"integer": "decimal", "date": "date and time"}
_TEXT = "text"


def looks_like_data(row: Sequence[str]) -> bool:
    """Whether the first row of a table is no row of names."""
    return any(_type_of([cell]) != _TEXT for cell in row if cell not in MISSING)


class Column:
    """The type, range and most frequent values of a column; owns its counts alone."""

    HEADINGS: ClassVar[list[str]] = [
        "column",
        "type",
        "missing",
        "different",
        "range",
        "most frequent",
    ]

    def __init__(self, name: str) -> None:
        self.name = name
        self._type: str | None = None
        self._missing = 0
        self._present = 0
        self._strays = 0
        self._low: Any = None
        self._high: Any = None
        self._total = 0.0
        self._shortest: int | None = None
        self._longest = 0
        self._counts: Counter[str] = Counter()
        self._uncounted = False

    def add(self, cells: Sequence[str]) -> None:
        different = set(cells)
        if not different.isdisjoint(MISSING):
            here = len(cells)
            cells = [cell for cell in cells if cell not in MISSING]
            self._missing += here - len(cells)
            different -= MISSING
        if not cells:
            return
        self._present += len(cells)
        lengths = [*map(len, different)]
        self._longest = max(self._longest, *lengths)
        shortest = min(lengths)
        self._shortest = shortest if self._shortest is None else min(self._shortest, shortest)
        self._count(cells)
        self._learn(cells)

    def _count(self, cells: Sequence[str]) -> None:
        if self._uncounted:
            return
        if self._longest > _COUNTED_LENGTH:
            cells = [cell[:_COUNTED_LENGTH] for cell in cells]
        self._counts.update(cells)
        if len(self._counts) > _DISTINCT:
            self._uncounted = True
            self._counts.clear()

    # -- types ----------------------------------------------------------------

    def _learn(self, cells: Sequence[str]) -> None:
        if self._type is None:
            self._type = _type_of(cells)
        while self._type != _TEXT:
            values = _parsed(self._type, cells)
            if values is not None:
                return self._widen_range(values)
            wider = _WIDER.get(self._type)
            if wider is None or _parsed(wider, cells) is None:
                return self._learn_most(cells, _widest(self._type))
            self._type = wider
        return None

    def _learn_most(self, cells: Sequence[str], name: str) -> None:
        """Take what fits the type; a column with too much else is text."""
        values: list[Any] = []
        for cell in cells:
            with suppress(ValueError):
                values.append(_PARSERS[name][0](cell))
        self._strays += len(cells) - len(values)
        if self._strays > self._present * _STRAYS:
            self._type = _TEXT
        elif values:
            self._type = name
            self._widen_range(values)

    def _widen_range(self, values: list[Any]) -> None:
        low, high = min(values), max(values)
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)
        if not isinstance(low, str):
            with suppress(OverflowError):
                self._total += float(sum(values))

    # -- the summary ----------------------------------------------------------

    def described(self, rows: int) -> list[str]:
        """A row of the summary, below ``HEADINGS``."""
        missing = f"{self._missing:,}"
        if self._missing:
            missing += f" ({self._missing / rows:.1%})"
        return [
            self.name,
            self._type_note(),
            missing,
            f"over {_DISTINCT:,}" if self._uncounted else f"{len(self._counts):,}",
            self._range_note(),
            self._frequency_note(),
        ]

    def _type_note(self) -> str:
        if self._type is None:
            return "empty"
        if any({value.lower() for value in self._counts} == pair for pair in _BOOLEANS):
            return "boolean"
        strays = f", but {self._strays:,} others" if self._strays and self._type != _TEXT else ""
        return self._type + strays

    def _range_note(self) -> str:
        if self._type is None:
            return ""
        if self._type == _TEXT:
            return f"{self._shortest:,} to {self._longest:,} characters"
        text = f"{_short(self._low)} to {_short(self._high)}"
        if isinstance(self._low, str):
            return text
        return f"{text}, mean {_short(self._total / (self._present - self._strays))}"

    def _frequency_note(self) -> str:
        top = self._counts.most_common(_TOP)
        if not top or top[0][1] == 1:
            return ""
        return ", ".join(f"{value} ({n:,})" for value, n in top)


def _type_of(cells: Sequence[str]) -> str:
    """The narrowest type that fits all cells, or nearly all."""
    for name in _PARSERS:
        if _parsed(name, cells) is not None:
            return name
    enough = len(cells) * (1 - _STRAYS)
    for name in _WIDER.values():
        parse = _PARSERS[name][0]
        if sum(_fits(parse, cell) for cell in cells) >= enough:
            return name
    return _TEXT


def _parsed(name: str, cells: Sequence[str]) -> list[Any] | None:
    for parse in _PARSERS[name]:
        with suppress(ValueError):
            return [*map(parse, cells)]
    return None


def _fits(parse: Callable[[str], Any], cell: str) -> bool:
    with suppress(ValueError):
        parse(cell)
        return True
    return False


def _widest(name: str) -> str:
    return _WIDER.get(name, name)


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**18 else f"{float(value):.6g}"
    return f"{value:,.6g}" if abs(value) >= 1e15 or value != int(value) else f"{value:,.0f}"
