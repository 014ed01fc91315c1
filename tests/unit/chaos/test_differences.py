"""What is wrong with a text has a name, whatever the text is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.harness.differences import common_prefix, difference

TRUTH = "one two three four five six seven "


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        ("one two three four five six ", "lost"),
        ("two three four five six seven ", "lost"),
        ("one two four five six seven ", "lost"),
        ("one two two three four five six seven ", "doubled"),
        ("one one two three four five six seven ", "doubled"),
        (TRUTH + "seven ", "doubled"),
        (TRUTH + TRUTH, "doubled"),
        ("one two drei vier fünf six seven ", "spliced"),
        ("one two three four fünf sechs ", "spliced"),
        ("one two threw four five six seven ", "wrong"),
    ],
)
def test_a_wrong_text_is_named(held: str, kind: str):
    found = difference(held, TRUTH, ["eins zwei drei vier fünf sechs "])

    assert found is not None
    assert found.kind == kind


def test_the_right_text_has_no_difference():
    assert difference(TRUTH, TRUTH, ["another"]) is None


@given(st.text(), st.text())
def test_two_texts_differ_unless_they_are_equal(held: str, truth: str):
    assert (difference(held, truth) is None) == (held == truth)


@given(st.text(), st.text(), st.text())
def test_the_common_prefix_is_the_longest(start: str, one: str, other: str):
    length = common_prefix(start + one, start + other)

    assert (start + one)[:length] == (start + other)[:length]
    assert (start + one)[length : length + 1] != (start + other)[length : length + 1] or (
        length == min(len(start + one), len(start + other))
    )
