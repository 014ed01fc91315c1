"""Reads CSV: not as it is, but as what a model can reason about, a summary and a sample.

The rows stream by in pieces; of each column only what the summary needs is kept.
All work is done a piece and a column at a time by functions written in C: that
is what makes a million rows a matter of seconds.
"""

import csv
import io
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from services.processor.extract.columns import Column, looks_like_data
from services.processor.extract.findings import ExtractError, Findings, Limits
from services.processor.extract.text import open_text

COLUMNS = 200
"""More are not described."""
WHOLE = 200
"""A table of up to so many rows is given whole."""
FIRST, LAST = 20, 5
"""Rows of the sample of a longer one."""
_CELLS = 200_000
_ROWS = 5_000
"""How much is read at a time."""
_SNIFFED = 64 * 1024
_DELIMITERS = {"\t": "tab", ";": "semicolon", "|": "bar", ",": "comma"}

Row = list[str]


def read(path: Path, limits: Limits, findings: Findings) -> None:
    """A summary of the columns, and the first and last rows (all, if they are few)."""
    size = path.stat().st_size
    csv.field_size_limit(limits.line)
    with open_text(path, findings, newline="") as file:
        delimiter = _delimiter(file.read(_SNIFFED))
        file.seek(0)
        rows = _rows(_lines(file, limits.line), delimiter, limits.line)
        empty: Row = []
        table = _Table(next(rows, empty))
        for piece in _pieces(rows, table.width):
            table.add(piece)
            findings.progress(file.buffer.tell() / size)
    findings.rows = table.rows
    _describe(table, delimiter, limits, findings)


# -- rows ---------------------------------------------------------------------


def _delimiter(sample: str) -> str:
    """The delimiter that cuts most rows into the same number of cells, more than one.

    Of equals the rarer character wins: a comma may stand within every number.
    """
    best, most = ",", 0
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        try:
            widths = Counter(len(row) for row in reader)
        except csv.Error:
            continue
        same = max((n for width, n in widths.items() if width > 1), default=0)
        if same > most:
            best, most = delimiter, same
    return best


def _lines(file: TextIO, longest: int) -> Iterator[str]:
    number = 0
    while line := file.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise ExtractError(
                "too_large",
                f"Line {number:,} is longer than {longest:,} characters: "
                "the file is no table, or its lines do not end.",
            )
        yield line


def _rows(lines: Iterator[str], delimiter: str, longest: int) -> Iterator[Row]:
    """The rows that have a cell."""
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        raise ExtractError(
            "too_large",
            f"A cell that ends in line {reader.line_num:,} has more than {longest:,} characters: "
            "perhaps a quotation mark is not closed.",
        ) from error


def _pieces(rows: Iterator[Row], width: int) -> Iterator[list[Row]]:
    while piece := list(islice(rows, min(_ROWS, max(1, _CELLS // max(width, 1))))):
        width = max(map(len, piece))
        yield piece


class _Table:
    """What is known of the table so far."""

    def __init__(self, first: Row) -> None:
        self.nameless = looks_like_data(first)
        self.width = len(first)
        self.uneven = 0
        """Rows with more or fewer cells than the first."""
        self.rows = 0
        self.first: list[Row] = []
        self.last: deque[Row] = deque(maxlen=LAST)
        names = [f"column {n}" for n in range(1, self.width + 1)] if self.nameless else first
        self.columns = [Column(name) for name in names[:COLUMNS]]
        if self.nameless and first:
            self.add([first])

    def add(self, rows: list[Row]) -> None:
        if set(map(len, rows)) != {self.width}:
            rows = [row if len(row) == self.width else self._evened(row) for row in rows]
        self.rows += len(rows)
        self.first += rows[: WHOLE - len(self.first)]
        self.last.extend(rows[-LAST:])
        for column, cells in zip(self.columns, zip(*rows, strict=True), strict=False):
            column.add(cells)

    def _evened(self, row: Row) -> Row:
        self.uneven += 1
        return row[: self.width] + [""] * (self.width - len(row))


# -- the summary --------------------------------------------------------------


def _describe(table: _Table, delimiter: str, limits: Limits, findings: Findings) -> None:
    width = len(table.columns)
    findings.write(
        f"# A table of {table.rows:,} rows and {table.width:,} columns\n\n"
        f"As CSV, delimited by {_DELIMITERS[delimiter]}.\n\n## Columns\n\n"
    )
    _write_table(findings, Column.HEADINGS, [c.described(table.rows) for c in table.columns], 200)
    names = [column.name for column in table.columns]
    whole = table.rows <= WHOLE
    if whole:
        findings.write("\n## All rows\n\n")
        all_fit = _write_table(findings, names, [row[:width] for row in table.first], 500)
    else:
        findings.write(f"\n## The first {FIRST} rows\n\n")
        all_fit = _write_table(findings, names, [r[:width] for r in table.first[:FIRST]], 100)
        findings.write(f"\n## The last {LAST} rows\n\n")
        all_fit &= _write_table(findings, names, [r[:width] for r in table.last], 100)
        findings.note(
            f"All {table.rows:,} rows were read, but only a summary of them and "
            f"{FIRST + LAST} rows are given."
        )
    if not all_fit:
        findings.note("Long cells are given by their beginning only.")
    _note_what_is_odd(table, findings)


def _note_what_is_odd(table: _Table, findings: Findings) -> None:
    if table.width > COLUMNS:
        findings.note(f"Only the first {COLUMNS} of {table.width:,} columns are described.")
    if table.nameless:
        findings.note("The first row looks like data, so the columns are numbered.")
    if table.uneven:
        findings.note(
            f"{table.uneven:,} rows have more or fewer cells than the first: "
            "missing cells are taken as empty, surplus ones are left out."
        )
    if findings.full:
        findings.note("The summary was cut off where it became too long.")


def _write_table(findings: Findings, head: list[str], rows: list[Row], longest: int) -> bool:
    """Write a Markdown table; False when a cell had to be cut."""
    whole = True

    def line(cells: list[str]) -> str:
        nonlocal whole
        whole &= all(len(cell) <= longest for cell in cells)
        return "| " + " | ".join(_in_a_table(cell, longest) for cell in cells) + " |\n"

    findings.write(line(head) + "|---" * len(head) + "|\n")
    for row in rows:
        findings.write(line(row))
    return whole


def _in_a_table(cell: str, longest: int) -> str:
    cut = cell if len(cell) <= longest else f"{cell[:longest]}…"
    return " ".join(cut.split()).replace("|", r"\|")
