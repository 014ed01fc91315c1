"""What memory knows of a session after each fact is what the tables know."""

import random
from typing import Any

from services.store.context import remembered
from services.store.empty_tables import empty_tables
from services.store.memory import HotSession
from services.store.projection import Rows
from services.store.session_rows import CONTEXT_MESSAGES
from services.store.turns import feed_state
from tests.unit.store.story import ProjectedLog, Story


def shown(hot: HotSession) -> Any:
    """All that commands decide on."""
    row = hot.session()
    unfinished = hot.unfinished()
    return (row, unfinished, hot.tail(row.active_leaf, CONTEXT_MESSAGES), feed_state(hot))


def follow(story: ProjectedLog, hot: HotSession) -> HotSession:
    """Take what is new; where memory cannot, it is read from the tables, as the store does."""
    if all(hot.take(entry) for entry in story.entries if entry.seq > hot.seq):
        return hot
    return Story.hot(story)  # type: ignore[arg-type]  (it needs the tables and the id alone)


def test_a_session_that_is_followed_from_its_first_fact_needs_no_tables(story: Story):
    hot = HotSession(Rows(), story.session, 0)
    first = story.replies("u1", "a1")
    story.replies("u2", "a2", parent=story.answer(first))

    assert all(hot.take(entry) for entry in story.entries)
    assert shown(hot) == shown(story.hot())


def test_every_session_is_in_memory_what_it_is_in_the_tables():
    for seed in range(40):
        _live_a_random_life(random.Random(seed))


def _live_a_random_life(chance: random.Random) -> None:
    with empty_tables() as connection:
        story = ProjectedLog(connection)
        story.opens()
        hot = HotSession(Rows(), story.session, 0)
        waiting: list[str] = []
        active: str | None = None
        for _ in range(60):
            leaf = Story.hot(story).session().active_leaf  # type: ignore[arg-type]
            match chance.randrange(8):
                case 0 | 1 if active is None and not waiting:
                    active = story.sends("u" * chance.randrange(1, 9), parent_id=leaf)
                case 2 if active is not None:
                    waiting.append(story.sends("w", waiting=True))
                case 3 if active is not None:
                    story.claims(active)
                case 4 | 5 if active is not None:
                    text, status = ("", "failed") if chance.random() < 0.2 else ("a", "completed")
                    story.ends(active, text, status)  # type: ignore[arg-type]
                    active = None
                case 6 if active is None and waiting:
                    active = waiting.pop(0)
                    story.dispatches(active, leaf)
                case 7 if waiting:
                    story.cancels(waiting[-1])
                case _:
                    story.updates(title=str(chance.random()))
            hot = follow(story, hot)
            assert shown(hot) == shown(Story.hot(story))  # type: ignore[arg-type]


def test_the_prompt_from_memory_is_the_one_from_the_tables(story: Story):
    parent = None
    for number in range(30):  # more than a prompt has
        run = story.replies(f"u{number}", f"a{number}", parent=parent)
        parent = story.answer(run)
    last = story.sends("And now?", parent_id=parent)

    found = remembered(story.hot(), story.turn(last))

    assert found == story.context(last)
    assert len(story.context(last).messages) == 20


def test_what_memory_does_not_reach_is_not_made_up(story: Story):
    parent = story.answer(story.replies("u0", "a0"))
    second = story.replies("u1", "a1", parent=parent)
    parent = story.answer(second)
    for number in range(2, 40):
        parent = story.answer(story.replies(f"u{number}", f"a{number}", parent=parent))
    hot = story.hot()
    again = story.sends(None, user_message_id=story.question(second))

    assert remembered(hot, story.turn(again)) is None


def test_a_fact_about_something_older_lets_the_session_go(story: Story):
    first = story.replies("u0", "a0")
    parent = story.answer(first)
    for number in range(1, 40):
        parent = story.answer(story.replies(f"u{number}", f"a{number}", parent=parent))
    hot = story.hot()
    story.rates(story.answer(first), "up")

    assert not hot.take(story.entries[-1])


def test_a_fact_whose_predecessor_is_missing_lets_the_session_go(story: Story):
    hot = story.hot()
    run = story.sends("u1")
    story.claims(run)

    assert not hot.take(story.entries[-1])


def test_a_fact_that_comes_twice_counts_once(story: Story):
    hot = story.hot()
    story.sends("u1")

    assert [hot.take(story.entries[-1]) for _ in range(2)] == [True, True]
    assert [run.status for run in hot.unfinished()] == ["queued"]
