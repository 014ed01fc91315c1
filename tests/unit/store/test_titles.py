"""What a session is called whose owner gave it no name."""

import pytest

from services.store import queries
from services.store.titles import MOST, title_of
from tests.support.scripted_log import USER
from tests.unit.store.story import Story


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("Hello", "Hello"),
        ("  \n\n  Two   words \nand more", "Two words"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        (
            "Why do cats purr when they sleep, " + "and dream " * 9,
            "Why do cats purr when they sleep, and dream and dream and…",
        ),
        ("漢" * 100, "漢" * 59 + "…"),
        ("", None),
        (" \n\t", None),
    ],
)
def test_a_title_is_the_first_line_cut_between_words(message: str, title: str | None):
    assert title_of(message) == title
    assert len(title or "") <= MOST


def title(story: Story) -> str | None:
    return queries.find_session(story.connection, USER, story.session).title


def test_a_session_without_a_title_is_named_after_its_first_message(story: Story):
    story.replies("What is a cat?\nTell me.", "An animal.")
    story.replies("And a dog?", "Another.")

    assert title(story) == "What is a cat?"


def test_a_waiting_message_names_it_too(story: Story):
    story.sends("What is a cat?", waiting=True)

    assert title(story) == "What is a cat?"


def test_a_title_that_was_given_stays(story: Story):
    story.updates(title="Animals")
    story.replies("What is a cat?", "An animal.")

    assert title(story) == "Animals"


def test_a_title_that_was_taken_away_later_is_not_made_anew(story: Story):
    story.replies("What is a cat?", "An animal.")
    story.updates(title=None)
    story.replies("And a dog?", "Another.")

    assert title(story) is None
