"""Sequences are never taken along: what names a fact names it by its new one."""

from typing import Any

import msgspec
import pytest

from services.cli.log_files.export_file import FactLine, SessionLine
from services.cli.log_files.renumbering import UNDER_WAY, facts_to_import, renumbered
from shared.errors import InvalidRequest
from shared.events import RunClaimed, RunEnded
from shared.subjects import kind_of_fact
from tests.support.scripted_log import SESSION, USER, ScriptedLog
from tests.unit.cli.samples import OTHER, PLAN, PROMPT, READ, RUN, at, restarted, turn

HERE = SessionLine(id=SESSION, user=USER, facts=5)


def lines(log: ScriptedLog) -> list[FactLine]:
    return [FactLine(seq=f.seq, run=f.address.run, fact=msgspec.Raw(f.data)) for f in log.entries]


def test_every_reference_is_said_anew():
    facts = facts_to_import(HERE, lines(restarted()))
    here: dict[int, int] = {}
    for number, each in enumerate(facts):
        here[each.origin] = 100 + number * 7

    imported = [renumbered(each.fact, here) for each in facts]

    first, second, final = imported[2], imported[3], imported[4]
    assert [fact.prev for fact in imported] == [0, 100, 107, 114, 121]
    assert isinstance(first, RunClaimed)
    assert isinstance(second, RunClaimed)
    assert isinstance(final, RunEnded)
    assert second.previous is not None
    assert (first.todo, second.todo, second.previous.attempt) == (107, 107, 114)
    assert (final.attempt, final.text) == (121, "Tea is a drink.")


def test_what_names_a_fact_that_is_not_there_cannot_be_said():
    facts = facts_to_import(HERE, lines(restarted()))

    with pytest.raises(KeyError):
        renumbered(facts[2].fact, {1: 1})


def test_subjects_follow_from_facts():
    log = ScriptedLog()
    log.opens()
    log.accepts(turn(1, "Hi"), RUN)
    log.hands_to_processor(RUN, PLAN, 3)
    log.hands_to_llm_worker(RUN, PLAN, 4, PROMPT, READ)
    log.claims(RUN)
    log.cancels(RUN)
    log.ends(RUN, "", attempt=0)
    log.accepts(turn(2, "Ho"), RUN, waiting=True)
    log.schedules(RUN, PLAN, 5)

    assert [kind_of_fact(entry.fact) for entry in log.entries] == [
        "session.created",
        "todo.chat.0",
        "todo.process.5.3",
        "todo.generate.5.4",
        "claim",
        "cancel",
        "final",
        "waiting",
        "scheduled",
    ]


def test_every_run_that_was_under_way_gets_an_end():
    log = ScriptedLog()
    log.opens()
    log.at(1).accepts(turn(1, "Hi"), RUN)
    claim = log.at(2).claims(RUN)
    log.at(3).accepts(turn(2, "Ho"), OTHER, waiting=True)

    *facts, ended, never_begun = facts_to_import(HERE, lines(log))

    assert [each.origin for each in facts] == [1, 2, 3, 4]
    for made, run, attempt in ((ended, RUN, claim), (never_begun, OTHER, 0)):
        assert isinstance(made.fact, RunEnded)
        assert (made.run, made.origin) == (run, 0)
        assert (made.fact.status, made.fact.attempt, made.fact.error) == (
            "failed",
            attempt,
            UNDER_WAY,
        )
        assert made.fact.at == at(3)


def other(log: ScriptedLog, number: int, **changes: Any) -> list[FactLine]:
    found = lines(log)
    found[number] = msgspec.structs.replace(found[number], **changes)
    return found


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (lambda: lines(restarted())[1:], "begins with session.created, once"),
        (lambda: [*lines(restarted()), lines(restarted())[0]], "begins with session.created, once"),
        (lambda: other(restarted(), 2, run="evt.>"), "'evt.>' is no id"),
        (lambda: other(restarted(), 2, run="_"), "a fact of a run names it"),
        (lambda: other(restarted(), 2, seq=2), "in the order of their sequences"),
        (lambda: other(restarted(), 2, fact=msgspec.Raw(b'{"type":"x"}')), "Invalid value 'x'"),
        (lambda: other(restarted(), 2, fact=msgspec.Raw(b'{"type":"final"}')), "required field"),
        (list, "it has no facts"),
    ],
)
def test_what_is_no_whole_session_is_refused(made: Any, fault: str):
    with pytest.raises(InvalidRequest, match=fault):
        facts_to_import(HERE, made())


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00", "2026-01-01T00:00:00"]
)
def test_a_time_that_no_table_can_hold_is_refused(time: str):
    log = restarted()
    log.schedules(RUN, PLAN, 5)
    found = lines(log)
    fields = msgspec.json.decode(bytes(found[-1].fact)) | {"due": time}
    found[-1] = msgspec.structs.replace(found[-1], fact=msgspec.Raw(msgspec.json.encode(fields)))

    with pytest.raises(InvalidRequest, match="a time has a zone"):
        facts_to_import(HERE, found)


def test_a_tombstone_cannot_be_imported():
    log = restarted()
    log.deletes()

    with pytest.raises(InvalidRequest, match="SessionDeleted cannot be imported"):
        facts_to_import(HERE, lines(log))


def test_ids_that_are_none_never_become_subjects():
    with pytest.raises(InvalidRequest, match="is no id"):
        facts_to_import(msgspec.structs.replace(HERE, id="a.b"), lines(restarted()))
    with pytest.raises(InvalidRequest, match="is no id"):
        facts_to_import(msgspec.structs.replace(HERE, user="*"), lines(restarted()))
