"""How the values of options are read."""

import argparse
from datetime import UTC, datetime

import pytest

from services.cli.commands.arguments import count_up_to, time

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10m", datetime(2026, 11, 26, 11, 50, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 26, 10, 0, tzinfo=UTC)),
        ("3d", datetime(2026, 11, 23, 12, 0, tzinfo=UTC)),
        ("2026-11-26", datetime(2026, 11, 26, tzinfo=UTC)),
        ("2026-11-26T05:13:18Z", datetime(2026, 11, 26, 5, 13, 18, tzinfo=UTC)),
        ("2026-11-26T05:13:18+02:00", datetime(2026, 11, 26, 3, 13, 18, tzinfo=UTC)),
        ("2026-11-26T05:13", datetime(2026, 11, 26, 5, 13, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_said_in_several_ways(text: str, meant: datetime):
    assert time(text, now=NOW) == meant


@pytest.mark.parametrize(
    "text", ["", "yesterday", "10", "10y", "-1h", "26.11.2026", "999999w", "0001-01-01T00:00+14:00"]
)
def test_what_is_no_time_is_refused_with_examples(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time like 10m, 2h, 3d"):
        time(text)


@pytest.mark.parametrize("text", ["0", "-1", "1001", "x", "٣"])
def test_what_is_no_number_of_entries_is_refused(text: str):
    with pytest.raises(argparse.ArgumentTypeError):
        count_up_to(1000)(text)
