"""What the facts alone say of what was on the wire, and when."""

from datetime import timedelta

import msgspec

from shared.events import Delta, PreviousAttempt, Progress, RunEnded
from shared.ids import new_id
from shared.log_entry import LogEntry
from shared.recording import REST, attempts_of, runs_of, timed_events
from tests.support.plans import a_document, an_ask
from tests.support.scripted_log import BUSY, ScriptedLog


def two_attempts() -> tuple[ScriptedLog, str]:
    log = ScriptedLog()
    run_id = log.sends("Hello")
    log.passes(100)
    log.claims(run_id)
    log.passes(7)
    log.writes("Half ")
    log.passes(3)
    log.writes("of")
    log.passes(50)
    log.claims(run_id, previous=log.left("the provider failed", more=" it", fault=BUSY))
    log.passes(20)
    log.writes("Whole")
    log.passes(30)
    log.ends(run_id, "Whole.")
    return log, run_id


def test_each_attempt_is_told_by_the_fact_that_ended_it():
    log, run_id = two_attempts()

    first, second = attempts_of(log.entries)

    assert (first.run_id, first.text, first.timeline) == (run_id, "Half of it", [(7, 5), (10, 7)])
    assert (first.reason, first.fault, first.final) == ("the provider failed", BUSY, None)
    assert (second.text, second.timeline) == ("Whole.", [(20, 5)])
    assert isinstance(second.final, RunEnded)
    assert [first.over, second.over] == [log.entries[2].seq, log.entries[3].seq]


def test_deltas_stand_between_the_facts_at_their_times():
    log, _ = two_attempts()
    todo, one, other, final = log.entries

    events = [(h.ms, h.what) for h in timed_events(log.entries)]

    assert events == [
        (0, todo),
        (100, one),
        (107, Delta(one.seq, 0, "Half ", 7)),
        (110, Delta(one.seq, 5, "of", 10)),
        (160, other),
        (180, Delta(other.seq, 0, "Whole", 20)),
        (210, final),
    ]


def test_no_delta_comes_after_its_attempts_end_whatever_the_clocks_say():
    log, _ = two_attempts()
    *before, final = log.entries
    early = before[-1].fact.at + timedelta(milliseconds=1)
    skewed = LogEntry.of(final.seq, final.subject, msgspec.structs.replace(final.fact, at=early))

    events = [type(h.what).__name__ for h in timed_events([*before, skewed])]

    assert events[-2:] == ["Delta", "LogEntry"]


def test_time_never_runs_backwards():
    log, _ = two_attempts()
    todo, one, *rest = log.entries
    early = todo.fact.at - timedelta(hours=1)
    skewed = LogEntry.of(one.seq, one.subject, msgspec.structs.replace(one.fact, at=early))

    times = [h.ms for h in timed_events([todo, skewed, *rest])]

    assert times == sorted(times)
    assert times[0] == 0


def test_a_rest_between_two_runs_is_cut_short_and_a_wait_within_one_is_not():
    log = ScriptedLog()
    for _ in range(2):
        run_id = log.sends("Hello")
        log.passes(60_000)
        log.claims(run_id)
        log.ends(run_id, "Hi")
        log.passes(3_600_000)

    times = [h.ms for h in timed_events(log.entries)]

    assert times == [0, 60_000, 60_000, 60_000 + REST, 120_000 + REST, 120_000 + REST]


def test_a_jobs_readings_and_answers_are_told_by_its_todos():
    log, run_id, plan = ScriptedLog(), new_id(), a_document()
    log.hands_to_processor(run_id, plan)
    log.claims(run_id)
    log.passes(4)
    log.reads(500)
    previous = log.left("the file was read")
    log.hands_to_llm_worker(run_id, plan, 1, an_ask("answer"), previous=previous)
    read = log.entries[1].seq

    events = [h.what for h in timed_events(log.entries)]

    assert events[2] == Progress(read, "extract", 0.5)
    assert [a.reason for a in attempts_of(log.entries)] == ["the file was read"]
    assert runs_of(log.entries) == [run_id]


def test_text_without_times_comes_before_it_is_void():
    log = ScriptedLog()
    run_id = log.sends("Hello")
    lost = log.claims(run_id)
    previous = PreviousAttempt(attempt=lost, text="Old", reason="its worker was lost")
    log.passes(10)
    log.claims(run_id, previous=previous)

    events = [h.what for h in timed_events(log.entries)]

    assert isinstance(events[2], Delta)
    assert (events[2].text, attempts_of(log.entries)[0].untimed) == ("Old", True)
