"""What /metrics shows of the runs that have not ended."""

from services.store.gauges import count_unfinished
from tests.support.scripted_log import a_turn
from tests.unit.store.story import Story


def test_runs_are_counted_by_what_they_wait_for_until_they_end(story: Story):
    story.replies("u1", "a1")
    running, _ = story.sends("u2"), story.sends("u3")
    story.claims(running)
    story.accepts(a_turn("u4"), waiting=True)

    counts = count_unfinished(story.connection)

    assert counts == {"running": 1, "queued": 1, "waiting": 1}
