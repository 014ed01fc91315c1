"""Word diffs can be read, and lose nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.display.comparison import Piece, differences, marked, word_diff
from shared.endings import ended
from shared.events import Usage

TEXTS = st.lists(st.sampled_from(["a", "the", "Ada", "été", "🙂", " ", "\n", ".", ", "])).map(
    "".join
)


@given(old=TEXTS, new=TEXTS)
def test_both_texts_can_be_had_back(old: str, new: str):
    pieces = word_diff(old, new)

    assert "".join(p.text for p in pieces if p.kind != "new") == old
    assert "".join(p.text for p in pieces if p.kind != "gone") == new
    assert all(piece.text for piece in pieces)


@given(text=TEXTS)
def test_the_same_text_has_no_change(text: str):
    assert {piece.kind for piece in word_diff(text, text)} <= {"same"}


def test_long_texts_lose_nothing_either():
    old, new = (" ".join(f"a{text}-{n}" for n in range(900)) for text in (1, 2))

    pieces = word_diff(old, new)

    assert "".join(p.text for p in pieces if p.kind != "new") == old
    assert "".join(p.text for p in pieces if p.kind != "gone") == new
    assert sum(p.kind == "same" for p in pieces) == 900


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("", "", ""),
        ("", "Hello", "{+Hello+}"),
        ("Hello", "", "[-Hello-]"),
        ("It is red.", "It is blue.", "It is [-red-]{+blue+}."),
        ("one two three end", "four five six end", "[-one two three-]{+four five six+} end"),
        ("Good day", "Good  day", "Good[- -]{+  +}day"),
    ],
)
def test_changed_words_stand_side_by_side(old: str, new: str, shown: str):
    assert marked(word_diff(old, new)) == shown


def test_a_change_is_one_piece_however_many_words_it_has():
    assert word_diff("I am here now", "You were here now") == [
        Piece("gone", "I am"),
        Piece("new", "You were"),
        Piece("same", " here now"),
    ]


def test_numbers_are_told_with_their_difference_and_unknown_ones_without():
    old = msgspec.structs.replace(
        ended("completed", "Hi"),
        provider="demo",
        model="demo",
        stop_reason="max_tokens",
        usage=Usage(input_tokens=1200, output_tokens=5),
        cost=1_500_000,
        latency_ms=1500,
        first_delta_ms=20,
    )
    new = msgspec.structs.replace(ended("failed", "Hello"), latency_ms=900)

    assert differences(old, new) == [
        ("status", "completed", "failed", ""),
        ("stop reason", "max_tokens", "–", ""),
        ("model", "demo/demo", "–", ""),
        ("input tokens", "1,200", "–", ""),
        ("output tokens", "5", "–", ""),
        ("cost", "$0.0015", "unpriced", ""),
        ("characters", "2", "5", "+3"),
        ("first text", "20 ms", "–", ""),
        ("whole reply", "1.50 s", "900 ms", "−600 ms"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [(1_000_000, 3_500_000, "+$0.0025"), (2_000_000, 0, "−$0.002"), (7, 7, "+$0.00")],
)
def test_money_is_compared_where_both_have_a_price(old: int, new: int, difference: str):
    before = msgspec.structs.replace(ended("completed", "Hi"), cost=old)
    after = msgspec.structs.replace(ended("completed", "Hi"), cost=new)

    [row] = [row for row in differences(before, after) if row[0] == "cost"]

    assert row[3] == difference
