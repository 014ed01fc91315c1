"""Facts that are to be imported, with the sequences of the log they come to (pure).

Sequences are cursors, attempts and keys, so a fact cannot keep its own: it gets the one
at which it is appended, and facts that refer to it by the old one refer to the new one.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import msgspec

from services.cli.log_files.export_file import FactLine, SessionLine
from shared.endings import ended
from shared.errors import InvalidRequest
from shared.events import (
    AnyFact,
    Fault,
    PreviousAttempt,
    RunClaimed,
    RunEnded,
    RunFact,
    SessionCreated,
    SessionDeleted,
    SessionFact,
    TodoGenerate,
    TodoProcess,
    decode_fact,
)
from shared.ids import is_id
from shared.subjects import NONE

UNDER_WAY = Fault(
    code="internal", message="This was under way when its session was exported, and stayed there."
)


class FactToImport(NamedTuple):
    """A fact that is to be brought here; ``origin`` is its old sequence, 0 for one made here."""

    run: str
    fact: AnyFact
    origin: int


def facts_to_import(session: SessionLine, lines: Sequence[FactLine]) -> list[FactToImport]:
    """The facts of a session, decoded and checked, with a final for every run.

    Raises:
        InvalidRequest: they are no whole session.
    """
    _check_id(session, session.id)
    _check_id(session, session.user)
    facts: list[FactToImport] = []
    for line in lines:
        try:
            fact = decode_fact(bytes(line.fact))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _invalid(session, line.seq, str(error)) from error
        facts.append(FactToImport(line.run, fact, line.seq))
        _check(session, facts)
    if not facts:
        raise _invalid(session, 0, "it has no facts")
    return [*facts, *_missing_finals(facts)]


def _check(session: SessionLine, facts: Sequence[FactToImport]) -> None:
    """Make sure that the last of ``facts`` may follow those before it."""
    last = facts[-1]
    first = len(facts) == 1
    if first != isinstance(last.fact, SessionCreated):
        raise _invalid(session, last.origin, "a session begins with session.created, once")
    if isinstance(last.fact, SessionDeleted) or not isinstance(last.fact, SessionFact | RunFact):
        raise _invalid(session, last.origin, f"{type(last.fact).__name__} cannot be imported")
    fields = msgspec.to_builtins(last.fact, builtin_types=(datetime,))
    if not all(map(_is_possible, _times(fields))):
        raise _invalid(session, last.origin, "a time has a zone, and can be said in UTC")
    if isinstance(last.fact, SessionFact) != (last.run == NONE):
        raise _invalid(session, last.origin, "a fact of a run names it, and no other does")
    if last.run != NONE:
        _check_id(session, last.run)
    if not first and last.origin <= facts[-2].origin:
        raise _invalid(session, last.origin, "facts are in the order of their sequences")


def _times(value: Any) -> Iterator[datetime]:
    """Every time in what a fact is made of."""
    match value:
        case datetime():
            yield value
        case dict():
            yield from _times(list(cast("dict[str, Any]", value).values()))
        case list():
            for each in cast("list[Any]", value):
                yield from _times(each)
        case _:
            pass


def _is_possible(time: datetime) -> bool:
    try:
        return time.tzinfo is not None and time.astimezone(UTC) == time
    except OverflowError:
        return False


def _missing_finals(facts: Sequence[FactToImport]) -> list[FactToImport]:
    """A final for every run that has none, so that no worker here ever takes it up."""
    open_runs = dict.fromkeys(each.run for each in facts if each.run != NONE)
    attempts: dict[str, int] = {}
    for each in facts:
        if isinstance(each.fact, RunClaimed):
            attempts[each.run] = each.origin
        elif isinstance(each.fact, RunEnded):
            open_runs.pop(each.run, None)
    at = facts[-1].fact.at
    finals: list[FactToImport] = []
    for run in open_runs:
        final = ended("failed", attempt=attempts.get(run, 0), error=UNDER_WAY)
        finals.append(FactToImport(run, msgspec.structs.replace(final, at=at), 0))
    return finals


def renumbered(fact: AnyFact, new_seqs: Mapping[int, int]) -> AnyFact:
    """The fact with the sequences of this log; ``new_seqs`` maps old ones to new ones.

    Raises:
        KeyError: it refers to a fact that is not there.
    """
    prev = new_seqs.get(fact.prev, 0)  # 0 also where a hard delete had taken it out
    match fact:
        case RunClaimed():
            previous = _previous(fact.previous, new_seqs)
            return msgspec.structs.replace(
                fact, prev=prev, todo=new_seqs[fact.todo], previous=previous
            )
        case TodoProcess() | TodoGenerate():
            previous = _previous(fact.previous, new_seqs)
            return msgspec.structs.replace(fact, prev=prev, previous=previous)
        case RunEnded() if fact.attempt:
            return msgspec.structs.replace(fact, prev=prev, attempt=new_seqs[fact.attempt])
        case _:
            return msgspec.structs.replace(fact, prev=prev)


def _previous(
    previous: PreviousAttempt | None, new_seqs: Mapping[int, int]
) -> PreviousAttempt | None:
    return previous and msgspec.structs.replace(previous, attempt=new_seqs[previous.attempt])


def _check_id(session: SessionLine, text: str) -> None:
    if not is_id(text):
        raise _invalid(session, 0, f"{text[:40]!r} is no id")


def _invalid(session: SessionLine, seq: int, fault: str) -> InvalidRequest:
    where = f", fact {seq}" if seq else ""
    return InvalidRequest(f"Session {session.id[:40]}{where}: {fault}.")
