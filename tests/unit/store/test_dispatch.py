"""What a session needs next, as its rows say."""

from services.store import queries
from services.store.dispatch import Begin, End, Lost, Step, Watch, ended_by_store, steps
from tests.unit.store.story import Story


def needed(story: Story, first: int = 0) -> list[tuple[type[Step], str]]:
    unfinished = queries.unfinished_runs(story.connection, story.session)
    return [(type(step), step.run.id) for step in steps(unfinished, first)]


def test_a_session_at_rest_needs_nothing(story: Story):
    story.replies("u1", "a1")

    assert needed(story) == []


def test_what_waits_goes_on_waiting_while_a_run_is_active(story: Story):
    story.sends("u1")
    story.sends("u2", waiting=True)

    assert needed(story) == []


def test_the_first_that_waits_is_next(story: Story):
    active = story.sends("u1")
    waiting = story.sends("u2", waiting=True)
    story.sends("u3", waiting=True)
    story.ends(active, "a1", attempt=story.claims(active))

    assert needed(story) == [(Begin, waiting)]


def test_a_cancelled_run_that_waits_is_ended_and_the_next_one_goes(story: Story):
    active = story.sends("u1")
    cancelled, waiting = story.sends("u2", waiting=True), story.sends("u3", waiting=True)
    story.cancels(cancelled)
    while_busy = needed(story)
    story.ends(active, "a1", attempt=story.claims(active))

    assert while_busy == [(End, cancelled)]
    assert needed(story) == [(End, cancelled), (Begin, waiting)]


def test_a_cancelled_run_that_nobody_claimed_is_ended(story: Story):
    run = story.sends("u1")
    story.cancels(run)

    assert needed(story) == [(End, run)]


def test_a_cancelled_run_that_was_claimed_is_its_workers_to_end(story: Story):
    run = story.sends("u1")
    story.claims(run)
    story.cancels(run)

    assert needed(story) == [(Watch, run)]


def test_a_run_whose_facts_are_gone_from_the_log_is_lost(story: Story):
    active = story.sends("u1")
    story.sends("u2", waiting=True)

    assert needed(story, first=100) == [(Lost, active)]


def test_a_final_of_the_stores_own_has_the_partial_text(story: Story):
    run = story.sends("u1")
    attempt = story.claims(run)
    (row,) = queries.unfinished_runs(story.connection, story.session)

    final = ended_by_store(row, "cancelled", "häl")

    assert (final.status, final.attempt, final.text, final.length) == (
        "cancelled",
        attempt,
        "häl",
        3,
    )
    assert final.sha256 == "fbbf22494138ae19acfa5f46961bba68925992d651fc76529b7fd8a3dd6a5502"
