"""Prompts from templates, and text that cannot leave its fence."""

from hypothesis import given
from hypothesis import strategies as st

from shared.templates import fence, fill, names_in


def test_names_get_their_values_and_other_braces_stay():
    filled = fill('{a} {b} {"json": 1} {} {A}', {"a": "1", "b": "2"})

    assert filled == '1 2 {"json": 1} {} {A}'


def test_a_value_is_never_taken_for_a_name():
    assert fill("{a} {b}", {"a": "{b}", "b": "{a}"}) == "{b} {a}"


def test_a_name_without_a_value_stays():
    assert fill("{a} {b}", {"a": "1"}) == "1 {b}"


def test_the_names_of_a_template_are_known():
    assert names_in("{a} {b_2} {B} { c } {{a}}") == {"a", "b_2"}


def test_a_fence_is_as_long_as_it_must_be():
    assert fence("plain", "file") == "```file\nplain\n```"
    assert fence("````\ninner\n````", "file") == "`````file\n````\ninner\n````\n`````"


@given(st.text(alphabet="`\n a~", max_size=200))
def test_no_line_of_the_text_closes_its_fence(text: str):
    first, *_, last = fence(text, "file").split("\n")
    token_events = first.removesuffix("file")

    assert last == token_events
    assert token_events not in text
