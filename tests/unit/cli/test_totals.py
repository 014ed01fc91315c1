"""Runs added up, by whatever one asks for."""

import io
from datetime import timedelta

import msgspec
import pytest

from services.cli.display.pages import first_word_ms, list_runs, list_totals
from services.cli.display.terminal import Output
from services.cli.stories.totals import KEYS, Total, Totals
from shared.events import Fault, StopReason, Usage
from shared.inspection import FoundRun
from tests.support.scripted_log import SESSION, USER
from tests.unit.cli.samples import RUN, at

DONE = FoundRun(
    id=RUN,
    session_id=SESSION,
    user_id=USER,
    kind="chat",
    status="completed",
    waiting=False,
    cancelled=False,
    attempt=3,
    worker="w",
    provider="demo",
    model="big",
    length=5,
    usage=Usage(input_tokens=100, output_tokens=20, cache_read_input_tokens=7),
    error=None,
    called=True,
    cost=2_500_000,
    restarts=0,
    latency_ms=2000,
    first_delta_ms=30,
    first_word_at=at(3030),
    created_at=at(0),
    ended_at=at(5000),
    first_seq=2,
    last_seq=4,
)
FAILED = msgspec.structs.replace(
    DONE,
    status="failed",
    model=None,
    usage=None,
    error=Fault(code="timeout", message="Late."),
    called=False,
    cost=None,
)
UNPRICED = msgspec.structs.replace(DONE, provider="ollama", model="llama", cost=None)
NEXT_DAY = msgspec.structs.replace(DONE, created_at=at(0) + timedelta(days=1))


def test_what_cost_the_most_comes_first_and_what_has_no_price_is_counted_apart():
    totals = Totals("model")

    totals.add([FAILED, UNPRICED, UNPRICED])
    totals.add([DONE, UNPRICED])

    priced = Total(
        key="demo/big", runs=1, input_tokens=100, output_tokens=20, cached_tokens=7, cost=2_500_000
    )
    unpriced = Total(
        key="ollama/llama",
        runs=3,
        input_tokens=300,
        output_tokens=60,
        cached_tokens=21,
        cost=None,
        unpriced=3,
    )
    assert totals.rows() == [priced, unpriced, Total(key="–", runs=1, failed=1)]


def test_a_model_that_costs_nothing_is_priced():
    totals = Totals("model")

    totals.add([msgspec.structs.replace(DONE, cost=0)])

    assert [(row.cost, row.unpriced) for row in totals.rows()] == [(0, 0)]


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("user", [USER]),
        ("session", [SESSION]),
        ("kind", ["chat"]),
        ("state", ["completed", "failed"]),
        ("error", ["–", "timeout"]),
        ("day", ["2026-11-26", "2026-11-27"]),
        ("hour", ["2026-11-26 03:00", "2026-11-27 03:00"]),
    ],
)
def test_runs_are_added_up_by_what_is_asked(by: str, keys: list[str]):
    totals = Totals(by)

    totals.add([NEXT_DAY, FAILED])

    assert [row.key for row in totals.rows()] == keys
    assert by in KEYS


def test_the_first_word_is_counted_from_the_acceptance():
    assert first_word_ms(DONE) == 3030
    assert first_word_ms(msgspec.structs.replace(DONE, first_word_at=None)) is None


def test_lists_fit_the_width():
    out = io.StringIO()
    totals = Totals("session")
    totals.add([DONE, UNPRICED])
    by_error = Totals("error")
    by_error.add([FAILED])

    list_runs(Output(out, coloured=False), [DONE, FAILED])
    list_totals(Output(out, coloured=False), "session", totals.rows())
    list_totals(Output(out, coloured=False), "error", by_error.rows())

    assert out.getvalue().splitlines() == [
        "RUN            ACCEPTED (UTC)       STATE      FIRST   TOOK    MODEL OR ERROR",
        "01a21600-0000  2026-11-26 03:00:00  completed  3.03 s  5.00 s  big",
        "01a21600-0000  2026-11-26 03:00:00  failed     3.03 s  5.00 s  timeout",
        "SESSION        RUNS  FAILED  IN   OUT  CACHED  COST",
        "01a21600-0000  2     0       200  40   14      $0.0025, 1 unpriced",
        "ERROR    RUNS  FAILED  IN  OUT  CACHED  COST",
        "timeout  1     1       0   0    0       –",
    ]


def test_runs_are_added_up_by_how_they_ended():
    totals = Totals("stop")

    totals.add([DONE, msgspec.structs.replace(DONE, stop_reason="max_tokens"), FAILED])

    assert [(row.key, row.runs, row.failed) for row in totals.rows()] == [
        ("max_tokens", 1, 0),
        ("–", 2, 1),
    ]


def test_a_list_says_which_runs_took_several_attempts():
    out = io.StringIO()
    again = {"restarts": 2}

    list_runs(
        Output(out, coloured=False),
        [msgspec.structs.replace(run, **again) for run in (DONE, FAILED)],
    )

    ends = [line.rpartition(" s  ")[2] for line in out.getvalue().splitlines()[1:]]
    assert ends == ["3 attempts, big", "3 attempts, time…"]


@pytest.mark.parametrize(
    ("stop_reason", "shown"), [(None, "big"), ("end_turn", "big"), ("refusal", "refusal, big")]
)
def test_a_list_says_which_replies_did_not_end_by_themselves(
    stop_reason: StopReason | None, shown: str
):
    out = io.StringIO()

    list_runs(Output(out, coloured=False), [msgspec.structs.replace(DONE, stop_reason=stop_reason)])

    assert out.getvalue().splitlines()[1].endswith(f"  {shown}")
