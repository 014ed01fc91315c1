"""A run's story: what its facts tell, and how people read it."""

import io
from typing import Any

import msgspec
import pytest

from services.cli.display.pages import show_story
from services.cli.display.terminal import Output
from services.cli.stories.story import Gap, JobStep, story_of
from shared.events import Continued, Fault, PreviousAttempt, Thoughts, Try, Usage
from tests.support.scripted_log import ScriptedLog
from tests.unit.cli.samples import MISSED, OTHER, PLAN, PROMPT, READ, RUN, at, restarted, turn

SPENT = Usage(input_tokens=3, output_tokens=5)


def shown(log: ScriptedLog) -> str:
    out = io.StringIO()
    show_story(Output(out, coloured=False), story_of(log.of(RUN)), at(60_000))
    return out.getvalue()


RESTARTED = """\
run 01a21600-0000-7000-8000-0000000000b1  completed
  session 01a21600-0000-7000-8000-00000000000a
  user    00000000-0000-7000-8000-000000000001
  chat, accepted 2026-11-26 03:00:01 UTC

        0 ms  to be answered: 17 chars  #2
        6 ms  claimed by worker 01a21500-0000, for fact 2  #3
      8.00 s  claimed by worker 01a21500-0000, for fact 2  #4
     11.00 s  completed, 15 chars of attempt 4  #5

attempt 1 (#3)
  claimed 03:00:01.006, 6 ms after its todo
  worker  01a21500-0000-7000-8000-0000000000c1
  asked   demo/demo, temperature 0.7, at most 1024 tokens
  text    6 chars
  ended   its worker was lost, after 7.99 s

attempt 2 (#4)
  claimed 03:00:09.000, 8.00 s after its todo
  worker  01a21500-0000-7000-8000-0000000000c1
  asked   demo/demo, temperature 0.7, at most 1024 tokens
  first   20 ms after the claim
  text    15 chars in 4 deltas, 4 chars/s, longest silence 2.50 s
  gap     2.50 s without a word, 120 ms in, after 6 chars
  ended   the run completed, after 3.00 s

final (#5)
  state   completed, end_turn, 11.00 s after the acceptance
  text    15 chars
  sha256  2f9536f042c7e50bf5be5893ef0ff17f37125efd4efa540aa1038e0d8358cd94
          matches the text
  tokens  6 in, 5 out
  cost    unpriced: its model has no known price
"""


def test_a_reply_that_restarted_reads_as_a_story():
    assert shown(restarted()) == RESTARTED


def test_no_line_of_it_is_wider_than_a_terminal():
    assert [line for line in shown(restarted()).splitlines() if len(line) > 80] == []


def test_a_run_that_waits_and_one_that_waited():
    log = ScriptedLog()
    log.opens()
    log.accepts(turn(1, "Hi"), RUN, waiting=True)
    waits = story_of(log.of(RUN))
    log.at(1500).accepts(turn(1, "Hi"), RUN)
    waited = story_of(log.of(RUN))

    assert (waits.state, waits.waited_ms, waits.attempts, waits.end) == ("queued", None, [], None)
    assert (waited.state, waited.waited_ms) == ("queued", 1500)


def test_a_running_attempt_has_no_end_yet():
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    claim = log.at(5).claims(RUN)

    story = story_of(log.of(RUN))

    [attempt] = story.attempts
    assert story.state == "running"
    assert (attempt.attempt, attempt.after_ms, attempt.ended) == (claim, 5, None)
    assert "ended   still running" in shown(log)
    assert "           …  no fact since then, for 59.99 s\n" in shown(log)


def test_a_provider_that_failed_in_between_is_counted():
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    first = log.at(5).claims(RUN)
    previous = PreviousAttempt(
        attempt=first, text="He", reason="the provider failed", timeline=[(3, 1), (8, 2)]
    )
    second = log.at(400).claims(RUN, previous=previous, failures=1)
    fault = Fault(code="provider_error", message="It said no.", retryable=True)
    log.at(500).ends(RUN, "H", attempt=second, status="failed", error=fault)

    story = story_of(log.of(RUN))

    lost = story.attempts[0]
    assert lost.ended == "the provider failed (failed call 1 of this run)"
    assert (lost.first_delta_ms, lost.deltas, lost.length, lost.rate) == (3, 2, 2, 200.0)
    assert "error   provider_error: It said no. (may work another time)" in shown(log)


def test_the_silences_that_are_long_are_named_in_their_order():
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    claim = log.claims(RUN)
    timeline = [(0, 1), (1000, 2), (1500, 3), (4500, 4)]
    log.at(5000).ends(RUN, "Four", attempt=claim, timeline=timeline)

    [attempt] = story_of(log.of(RUN)).attempts

    assert attempt.gaps == [
        Gap(at_ms=0, length=1, ms=1000),
        Gap(at_ms=1500, length=3, ms=3000),
    ]
    assert attempt.longest_ms == 3000


def test_a_final_whose_text_was_changed_is_told():
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    claim = log.claims(RUN)
    log.at(10).ends(RUN, "Hello", attempt=claim, sha256="0" * 64)

    end = story_of(log.of(RUN)).end

    assert end is not None
    assert not end.intact
    assert "DOES NOT MATCH THE TEXT" in shown(log)


def test_a_cancelled_run_says_who_stopped_it():
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    claim = log.at(5).claims(RUN)
    log.at(50).cancels(RUN)
    log.at(60).ends(RUN, "He", attempt=claim, status="cancelled")

    story = story_of(log.of(RUN))

    assert [fact.text for fact in story.facts][2] == "cancel: asked by the user"
    assert story.attempts[0].ended == "the run was cancelled"


def test_a_job_goes_from_step_to_step():
    log = ScriptedLog()
    log.schedules(RUN, PLAN, 2000)
    log.at(2001).hands_to_processor(RUN, PLAN)
    log.at(2010).claims(RUN)
    log.at(2500).hands_to_llm_worker(RUN, PLAN, 1, PROMPT, READ)
    log.at(2510).claims(RUN)
    log.at(3000).hands_to_llm_worker(RUN, PLAN, 2, MISSED, READ)

    story = story_of(log.of(RUN))

    assert (story.kind, story.priority, story.state) == ("document", 5, "running")
    assert story.steps == [
        JobStep(n=0, kind="process", step="extract", seq=2, ms=2001),
        JobStep(n=1, kind="generate", step="answer", seq=4, ms=2500),
        JobStep(n=2, kind="generate", step="answer", seq=6, ms=3000, misses=1),
    ]
    assert [(a.step, a.ended, a.ended_ms) for a in story.attempts] == [
        ("extract", "done: the next step follows", 490),
        ("answer", "its answer missed the schema", 490),
    ]


def test_a_schedule_that_fired_twice_is_one_step():
    log = ScriptedLog()
    log.hands_to_processor(RUN, PLAN)
    log.at(10).hands_to_processor(RUN, PLAN)

    assert len(story_of(log.of(RUN)).steps) == 1


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"cost": 12_500_000, "usage": SPENT}, "  cost    $0.0125\n"),
        ({"cost": 0, "usage": SPENT}, "  cost    $0.00\n"),
        ({"usage": SPENT}, "  cost    unpriced: its model has no known price\n"),
        ({}, "  cost    unpriced: nobody counted its tokens\n"),
    ],
)
def test_a_reply_says_what_it_cost_or_that_nobody_knows(fields: dict[str, Any], line: str):
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    claim = log.claims(RUN)
    log.at(10).ends(RUN, "Hello", attempt=claim, **fields)

    assert line in shown(log)


def test_a_run_that_asked_no_model_has_no_cost():
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    log.at(10).ends(RUN, "", attempt=0, status="cancelled")

    assert "cost" not in shown(log)


def test_another_run_of_the_session_is_no_part_of_it():
    log = restarted()
    log.at(13_000).accepts(turn(2, "And coffee?"), OTHER)

    assert len(story_of(log.of(RUN)).facts) == 4


# -- tries, thoughts, continuations ---------------------------------------------------

BUSY = Try(
    ms=210,
    code="overloaded",
    message="The provider answered 529: it has more to do than it can.",
    status=529,
    usage=SPENT,
    cost=1_500,
)
BROKEN = Try(ms=1400, code="provider_error", message="The connection broke.")

TRIED = """\
attempt 1 (#2)
  claimed 03:00:00.005, 5 ms after its todo
  worker  01a21500-0000-7000-8000-0000000000c1
  asked   demo/demo, temperature 0.7, at most 1024 tokens
  first   3 ms after the claim
  text    2 chars in 1 delta
  try 1   529 overloaded, 210 ms in; 3 in, 5 out; $0.000002
          The provider answered 529: it has more to do than it can.
  try 2   provider_error, 1.40 s in
          The connection broke.
  ended   the provider failed (failed call 2 of this run), after 1.45 s

attempt 2 (#3)
  claimed 03:00:01.450, 1.45 s after its todo
  worker  01a21500-0000-7000-8000-0000000000c1
  asked   demo/demo, temperature 0.7, at most 1024 tokens
  text    1 chars
  try 1   provider_error, 1.40 s in
          The connection broke.
  ended   the run completed, after 1.55 s

final (#4)
  state   completed, max_tokens, 3.00 s after the acceptance
  text    1 chars
  thought 3 chars
"""


def test_every_try_of_every_attempt_is_told_with_what_it_took():
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    first = log.at(5).claims(RUN)
    previous = PreviousAttempt(
        attempt=first,
        text="He",
        reason="the provider failed",
        timeline=[(3, 2)],
        tries=[BUSY, BROKEN],
    )
    second = log.at(1450).claims(RUN, previous=previous, failures=2)
    log.at(3000).ends(
        RUN,
        "H",
        attempt=second,
        tries=[BROKEN],
        stop_reason="max_tokens",
        thoughts=Thoughts(text="Hm."),
    )

    story = story_of(log.of(RUN))

    assert [attempt.tries for attempt in story.attempts] == [[BUSY, BROKEN], [BROKEN]]
    assert story.end is not None
    assert (story.end.stop_reason, story.end.thoughts) == ("max_tokens", 3)
    assert story.facts[-1].text == "completed (max_tokens), 1 chars of attempt 3"
    assert TRIED in shown(log)


def test_the_tries_of_a_jobs_step_are_told():
    log = ScriptedLog()
    log.hands_to_processor(RUN, PLAN)
    log.at(5).claims(RUN)
    log.at(10).hands_to_llm_worker(RUN, PLAN, 1, PROMPT, READ)
    claim = log.at(20).claims(RUN)
    previous = PreviousAttempt(
        attempt=claim, text="{", reason="its answer missed the schema", tries=[BUSY]
    )
    log.at(300).hands_to_llm_worker(RUN, PLAN, 2, MISSED, READ, previous=previous)

    story = story_of(log.of(RUN))

    assert [attempt.tries for attempt in story.attempts] == [[], [BUSY]]


@pytest.mark.parametrize(
    ("word", "reason", "line"),
    [
        ("end_turn", "end_turn", "completed, 2 chars of attempt 2"),
        ("tool_use", "tool_calls", "completed (tool_calls), 2 chars of attempt 2"),
        (None, None, "completed, 2 chars of attempt 2"),
    ],
)
def test_facts_of_before_there_was_a_list_are_told_by_it(
    word: str | None, reason: str | None, line: str
):
    log = ScriptedLog()
    log.accepts(turn(1, "Hi"), RUN)
    claim = log.claims(RUN)
    log.at(10).ends(RUN, "He", attempt=claim, stop_reason=word)

    story = story_of(log.of(RUN))

    assert story.end is not None
    assert story.end.stop_reason == reason
    assert story.facts[-1].text == line


def test_a_reply_that_goes_on_is_told_with_what_it_had():
    log = ScriptedLog()
    before = Continued(length=11, tokens=3)
    log.accepts(msgspec.structs.replace(turn(1, None), continues=before), RUN)
    claim = log.at(5).claims(RUN)
    timeline = [(1, 11), (2001, 14), (3001, 20)]
    log.at(4000).ends(
        RUN, "Once upon a midnight", attempt=claim, timeline=timeline, first_delta_ms=2001
    )

    story = story_of(log.of(RUN))

    [attempt] = story.attempts
    assert (story.continues, story.facts[0].text) == (11, "to go on: a reply of 11 chars")
    assert (attempt.first_delta_ms, attempt.deltas, attempt.rate) == (2001, 2, 6.0)
    assert attempt.gaps == [Gap(at_ms=2001, length=14, ms=1000)]
    assert "chat, accepted 2026-11-26 03:00:00 UTC, goes on after 11 chars" in shown(log)


def test_programs_read_a_fact_by_the_names_that_it_always_had():
    story = msgspec.to_builtins(story_of(restarted().of(RUN)))

    assert {name for fact in story["facts"] for name in fact} == {"seq", "at", "ms", "what", "told"}
