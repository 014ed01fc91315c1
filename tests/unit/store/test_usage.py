"""What calls came to: by day, by model, by session; what has no price is counted, never free."""

from datetime import timedelta
from typing import Any

import pytest

from services.store.usage import get_usage
from shared import ids
from shared.commands import GetUsage, UsagePage
from shared.errors import InvalidRequest
from shared.events import StepResult, Usage
from tests.support.scripted_log import START, USER
from tests.unit.store.story import Story

SPENT = Usage(
    input_tokens=10, output_tokens=20, cache_creation_input_tokens=3, cache_read_input_tokens=4
)


def usage(story: Story, **fields: object) -> UsagePage:
    return get_usage(story.connection, GetUsage(user_id=USER, **fields))  # pyright: ignore[reportArgumentType]


def call(story: Story, **fields: Any) -> None:
    run = story.sends("u")
    story.ends(run, "a", attempt=story.claims(run), **fields)


def test_calls_are_summed_by_model_and_what_is_unpriced_is_said(story: Story):
    call(story, model="claude", provider="anthropic", usage=SPENT, cost=1500)
    call(story, model="claude", provider="anthropic", usage=SPENT, cost=500)
    call(story, model="llama", provider="ollama", usage=SPENT, cost=None)

    page = usage(story, group_by="model")

    assert [(g.key, g.calls, g.cost, g.unpriced_calls, g.unpriced_tokens) for g in page.items] == [
        ("llama", 1, None, 1, 37),
        ("claude", 2, 2000, 0, 0),
    ]
    whole = page.whole
    assert (whole.calls, whole.input_tokens, whole.output_tokens) == (3, 30, 60)
    assert (whole.cache_creation_input_tokens, whole.cache_read_input_tokens) == (9, 12)
    assert (whole.cost, whole.unpriced_calls, whole.unpriced_tokens) == (2000, 1, 37)
    assert page.total == 2


def test_a_model_that_costs_nothing_is_priced(story: Story):
    call(story, cost=0)

    assert (usage(story).whole.cost, usage(story).whole.unpriced_calls) == (0, 0)


def test_calls_are_summed_by_day_and_session(story: Story):
    call(story, cost=1)
    other = story.session

    by_day, by_session = usage(story, group_by="day"), usage(story, group_by="session")

    assert [group.key for group in by_day.items] == ["2026-11-26"]
    assert [group.key for group in by_session.items] == [other]


def test_a_span_begins_with_its_start_and_ends_before_its_end(story: Story):
    call(story, cost=1)
    ended = story.now - timedelta(seconds=1)

    def calls(**fields: object) -> int:
        return usage(story, **fields).whole.calls

    assert calls(since=ended, until=ended + timedelta(seconds=1)) == 1
    assert calls(until=ended) == 0
    assert calls(since=ended + timedelta(milliseconds=1)) == 0


def test_a_deleted_sessions_calls_stay_without_it(story: Story):
    call(story, cost=7)

    story.deletes()

    page = usage(story, group_by="session")
    assert [(group.key, group.calls, group.cost) for group in page.items] == [(None, 1, 7)]


def test_nothing_is_summed_of_a_run_that_called_nobody(story: Story):
    run = story.sends("u")
    results = [StepResult(step="extract", text="")]
    story.claims(run)
    story.ends(run, provider=None, model=None, usage=None, results=results)

    assert usage(story).whole.calls == 0


def test_another_users_calls_are_not_ours(story: Story):
    call(story)

    page = get_usage(story.connection, GetUsage(user_id=ids.new_id()))

    assert (page.items, page.whole.calls, page.whole.cost) == ([], 0, None)


def test_pages_are_numbered(story: Story):
    for model in ("a", "b", "c"):
        call(story, model=model)

    page = usage(story, group_by="model", limit=2, offset=2)

    assert [group.key for group in page.items] == ["a"]
    assert page.total == 3
    with pytest.raises(InvalidRequest):
        usage(story, offset=-1)
    assert story.now > START


def test_calls_are_summed_by_how_their_replies_ended(story: Story):
    call(story, stop_reason="max_tokens")
    call(story, stop_reason="max_tokens")
    call(story, stop_reason="end_turn")
    call(story, status="cancelled", stop_reason="end_turn")

    page = usage(story, group_by="stop_reason")

    assert sorted((group.key or "", group.calls) for group in page.items) == [
        ("", 1),
        ("end_turn", 1),
        ("max_tokens", 2),
    ]
