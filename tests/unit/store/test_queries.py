"""What is read from the rows."""

import msgspec
import pytest
from msgspec import UNSET

from services.store import queries
from services.store.context import get_context
from services.store.turns import feed_state
from shared import ids
from shared.commands import GetContext, GetRun, GetSession, ListMessages, ListSessions
from shared.errors import InvalidRequest, NotFound
from shared.events import Fault
from tests.support.scripted_log import USER, a_turn
from tests.unit.store.story import Story

STRANGER = "01900000-0000-7000-8000-00000000000c"


def other_session(story: Story, title: str) -> Story:
    """Another session beside the story's, in the same log."""
    other = Story.__new__(Story)
    other.__dict__ = story.__dict__ | {"session": ids.new_id()}
    other.opens()
    other.updates(title=title)
    return other


def context(story: Story, run: str) -> list[str]:
    return [m.content for m in story.context(run).messages]


def titles(story: Story, **fields: object) -> list[str | None]:
    request = ListSessions(user_id=USER, **fields)  # type: ignore[arg-type]
    return [s.title for s in queries.list_sessions(story.connection, request).items]


def test_a_context_ends_with_the_message_to_answer(story: Story):
    first = story.replies("u1", "a1")
    run = story.sends("u2", parent_id=story.answer(first))

    assert context(story, run) == ["u1", "a1", "u2"]


def test_a_context_is_the_same_before_the_tables_have_its_turn(story: Story):
    first = story.answer(story.replies("u1", "a1"))
    turn = a_turn("u2", parent_id=first, attachments=["gone"])
    request = GetContext(user_id=USER, session_id=story.session, turn=turn)

    before = get_context(story.connection, request)
    story.accepts(turn)
    after = get_context(story.connection, request)

    assert [m.content for m in before.messages] == ["u1", "a1", "u2"]
    assert before.messages[-1].missing_files == 1
    assert msgspec.structs.replace(after, seq=before.seq) == before


def test_a_context_is_of_its_own_branch(story: Story):
    first = story.replies("u1", "a1")
    story.replies("u2", "a2", parent=story.answer(first))
    again = story.sends(None, user_message_id=story.question(first))

    assert context(story, again) == ["u1"]


def test_a_context_has_the_last_twenty_messages(story: Story):
    leaf = None
    for number in range(15):
        leaf = story.answer(story.replies(f"u{number}", f"a{number}", parent=leaf))
    run = story.sends("now", parent_id=leaf)

    found = context(story, run)

    assert len(found) == 20
    assert (found[0], found[1], found[-2], found[-1]) == ("a5", "u6", "a14", "now")


def test_a_context_may_be_another_sessions_branch(story: Story):
    first = story.replies("u1", "a1")
    question_id = story.question(story.replies("u2", "a2", parent=story.answer(first)))
    beside = other_session(story, "Beside")

    again = beside.sends("u2", context=question_id)

    assert context(beside, again) == ["u1", "a1", "u2"]


def test_a_context_that_is_gone_is_none(story: Story):
    run = story.sends("u1", context=ids.new_id())

    assert context(story, run) == ["u1"]


def test_empty_failed_and_waiting_messages_are_no_context(story: Story):
    failed = story.sends("u1")
    story.ends(failed, "half", "failed", attempt=story.claims(failed))
    empty = story.sends("u2", parent_id=story.answer(failed))
    story.ends(empty, "", "cancelled", attempt=0)
    stopped = story.sends("u3", parent_id=story.answer(empty))
    story.ends(stopped, "part", "cancelled", attempt=story.claims(stopped))
    run = story.sends("u4", parent_id=story.answer(stopped))
    story.sends("u5", waiting=True)

    assert context(story, run) == ["u1", "u2", "u3", "part", "u4"]


def test_what_is_no_context_does_not_take_the_place_of_what_is(story: Story):
    leaf, run = None, ""
    for number in range(30):
        run = story.sends(f"u{number}", parent_id=leaf)
        story.ends(run, "", "failed", attempt=0)
        leaf = story.answer(run)

    assert context(story, run) == [f"u{number}" for number in range(10, 30)]


def test_a_turns_own_values_win_over_its_sessions(story: Story):
    own = story.sends("u1", model="other", temperature=0.0, max_tokens=7)
    mine = story.context(own)
    story.ends(own, "a1", attempt=story.claims(own))
    plain = story.sends("u2", parent_id=story.answer(own))
    default = story.context(plain)

    assert (mine.model, mine.temperature, mine.max_tokens) == ("other", 0.0, 7)
    assert (default.model, default.temperature, default.max_tokens) == ("demo", 0.7, 1024)
    assert mine.system_prompt == default.system_prompt == "Be brief."
    assert default.seq == len(story.entries)


def test_messages_come_in_pages_in_either_direction(story: Story):
    first = story.replies("u1", "a1")
    story.sends("u2", parent_id=story.answer(first))
    story.sends("u3", waiting=True)

    def page(**fields: object) -> list[str]:
        request = ListMessages(user_id=USER, session_id=story.session, **fields)  # type: ignore[arg-type]
        return [m.content for m in queries.list_messages(story.connection, request).items]

    assert page() == ["u1", "a1", "u2", "u3"]
    assert page(limit=2) == ["u1", "a1"]
    assert page(limit=2, offset=2) == ["u2", "u3"]
    assert page(descending=True, limit=3) == ["u3", "u2", "a1"]


def test_a_session_is_listed_by_when_it_was_written_to(story: Story):
    story.updates(title="old")
    for number in range(2):
        other_session(story, f"new {number}")
    story.sends("u1")

    assert titles(story) == ["old", "new 1", "new 0"]
    assert titles(story, limit=2) == ["old", "new 1"]
    assert titles(story, offset=1, limit=1) == ["new 1"]
    assert titles(story, query="NEW") == ["new 1", "new 0"]
    assert titles(story, query="%") == []
    request = ListSessions(user_id=USER, limit=1)
    assert queries.list_sessions(story.connection, request).total == 3


@pytest.mark.parametrize("erased", [True, False])
def test_a_list_goes_on_although_its_last_session_is_elsewhere_by_then(story: Story, erased: bool):
    story.updates(title="first")
    others = [other_session(story, f"new {number}") for number in range(3)]

    page = queries.list_sessions(story.connection, ListSessions(user_id=USER, limit=2))
    if erased:
        others[1].deletes()
    else:
        others[1].updates(title="newest")

    assert [session.title for session in page.items] == ["new 2", "new 1"]
    assert titles(story, before=page.next) == ["new 0", "first"]
    request = ListSessions(user_id=USER, before=page.next, limit=2)
    assert queries.list_sessions(story.connection, request).next is None


def test_inactive_sessions_and_those_of_stateless_calls_are_listed_when_asked_for(story: Story):
    story.updates(status="inactive")

    assert titles(story) == []
    assert titles(story, status="inactive") == [None]
    assert titles(story, status=None) == [None]
    assert titles(story, status=None, modes=["adhoc"]) == []
    assert titles(story, status=None, modes=["general", "adhoc"]) == [None]


def test_a_page_cannot_begin_before_the_start(story: Story):
    with pytest.raises(InvalidRequest):
        titles(story, offset=-1)


def test_a_feed_begins_with_what_is_unfinished_in_its_order(story: Story):
    first = story.replies("u1", "a1")
    active = story.sends("u2", parent_id=story.answer(first))
    later, last = story.sends("u3", waiting=True), story.sends("u4", waiting=True)
    attempt = story.claims(active)

    feed = feed_state(story.hot())

    assert [r.run_id for r in feed.unfinished] == [active, later, last]
    assert [r.attempt for r in feed.unfinished] == [attempt, 0, 0]
    assert [r.waiting for r in feed.unfinished] == [False, True, True]
    assert [r.user_message.content for r in feed.unfinished] == ["u2", "u3", "u4"]
    assert feed.unfinished[0].assistant_message_id == story.answer(active)
    assert feed.seq == len(story.entries)


def test_what_is_another_users_is_not_there(story: Story):
    run = story.replies("u1", "a1")

    with pytest.raises(NotFound):
        queries.get_session(
            story.connection, GetSession(user_id=STRANGER, session_id=story.session)
        )
    with pytest.raises(NotFound):
        queries.get_run(story.connection, GetRun(user_id=STRANGER, run_id=run))
    with pytest.raises(NotFound):
        queries.get_run(story.connection, GetRun(user_id=USER, run_id="nonsense"))


def test_a_reply_that_failed_says_why_and_no_other_does(story: Story):
    story.replies("u1", "a1")
    run = story.sends("u2", parent_id=story.answer(story.runs[0]))
    fault = Fault(code="timeout", message="It took too long.", retryable=True)
    story.claims(run)
    story.ends(run, "", "failed", error=fault)

    request = ListMessages(user_id=USER, session_id=story.session)
    listed = queries.list_messages(story.connection, request).items

    assert [message.error for message in listed] == [UNSET, UNSET, UNSET, fault]
