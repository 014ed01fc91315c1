"""A reply that goes on: its message grows when the run ends well, and stays as it was else."""

from datetime import timedelta

import msgspec
import pytest

from services.store import queries
from services.store.applying import apply
from services.store.search import search_messages
from services.store.turns import feed_state
from shared.commands import ListMessages, SearchMessages
from shared.events import Continued, EndStatus, Thoughts, Usage
from shared.ids import new_id
from shared.records import Message
from tests.support.scripted_log import START, USER
from tests.unit.store.story import Story, dump, tables

CUT = "Once upon a"
WHOLE = "Once upon a midnight dreary"


@pytest.fixture
def first(story: Story) -> str:
    """The run of a reply that was cut."""
    run = story.sends("Tell me a story.")
    story.ends(run, CUT, attempt=story.claims(run), stop_reason="max_tokens")
    return run


def branch(story: Story) -> list[Message]:
    request = ListMessages(user_id=USER, session_id=story.session)
    return queries.list_messages(story.connection, request).items


def found(story: Story, query: str) -> list[str]:
    request = SearchMessages(user_id=USER, query=query)
    return [hit.message_id for hit in search_messages(story.connection, request).items]


def test_a_reply_that_goes_on_grows_at_its_place(story: Story, first: str):
    before = branch(story)[-1]
    run = story.continues(
        first, CUT, continues=Continued(length=11, tokens=5, created_at=before.created_at)
    )
    attempt = story.claims(run)
    meanwhile = branch(story)
    story.ends(run, WHOLE, attempt=attempt, stop_reason="end_turn", latency_ms=70)

    grown = branch(story)[-1]

    assert meanwhile[-1] == before
    assert grown == msgspec.structs.replace(
        before, content=WHOLE, tokens=10, latency_ms=70, run_id=run, stop_reason="end_turn"
    )
    assert [m.content for m in branch(story)] == ["Tell me a story.", WHOLE]
    session = queries.find_session(story.connection, USER, story.session).record()
    assert session.message_count == 2
    assert session.last_message_at == story.entries[-1].fact.at
    ended = queries.find_run(story.connection, USER, run).record()
    assert (ended.status, ended.length, ended.stop_reason) == ("completed", 27, "end_turn")
    assert ended.usage == Usage(input_tokens=3, output_tokens=5)


@pytest.mark.parametrize(
    ("status", "text"),
    [("failed", WHOLE), ("failed", CUT), ("cancelled", CUT), ("cancelled", ""), ("failed", "")],
)
def test_an_end_that_brings_nothing_leaves_the_message_as_it_was(
    story: Story, first: str, status: EndStatus, text: str
):
    story.rates(story.answer(first), "up")
    before = branch(story)
    run = story.continues(first, CUT)
    story.ends(run, text, status, attempt=story.claims(run))

    assert branch(story) == before
    assert queries.find_run(story.connection, USER, run).record().status == status


def test_a_continuation_that_is_cancelled_keeps_what_it_wrote(story: Story, first: str):
    run = story.continues(first, CUT)
    story.ends(run, "Once upon a mid", "cancelled", attempt=story.claims(run), usage=None)

    grown = branch(story)[-1]

    assert (grown.content, grown.status) == ("Once upon a mid", "cancelled")
    assert (grown.stop_reason, grown.tokens) == (None, None)


def test_a_rating_was_of_the_text_as_it_was(story: Story, first: str):
    story.rates(story.answer(first), "down", "It stops in the middle.")
    run = story.continues(first, CUT)
    story.ends(run, WHOLE, attempt=story.claims(run))

    assert branch(story)[-1].feedback is None


def test_a_continuation_that_waits_and_is_cancelled_changes_nothing(story: Story, first: str):
    other = story.sends(None, user_message_id=story.question(first))
    before = branch(story)
    run = story.continues(first, CUT, waiting=True)
    story.cancels(run)
    story.ends(run, status="cancelled", attempt=0)

    assert branch(story) == before
    story.ends(other, "Another one.", attempt=story.claims(other))
    assert [m.content for m in branch(story)] == ["Tell me a story.", "Another one."]


def test_a_branch_that_goes_on_is_the_active_one(story: Story, first: str):
    story.ends((again := story.sends(None, user_message_id=story.question(first))), "Not now.")
    run = story.continues(first, CUT, waiting=True)
    waiting = [m.content for m in branch(story)]
    story.dispatches(run, None)
    going_on = [m.content for m in branch(story)]
    story.ends(run, WHOLE, attempt=story.claims(run))

    assert story.answer(again) != story.answer(run) == story.answer(first)
    assert waiting == ["Tell me a story.", "Not now."]
    assert going_on == ["Tell me a story.", CUT]
    assert [m.content for m in branch(story)] == ["Tell me a story.", WHOLE]


def test_siblings_keep_their_order_when_one_of_them_grows(story: Story, first: str):
    again = story.sends(None, user_message_id=story.question(first))
    story.ends(again, "Another one.", attempt=story.claims(again))
    run = story.continues(first, CUT)
    story.ends(run, WHOLE, attempt=story.claims(run))

    request = ListMessages(user_id=USER, session_id=story.session, all_branches=True)
    listed = queries.list_messages(story.connection, request).items

    assert [m.content for m in listed] == ["Tell me a story.", WHOLE, "Another one."]


def test_words_are_found_in_what_was_added_and_once(story: Story, first: str):
    run = story.continues(first, "Once upon a")
    story.ends(run, "Once upon afternoon", attempt=story.claims(run))

    assert found(story, "afternoon") == [story.answer(first)]
    assert found(story, "once upon") == [story.answer(first)]
    assert found(story, "a once") == []  # the word that was cut is another now


def test_what_was_thought_is_not_found(story: Story, first: str):
    run = story.replies("And then?", "Nothing.", parent=story.answer(first))
    story.ends(run, "Nothing.", attempt=1, thoughts=Thoughts(text="A zeppelin, perhaps?"))

    assert branch(story)[-1].thoughts == "A zeppelin, perhaps?"
    assert found(story, "zeppelin") == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_facts_give_the_same_rows_in_batches_of_any_size(size: int):
    with tables() as one_by_one, tables() as batched:
        story = Story(one_by_one)
        run = story.sends("Tell me a story.")
        story.ends(run, CUT, attempt=story.claims(run), stop_reason="max_tokens")
        for text in (WHOLE, f"{WHOLE}, while I pondered", "no more"):
            before = branch(story)[-1].content
            again = story.continues(run, before)
            story.ends(again, text, attempt=story.claims(again), stop_reason="max_tokens")
            story.rates(story.answer(run), "up")
        for start in range(0, len(story.entries), size):
            part = story.entries[start : start + size]
            apply(batched, part, part[-1].seq)

        assert dump(batched) == dump(one_by_one)
        assert found(story, "pondered") == [story.answer(run)]
        select = "SELECT text, message_id FROM words ORDER BY message_id"
        assert batched.exec_driver_sql(select).all() == one_by_one.exec_driver_sql(select).all()
        assert len(one_by_one.exec_driver_sql(select).all()) == 2


def test_the_context_ends_with_the_reply_that_goes_on(story: Story, first: str):
    run = story.continues(first, CUT)

    context = story.context(run)

    assert [(m.role, m.content) for m in context.messages] == [
        ("user", "Tell me a story."),
        ("assistant", CUT),
    ]
    assert (context.messages[-1].stop_reason, context.messages[-1].provider) == (
        "max_tokens",
        "demo",
    )


def test_a_reply_of_another_sessions_prompt_goes_on_with_that_prompt(story: Story, first: str):
    question_id = story.question(first)
    story.session = new_id()
    story.opens()
    rerun = story.sends("Tell me a story.", context=question_id)
    story.ends(rerun, "It was", attempt=story.claims(rerun), stop_reason="max_tokens")
    run = story.continues(rerun, "It was", context=question_id)

    assert [m.content for m in story.context(run).messages] == ["Tell me a story.", "It was"]


def test_a_reply_that_went_on_is_in_the_context_as_it_is(story: Story, first: str):
    run = story.continues(first, CUT)
    story.ends(run, WHOLE, attempt=story.claims(run))
    following = story.sends("Go on.", parent_id=story.answer(first))

    context = story.context(following)

    assert [m.content for m in context.messages] == ["Tell me a story.", WHOLE, "Go on."]


def test_twenty_messages_are_the_context_with_the_reply_that_goes_on(story: Story):
    last = story.replies("u0", "a0")
    for number in range(1, 15):
        last = story.replies(f"u{number}", f"a{number}", parent=story.answer(last))

    context = story.context(story.continues(last, "a14"))

    assert [m.content for m in context.messages] == [
        text for number in range(5, 15) for text in (f"u{number}", f"a{number}")
    ]


def test_a_feed_is_told_what_the_reply_had(story: Story, first: str):
    before = Continued(length=11, tokens=5, created_at=START + timedelta(seconds=9))
    run = story.continues(first, CUT, continues=before)

    (unfinished,) = feed_state(story.hot()).unfinished

    assert (unfinished.run_id, unfinished.continues) == (run, before)
    assert queries.find_run(story.connection, USER, run).record().continues == before


def test_no_other_sessions_message_grows_whatever_an_import_says(story: Story, first: str):
    before = branch(story)
    elsewhere, story.session = story.session, new_id()
    story.opens()
    run = story.continues(first, CUT)
    story.ends(run, "Taken over, and longer.", attempt=story.claims(run))

    story.session = elsewhere
    assert branch(story) == before
