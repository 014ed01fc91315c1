"""Sequences are never taken along: what names a fact names it by its new one."""

from typing import Any

import msgspec
import pytest

from services.cli.log_files.export_file import FactLine, SessionLine
from services.cli.log_files.renumbering import UNDER_WAY, facts_to_import, renumbered
from shared.errors import InvalidRequest
from shared.events import RunClaimed, RunEnded, SessionDeleted
from shared.subjects import kind_of_fact
from tests.unit.cli.told import OTHER, RUN, SESSION, USER, Told, at, restarted, turn

HERE = SessionLine(id=SESSION, user=USER, facts=5)


def lines(told: Told) -> list[FactLine]:
    return [FactLine(seq=f.seq, run=f.address.run, fact=msgspec.Raw(f.data)) for f in told.facts]


def test_every_reference_is_said_anew():
    facts = facts_to_import(HERE, lines(restarted()))
    here: dict[int, int] = {}
    for number, each in enumerate(facts):
        here[each.origin] = 100 + number * 7

    told = [renumbered(each.fact, here) for each in facts]

    first, second, final = told[2], told[3], told[4]
    assert [fact.prev for fact in told] == [0, 100, 107, 114, 121]
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
    told = Told()
    told.created()
    told.todo(0, turn(1, "Hi"))
    told.process(0, n=3)
    told.generate(0, n=4)
    told.claim(0, 1)
    told.cancel(0)
    told.final(0, "", attempt=0)
    told.waiting(0, turn(2, "Ho"))
    told.scheduled(0, 5)

    assert [kind_of_fact(fact.fact) for fact in told.facts] == [fact.kind for fact in told.facts]


def test_every_run_that_was_under_way_gets_an_end():
    told = Told()
    told.created()
    todo = told.todo(1, turn(1, "Hi"))
    claim = told.claim(2, todo)
    told.waiting(3, turn(2, "Ho"), OTHER)

    *facts, ended, never_begun = facts_to_import(HERE, lines(told))

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


def other(told: Told, number: int, **changes: Any) -> list[FactLine]:
    found = lines(told)
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


def test_a_tombstone_cannot_be_imported():
    told = restarted()
    told.tell("session.deleted", SessionDeleted(at=at(5)))

    with pytest.raises(InvalidRequest, match="SessionDeleted cannot be imported"):
        facts_to_import(HERE, lines(told))


def test_ids_that_are_none_never_become_subjects():
    with pytest.raises(InvalidRequest, match="is no id"):
        facts_to_import(msgspec.structs.replace(HERE, id="a.b"), lines(restarted()))
    with pytest.raises(InvalidRequest, match="is no id"):
        facts_to_import(msgspec.structs.replace(HERE, user="*"), lines(restarted()))
