"""What facts say about other facts of their log, said anew for the log they come to (pure).

Sequences are cursors, attempts and keys, so they are never taken along: each
fact gets the sequence at which it is appended, and whatever named it by the old
one names it by the new one.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from services.cli.log_files.export_file import FactLine, SessionLine
from shared.endings import ended
from shared.errors import InvalidRequest
from shared.events import (
    AnyFact,
    BranchChosen,
    CancelRequested,
    Fault,
    MessageRated,
    PreviousAttempt,
    RunClaimed,
    RunEnded,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    decode_fact,
)
from shared.ids import is_id
from shared.subjects import NONE, session_address

UNDER_WAY = Fault(
    code="internal", message="This was under way when its session was exported, and stayed there."
)


class Coming(NamedTuple):
    """A fact that is to be brought here; ``origin`` is its old sequence, 0 for one made here."""

    run: str
    fact: AnyFact
    origin: int


def coming(session: SessionLine, lines: Sequence[FactLine]) -> list[Coming]:
    """A session's facts as they are to be imported: read, checked, every run with an end.

    Raises:
        InvalidRequest: they are no whole session.
    """
    _check_id(session, session.id)
    _check_id(session, session.user)
    facts: list[Coming] = []
    for line in lines:
        try:
            fact = decode_fact(bytes(line.fact))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _bad(session, line.seq, str(error)) from error
        facts.append(Coming(line.run, fact, line.seq))
        _check(session, facts)
    if not facts:
        raise _bad(session, 0, "it has no facts")
    return [*facts, *_ends(facts)]


def _check(session: SessionLine, facts: Sequence[Coming]) -> None:
    """The last of ``facts`` may stand where it stands."""
    last = facts[-1]
    first = len(facts) == 1
    if first != isinstance(last.fact, SessionCreated):
        raise _bad(session, last.origin, "a session begins with session.created, once")
    if not isinstance(last.fact, _CARRIED):
        raise _bad(session, last.origin, f"{type(last.fact).__name__} cannot be imported")
    if isinstance(last.fact, _OF_SESSIONS) != (last.run == NONE):
        raise _bad(session, last.origin, "a fact of a run names it, and no other does")
    if last.run != NONE:
        _check_id(session, last.run)
    if not first and last.origin <= facts[-2].origin:
        raise _bad(session, last.origin, "facts are in the order of their sequences")


def _ends(facts: Sequence[Coming]) -> list[Coming]:
    """A final for every run that has none, so that nothing of it is ever begun here."""
    open_runs = dict.fromkeys(each.run for each in facts if each.run != NONE)
    attempts: dict[str, int] = {}
    for each in facts:
        if isinstance(each.fact, RunClaimed):
            attempts[each.run] = each.origin
        elif isinstance(each.fact, RunEnded):
            open_runs.pop(each.run, None)
    at = facts[-1].fact.at
    made: list[Coming] = []
    for run in open_runs:
        final = ended("failed", attempt=attempts.get(run, 0), error=UNDER_WAY)
        made.append(Coming(run, msgspec.structs.replace(final, at=at), 0))
    return made


def referring(fact: AnyFact, here: Mapping[int, int]) -> AnyFact:
    """The fact with the sequences of this log; ``here`` has the new one of each old one.

    Raises:
        KeyError: it names a fact that is not there.
    """
    prev = here.get(fact.prev, 0)  # 0 also where a hard delete had taken it out
    match fact:
        case RunClaimed():
            previous = _previous(fact.previous, here)
            return msgspec.structs.replace(fact, prev=prev, todo=here[fact.todo], previous=previous)
        case TodoProcess() | TodoGenerate():
            previous = _previous(fact.previous, here)
            return msgspec.structs.replace(fact, prev=prev, previous=previous)
        case RunEnded() if fact.attempt:
            return msgspec.structs.replace(fact, prev=prev, attempt=here[fact.attempt])
        case _:
            return msgspec.structs.replace(fact, prev=prev)


def _previous(known: PreviousAttempt | None, here: Mapping[int, int]) -> PreviousAttempt | None:
    return known and msgspec.structs.replace(known, attempt=here[known.attempt])


def kind_of_fact(fact: AnyFact) -> str:
    """The end of the fact's subject, from the fact alone."""
    address = session_address("u", "s")
    match fact:
        case SessionCreated():
            return "created"
        case SessionUpdated():
            return "updated"
        case BranchChosen():
            return "branch"
        case TodoChat():
            subject = address.todo_chat(fact.n)
        case TodoProcess():
            subject = address.todo_process(fact.priority, fact.n)
        case TodoGenerate():
            subject = address.todo_generate(fact.priority, fact.n)
        case _:
            return str(type(fact).__struct_config__.tag)
    return subject.split(".", 4)[4]


def _check_id(session: SessionLine, text: str) -> None:
    if not is_id(text):
        raise _bad(session, 0, f"{text[:40]!r} is no id")


def _bad(session: SessionLine, seq: int, fault: str) -> InvalidRequest:
    where = f", fact {seq}" if seq else ""
    return InvalidRequest(f"Session {session.id[:40]}{where}: {fault}.")


_OF_SESSIONS = SessionCreated | SessionUpdated | BranchChosen | MessageRated
_CARRIED = (
    _OF_SESSIONS
    | RunWaiting
    | RunScheduled
    | TodoChat
    | TodoProcess
    | TodoGenerate
    | RunClaimed
    | CancelRequested
    | RunEnded
)
