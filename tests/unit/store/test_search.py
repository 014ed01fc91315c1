"""Which messages hold some words, and what is left of them when their session goes."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.store.applying import clear
from services.store.search import search_messages, snippet
from shared import ids
from shared.commands import HitPage, SearchMessages
from shared.errors import InvalidRequest
from tests.support.scripted_log import USER
from tests.unit.store.story import Story, tables


def find(story: Story, query: str, **fields: Any) -> HitPage:
    request = SearchMessages(user_id=fields.pop("user_id", USER), query=query, **fields)
    return search_messages(story.connection, request)


def snippets(story: Story, query: str) -> list[str]:
    return [hit.snippet for hit in find(story, query).items]


def test_a_message_is_found_by_its_words_the_newest_first(story: Story):
    run = story.replies("Where does the cat sleep?", "The cat sleeps on the roof.")

    found = find(story, "cat")

    assert [(h.session_id, h.message_id) for h in found.items] == [
        (story.session, story.answer(run)),
        (story.session, story.question(run)),
    ]
    assert (found.total, found.next) == (2, None)


@pytest.mark.parametrize(
    ("text", "query", "is_found"),
    [
        ("The cat sleeps", "CAT", True),
        ("The cat sleeps", "cat sleeps", True),
        ("The cat sleeps", "sleeps cat", True),
        ("The cat sleeps", "cat barks", False),
        ("The cat sleeps", "sle", True),  # the last word is being typed
        ("The cat sleeps", "sle cat", False),
        ("The cat sleeps", '"cat sleeps"', True),
        ("The cat sleeps", '"sleeps cat"', False),
        ("Ein Käfer", "kafer", True),
        ("Смотри, кот", "КОТ", True),
        ("你好世界", "世界", True),
        ("你好世界", "界世", False),
        ("これは猫です", "猫", True),
        ("ภาษาไทย", "ไทย", True),
        ("한국어 문장", "한국", True),
        ("a cat OR a dog", "OR", True),
        ("naïve: x=1;", "x=1", True),
        ("foo_bar.baz", "bar.baz", True),
        ("see e-mail", "e-mail", True),
    ],
)
def test_what_is_found(story: Story, text: str, query: str, is_found: bool):
    story.replies(text, "")

    assert bool(find(story, query).items) is is_found


@pytest.mark.parametrize(
    "query",
    [
        "NEAR(",
        "cat AND",
        "text:cat",
        "-cat",
        "cat*",
        "^cat",
        "'; DROP TABLE words; --",
        '"',
        "{cat}",
    ],
)
def test_no_word_means_anything_but_itself(story: Story, query: str):
    story.replies("The cat sleeps", "It does.")

    with suppress(InvalidRequest):
        assert len(find(story, query).items) <= 1


@pytest.mark.parametrize("query", ["", " ", "***", '""', "…", "- -"])
def test_nothing_to_search_for_is_a_bad_request(story: Story, query: str):
    with pytest.raises(InvalidRequest) as refused:
        find(story, query)

    assert refused.value.path == "$.q"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_query_is_a_failure(query: str):
    with tables() as connection:
        story = Story(connection)
        story.replies(f"Said: {query}", "Yes")

        with suppress(InvalidRequest):
            assert find(story, query).total <= 2


def test_pages_go_on_where_they_end(story: Story):
    runs = [story.replies(f"cat {n}", "Yes") for n in range(5)]
    questions = [story.question(run) for run in runs][::-1]

    found, before = list[str](), None
    while True:
        page = find(story, "cat", limit=2, before=before)
        assert page.total == 5
        found += [hit.message_id for hit in page.items]
        before = page.next
        if before is None:
            break

    assert found == questions


def test_a_branch_that_is_not_shown_is_searched_and_what_waits_is_not(story: Story):
    story.replies("the old cat", "Yes")
    story.replies("the new dog", "Yes")
    story.sends("a waiting cat", waiting=True)

    assert snippets(story, "cat") == ["the old cat"]


def test_what_is_another_users_or_of_a_hidden_mode_is_not_found(story: Story):
    story.replies("the cat", "Yes")
    story.session = ids.new_id()
    story.opens(mode="adhoc")
    story.replies("the adhoc cat", "Yes")

    assert snippets(story, "cat") == ["the cat"]
    assert find(story, "cat", user_id=ids.new_id()).total == 0


def test_no_part_of_the_index_keeps_a_word_of_a_deleted_session(story: Story):
    story.replies("the xylophone", "a zeppelin, surely")

    story.deletes()

    assert find(story, "xylophone").items == []
    for table in ("words_data", "words_content"):
        rows = story.connection.exec_driver_sql(f"SELECT * FROM {table}").all()
        assert b"xylophon" not in repr(rows).encode()
        assert b"zeppelin" not in repr(rows).encode()


def test_what_is_dropped_can_be_taken_in_again(story: Story):
    story.replies("the cat", "Yes")

    clear(story.connection)

    assert find(story, "cat").total == 0


@pytest.mark.parametrize(
    ("text", "terms", "shown"),
    [
        ("one two three", ["two"], "one two three"),
        ("line\n\none  two", ["two"], "line one two"),
        ("a " * 60 + "needle" + " b" * 60, ["needle"], f"…{'a ' * 29}needle{' b' * 29}…"),
        ("word " * 40, ["missing"], "word " * 11 + "word…"),
    ],
)
def test_a_snippet_shows_what_stands_around(text: str, terms: list[str], shown: str):
    assert snippet(text, terms) == shown
