"""A cursor names a place in one log, and nothing else that a client may send does."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.ids import new_id

CURSORS = CursorCodec("01a1f8ec-04ca-7a1a-aba4-578d690187c7")
NUMBERS = st.integers(0, 2**63 - 1)


@given(seq=NUMBERS, attempt=NUMBERS, offset=NUMBERS)
def test_a_cursor_comes_back_as_it_was(seq: int, attempt: int, offset: int):
    assume(attempt <= seq)

    cursor = Cursor(seq, attempt, offset)

    assert CURSORS.parse(CURSORS.format(cursor)) == cursor


@given(st.text())
def test_no_text_is_more_than_a_cursor_or_nothing(text: str):
    cursor = CURSORS.parse(text)

    assert cursor is None or CURSORS.format(cursor) == text


@given(st.from_regex(r"\A[0-9a-f]{12}(-[0-9]{1,25}){0,5}\Z"))
def test_nothing_that_looks_like_a_cursor_fails(text: str):
    cursor = CURSORS.parse(text)

    assert cursor is None or CURSORS.format(cursor) == text


@pytest.mark.parametrize("word", ["-1", "01", "1_0", "1.0", "", " 1", "٣", "²"])
def test_a_number_is_written_in_one_way_only(word: str):
    epoch = CURSORS.format(Cursor(0)).split("-")[0]

    assert CURSORS.parse(f"{epoch}-{word}-0-0") is None


def test_a_cursor_of_another_log_leads_nowhere():
    assert CursorCodec(new_id()).parse(CURSORS.format(Cursor(3, 2, 1))) is None


def test_an_attempt_cannot_be_later_than_what_was_seen():
    assert CURSORS.parse(CURSORS.format(Cursor(3, 4, 0))) is None
