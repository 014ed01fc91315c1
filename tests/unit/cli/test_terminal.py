"""Small things that every command shares: times, ids, colours, widths."""

import io

import pytest

from services.cli.display.terminal import (
    Output,
    brief_ids,
    dollars,
    has_colours,
    printable,
    shortened,
    span,
    table,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(None, "–"), (0, "0 ms"), (999, "999 ms"), (1500, "1.50 s"), (61_000, "1 min 1 s"),
     (3_723_000, "1 h 2 min")],
)  # fmt: skip
def test_a_span_is_told_as_people_would(ms: float | None, shown: str):
    assert span(ms) == shown


@pytest.mark.parametrize(
    ("billionths", "shown"),
    [
        (None, "unpriced"),
        (0, "$0.00"),
        (999, "$0.000000999"),
        (1_234_567, "$0.001235"),
        (1_500_000_000, "$1.50"),
        (1_234_567_890_123, "$1,234.56789"),
    ],
)
def test_money_is_told_to_the_millionth_and_no_price_is_not_nothing(
    billionths: int | None, shown: str
):
    assert dollars(billionths) == shown


def test_ids_are_cut_as_long_as_they_are_told_apart():
    ids = [
        "01a21645-bd32-7e67-afb5-9d99b665d250",
        "01a21645-bd32-7e67-b000-000000000000",
        "01a21649-0000-7000-8000-000000000000",
    ]

    assert list(brief_ids(ids).values()) == [
        "01a21645-bd32-7e67-a",
        "01a21645-bd32-7e67-b",
        "01a21649-0000",
    ]


@pytest.mark.parametrize(
    ("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(environ: dict[str, str], coloured: bool):
    assert has_colours(Terminal(), environ) is coloured
    assert has_colours(io.StringIO(), environ) is False


def test_words_cannot_paint_on_a_terminal():
    assert printable("a\x1b[31mb\x7f\tc") == "a␛[31mb\\u{7f}    c"
    assert shortened("one\n two  three", 9) == "one two …"


def test_a_table_fits_the_width():
    out = io.StringIO()

    table(Output(out, coloured=False), ("A", "B"), [("1", "x" * 100), ("22", "y")])

    assert out.getvalue().splitlines() == ["A   B", "1   " + "x" * 75 + "…", "22  y"]
