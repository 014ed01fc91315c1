"""A session's tree: branches are chosen, begun beside others, copied; replies are rated."""

import random
import sqlite3

import pytest
import sqlalchemy as sa

from services.store import branches, queries
from services.store.applying import apply, clear
from services.store.past import history_of
from shared import ids
from shared.commands import ChooseBranch, GetSession, ListMessages
from shared.errors import Conflict, NotFound
from shared.events import History, PastMessage
from shared.records import Message
from tests.support.scripted_log import START, USER
from tests.unit.store.story import Story, dump


def branch(story: Story, **fields: bool) -> list[str]:
    request = ListMessages(user_id=USER, session_id=story.session, **fields)
    page = queries.list_messages(story.connection, request)
    assert page.total == len(page.items)
    return [message.content for message in page.items]


def message(story: Story, message_id: str) -> Message:
    return queries.find_message(story.connection, USER, message_id).record()


def leaf_below(story: Story, message_id: str) -> str:
    row = queries.find_message(story.connection, USER, message_id)
    return branches.leaf_below(story.connection, row)


def two_branches(story: Story) -> tuple[str, str]:
    """u1 a1 u2 a2, and u1' a1' beside u1; answers the two runs that began them."""
    old = story.replies("u1", "a1")
    story.replies("u2", "a2", parent=story.answer(old))
    new = story.replies("u1'", "a1'")
    return old, new


def test_a_turn_beside_the_first_one_is_a_branch_of_its_own(story: Story):
    two_branches(story)

    assert branch(story) == ["u1'", "a1'"]
    assert branch(story, all_branches=True) == ["u1", "u1'", "a1", "a1'", "u2", "a2"]


def test_another_branch_is_chosen_by_its_last_message(story: Story):
    old, _ = two_branches(story)
    leaf = leaf_below(story, story.question(old))

    story.chooses(leaf)

    assert branch(story) == ["u1", "a1", "u2", "a2"]
    answer = queries.get_session(
        story.connection, GetSession(user_id=USER, session_id=story.session)
    )
    assert answer.session.message_count == 4


def test_the_leaf_below_a_message_is_the_newest_and_of_a_leaf_itself(story: Story):
    old, new = two_branches(story)
    again = story.sends(None, user_message_id=story.question(old))
    story.ends(again, "a1''", attempt=story.claims(again))

    assert leaf_below(story, story.question(old)) == story.answer(again)
    assert leaf_below(story, story.answer(new)) == story.answer(new)


def test_a_branch_that_is_not_there_changes_nothing(story: Story):
    two_branches(story)

    story.chooses(ids.new_id())

    assert branch(story) == ["u1'", "a1'"]


def test_only_what_is_in_a_branch_of_the_session_is_a_way_to_it(story: Story):
    story.replies("u1", "a1")
    other = Story(story.connection)
    other.entries = story.entries
    elsewhere = other.replies("v1", "b1")
    waiting = story.sends("u2", waiting=True)

    def up_to(message_id: str) -> object:
        request = ChooseBranch(user_id=USER, session_id=story.session, message_id=message_id)
        return branches.branch_up_to(story.connection, request)

    for message_id in (ids.new_id(), "no id", other.question(elsewhere)):
        with pytest.raises(NotFound):
            up_to(message_id)
    with pytest.raises(Conflict):
        up_to(story.question(waiting))


# -- what replies are worth -----------------------------------------------------------


def test_a_rating_is_kept_with_its_reply_and_taken_back(story: Story):
    reply = story.answer(story.replies("u1", "a1"))

    story.rates(reply, "up", "Well said.")
    rated = message(story, reply).feedback
    story.rates(reply, "down")
    changed = message(story, reply).feedback
    story.rates(reply, None)

    assert rated == {"rating": "up", "comment": "Well said."}
    assert changed == {"rating": "down"}
    assert message(story, reply).feedback is None
    assert message(story, reply).content == "a1"


# -- what a session begins with -------------------------------------------------------


def past(number: int, parent: str | None, role: str, content: str) -> PastMessage:
    return PastMessage(
        id=f"01900000-0000-7000-8000-{number:012}",
        parent_id=parent and f"01900000-0000-7000-8000-{int(parent):012}",
        role="user" if role == "user" else "assistant",
        content=content,
        created_at=START,
        feedback={"rating": "up"} if content == "a1" else None,
        attachments=["f"] if content == "u1" else [],
    )


HISTORY = [
    past(1, None, "user", "u1"),
    past(2, "1", "assistant", "a1"),
    past(3, "1", "assistant", "a1'"),
    past(4, "2", "user", "u2"),
]


def begun_with(story: Story, history: History) -> None:
    """The story's next session, which begins with this."""
    story.session = ids.new_id()
    story.opens(history=history)


def test_a_session_begins_with_the_branches_that_it_is_given(story: Story):
    begun_with(story, History(messages=HISTORY, leaf=HISTORY[3].id))

    assert branch(story) == ["u1", "a1", "u2"]
    assert branch(story, all_branches=True) == ["u1", "a1", "a1'", "u2"]
    session = queries.find_session(story.connection, USER, story.session)
    assert (session.title, session.last_message_at, session.depth) == ("u1", START, 3)
    reply = message(story, HISTORY[1].id)
    assert (reply.feedback, reply.run_id, reply.parent_id) == (
        {"rating": "up"},
        None,
        HISTORY[0].id,
    )


def test_it_goes_on_from_there(story: Story):
    begun_with(story, History(messages=HISTORY, leaf=HISTORY[1].id))

    story.replies("u3", "a3", parent=HISTORY[1].id)

    assert branch(story) == ["u1", "a1", "u3", "a3"]
    assert leaf_below(story, HISTORY[2].id) == HISTORY[2].id


def test_finding_the_leaf_takes_no_more_steps_a_message_in_a_long_session(story: Story):
    steps = [_steps_to_the_leaf(story, length) for length in (100, 2000)]

    assert steps[1] < 40 * steps[0]


def test_a_session_may_begin_with_more_messages_than_a_statement_can_name(story: Story):
    driver = story.connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    begun_with(story, chain(2000))

    assert queries.find_session(story.connection, USER, story.session).depth == 2000


def _steps_to_the_leaf(story: Story, length: int) -> int:
    """Hundreds of steps of SQLite's machine from a chain's first message to its last."""
    history = chain(length)
    begun_with(story, history)
    steps = 0

    def one_more() -> None:
        nonlocal steps
        steps += 1

    driver = story.connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(one_more, 100)
    assert leaf_below(story, history.messages[0].id) == history.leaf
    driver.set_progress_handler(None, 0)
    return steps


def chain(length: int) -> History:
    """So many messages, each after the one before it."""
    known = [ids.new_id() for _ in range(length)]
    past = [
        PastMessage(id=new, parent_id=old, role="user", content="u", created_at=START)
        for old, new in zip([None, *known], known, strict=False)
    ]
    return History(messages=past, leaf=known[-1])


def test_what_is_copied_has_new_ids_and_the_same_shape(story: Story):
    two_branches(story)
    request = ChooseBranch(
        user_id=USER,
        session_id=story.session,
        message_id=story.answer(next(iter(story.runs))),
    )
    found = branches.branch_up_to(story.connection, request)

    copied = history_of(found.messages)

    assert [m.content for m in copied.messages] == ["u1", "a1"]
    assert copied.messages[1].parent_id == copied.messages[0].id
    assert copied.leaf == copied.messages[1].id
    assert not {m.id for m in copied.messages} & {m.id for m in found.messages}


# -- replaying ------------------------------------------------------------------------


def test_a_replay_gives_the_same_rows_however_the_facts_are_batched(story: Story):
    old, _ = two_branches(story)
    story.rates(story.answer(old), "up", "Good.")
    story.chooses(story.answer(old))
    story.replies("u3", "a3", parent=story.answer(old))
    first = story.session
    begun_with(story, History(messages=HISTORY, leaf=HISTORY[3].id))
    story.rates(HISTORY[2].id, "down")
    once = dump(story.connection)
    searched = searchable(story.connection)

    for seed in range(5):
        chance, entries = random.Random(seed), list(story.entries)
        clear(story.connection)
        while entries:
            size = chance.randint(1, 6)
            batch, entries = entries[:size], entries[size:]
            apply(story.connection, batch, batch[-1].seq)

        assert dump(story.connection) == once
        assert searchable(story.connection) == searched
    assert first != story.session


def searchable(connection: sa.Connection) -> list[tuple[object, ...]]:
    return sorted(tuple(row) for row in connection.exec_driver_sql("SELECT rowid, * FROM words"))
