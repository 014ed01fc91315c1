"""What becomes of a turn, decided on the session's state alone."""

import pytest

from services.store.session_log import SessionState
from services.store.turns import decide
from shared.errors import Conflict
from shared.events import Turn
from tests.unit.store.story import Story

TURN = Turn(user_message_id="u", assistant_message_id="a", content="Hi", parent_id="leaf")
WAITING = Turn(user_message_id="u", assistant_message_id="a", content="Hi")


def state(story: Story) -> SessionState:
    hot = story.hot()
    return SessionState(hot.session(), hot.unfinished())


def test_a_turn_begins_at_once_in_a_session_at_rest(story: Story):
    story.replies("u1", "a1")

    decision = decide(state(story), TURN)

    assert (decision.turn, decision.waits, list(decision.interrupts)) == (TURN, False, [])


def test_a_turn_waits_behind_another_and_does_not_know_its_parent(story: Story):
    story.sends("u1")

    decision = decide(state(story), TURN)

    assert (decision.turn, decision.waits, list(decision.interrupts)) == (WAITING, True, [])


def test_a_turn_that_interrupts_stops_all_before_it(story: Story):
    story.updates(on_busy="interrupt")
    runs = [story.sends("u1"), story.sends("u2", waiting=True)]

    decision = decide(state(story), TURN)

    assert (decision.turn, decision.waits) == (WAITING, True)
    assert [run.id for run in decision.interrupts] == runs


def test_a_busy_session_may_reject(story: Story):
    story.updates(on_busy="reject")
    story.sends("u1")

    with pytest.raises(Conflict):
        decide(state(story), TURN)


def test_an_inactive_session_takes_no_turn(story: Story):
    story.updates(status="inactive")

    with pytest.raises(Conflict):
        decide(state(story), TURN)
