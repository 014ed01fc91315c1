"""What is read from the rows."""

import msgspec
import pytest

from services.store import queries
from services.store.context import get_context
from shared import ids
from shared.commands import GetContext, GetRun, GetSession, ListMessages, ListSessions, OpenFeed
from shared.errors import InvalidRequest, NotFound
from shared.events import TodoChat
from tests.unit.store.story import USER, Story

STRANGER = "01900000-0000-7000-8000-00000000000c"


def other_session(story: Story, title: str) -> Story:
    """Another session beside the story's, in the same log."""
    other = Story.__new__(Story)
    other.__dict__ = story.__dict__ | {"session": ids.new_id()}
    other.tell(f"evt.{USER}.{other.session}._.session.created", story.links[0].fact)
    other.update(title=title)
    return other


def context(story: Story, run: str) -> list[str]:
    return [m.content for m in story.context(run).messages]


def titles(story: Story, **fields: object) -> list[str | None]:
    request = ListSessions(user_id=USER, **fields)  # type: ignore[arg-type]
    return [s.title for s in queries.list_sessions(story.connection, request).items]


def test_a_context_ends_with_the_message_to_answer(story: Story):
    first = story.reply("u1", "a1")
    run = story.todo("u2", parent_id=story.answered(first))

    assert context(story, run) == ["u1", "a1", "u2"]


def test_a_context_is_the_same_before_the_tables_have_its_turn(story: Story):
    first = story.answered(story.reply("u1", "a1"))
    turn = story.turn("u2", parent_id=first, attachments=["gone"])
    request = GetContext(user_id=USER, session_id=story.session, turn=turn)

    before = get_context(story.connection, request)
    story.tell(story.address("r").todo_chat(0), TodoChat(at=story.now, n=0, turn=turn))
    after = get_context(story.connection, request)

    assert [m.content for m in before.messages] == ["u1", "a1", "u2"]
    assert before.messages[-1].missing_files == 1
    assert msgspec.structs.replace(after, seq=before.seq) == before


def test_a_context_is_of_its_own_branch(story: Story):
    first = story.reply("u1", "a1")
    story.reply("u2", "a2", parent=story.answered(first))
    again = story.todo(None, user_message_id=story.asked(first))

    assert context(story, again) == ["u1"]


def test_a_context_has_the_last_twenty_messages(story: Story):
    leaf = None
    for number in range(15):
        leaf = story.answered(story.reply(f"u{number}", f"a{number}", parent=leaf))
    run = story.todo("now", parent_id=leaf)

    found = context(story, run)

    assert len(found) == 20
    assert (found[0], found[1], found[-2], found[-1]) == ("a5", "u6", "a14", "now")


def test_a_context_may_be_another_sessions_branch(story: Story):
    first = story.reply("u1", "a1")
    asked = story.asked(story.reply("u2", "a2", parent=story.answered(first)))
    beside = other_session(story, "Beside")

    again = beside.todo("u2", context=asked)

    assert context(beside, again) == ["u1", "a1", "u2"]


def test_a_context_that_is_gone_is_none(story: Story):
    run = story.todo("u1", context=ids.new_id())

    assert context(story, run) == ["u1"]


def test_empty_failed_and_waiting_messages_are_no_context(story: Story):
    failed = story.todo("u1")
    story.end(failed, "half", "failed", attempt=story.claim(failed))
    empty = story.todo("u2", parent_id=story.answered(failed))
    story.end(empty, "", "cancelled", attempt=0)
    stopped = story.todo("u3", parent_id=story.answered(empty))
    story.end(stopped, "part", "cancelled", attempt=story.claim(stopped))
    run = story.todo("u4", parent_id=story.answered(stopped))
    story.wait("u5")

    assert context(story, run) == ["u1", "u2", "u3", "part", "u4"]


def test_what_is_no_context_does_not_take_the_place_of_what_is(story: Story):
    leaf, run = None, ""
    for number in range(30):
        run = story.todo(f"u{number}", parent_id=leaf)
        story.end(run, "", "failed", attempt=0)
        leaf = story.answered(run)

    assert context(story, run) == [f"u{number}" for number in range(10, 30)]


def test_a_turns_own_values_win_over_its_sessions(story: Story):
    own = story.todo("u1", model="other", temperature=0.0, max_tokens=7)
    mine = story.context(own)
    story.end(own, "a1", attempt=story.claim(own))
    plain = story.todo("u2", parent_id=story.answered(own))
    default = story.context(plain)

    assert (mine.model, mine.temperature, mine.max_tokens) == ("other", 0.0, 7)
    assert (default.model, default.temperature, default.max_tokens) == ("demo", 0.5, None)
    assert mine.system_prompt == default.system_prompt == "Be kind."
    assert default.seq == len(story.links)


def test_messages_come_in_pages_in_either_direction(story: Story):
    first = story.reply("u1", "a1")
    story.todo("u2", parent_id=story.answered(first))
    story.wait("u3")

    def page(**fields: object) -> list[str]:
        request = ListMessages(user_id=USER, session_id=story.session, **fields)  # type: ignore[arg-type]
        return [m.content for m in queries.list_messages(story.connection, request).items]

    assert page() == ["u1", "a1", "u2", "u3"]
    assert page(limit=2) == ["u1", "a1"]
    assert page(limit=2, offset=2) == ["u2", "u3"]
    assert page(descending=True, limit=3) == ["u3", "u2", "a1"]


def test_a_session_is_listed_by_when_it_was_written_to(story: Story):
    story.update(title="old")
    for number in range(2):
        other_session(story, f"new {number}")
    story.todo("u1")

    assert titles(story) == ["old", "new 1", "new 0"]
    assert titles(story, limit=2) == ["old", "new 1"]
    assert titles(story, offset=1, limit=1) == ["new 1"]
    assert titles(story, query="NEW") == ["new 1", "new 0"]
    assert titles(story, query="%") == []
    request = ListSessions(user_id=USER, limit=1)
    assert queries.list_sessions(story.connection, request).total == 3


@pytest.mark.parametrize("erased", [True, False])
def test_a_list_goes_on_although_its_last_session_is_elsewhere_by_then(story: Story, erased: bool):
    story.update(title="first")
    others = [other_session(story, f"new {number}") for number in range(3)]

    page = queries.list_sessions(story.connection, ListSessions(user_id=USER, limit=2))
    if erased:
        others[1].delete()
    else:
        others[1].update(title="newest")

    assert [session.title for session in page.items] == ["new 2", "new 1"]
    assert titles(story, before=page.next) == ["new 0", "first"]
    request = ListSessions(user_id=USER, before=page.next, limit=2)
    assert queries.list_sessions(story.connection, request).next is None


def test_inactive_sessions_and_those_of_stateless_calls_are_listed_when_asked_for(story: Story):
    story.update(status="inactive")

    assert titles(story) == []
    assert titles(story, status="inactive") == [None]
    assert titles(story, status=None) == [None]
    assert titles(story, status=None, modes=["adhoc"]) == []
    assert titles(story, status=None, modes=["general", "adhoc"]) == [None]


def test_a_page_cannot_begin_before_the_start(story: Story):
    with pytest.raises(InvalidRequest):
        titles(story, offset=-1)


def test_a_feed_begins_with_what_is_unfinished_in_its_order(story: Story):
    first = story.reply("u1", "a1")
    active = story.todo("u2", parent_id=story.answered(first))
    later, last = story.wait("u3"), story.wait("u4")
    attempt = story.claim(active)

    request = OpenFeed(user_id=USER, session_id=story.session)
    feed = queries.open_feed(story.connection, request)

    assert [r.run_id for r in feed.unfinished] == [active, later, last]
    assert [r.attempt for r in feed.unfinished] == [attempt, 0, 0]
    assert [r.waiting for r in feed.unfinished] == [False, True, True]
    assert [r.user_message.content for r in feed.unfinished] == ["u2", "u3", "u4"]
    assert feed.unfinished[0].assistant_message_id == story.answered(active)
    assert feed.seq == len(story.links)


def test_what_is_another_users_is_not_there(story: Story):
    run = story.reply("u1", "a1")

    with pytest.raises(NotFound):
        queries.get_session(
            story.connection, GetSession(user_id=STRANGER, session_id=story.session)
        )
    with pytest.raises(NotFound):
        queries.get_run(story.connection, GetRun(user_id=STRANGER, run_id=run))
    with pytest.raises(NotFound):
        queries.open_feed(story.connection, OpenFeed(user_id=STRANGER, session_id=story.session))
    with pytest.raises(NotFound):
        queries.get_run(story.connection, GetRun(user_id=USER, run_id="nonsense"))
