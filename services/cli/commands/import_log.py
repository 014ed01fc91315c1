"""``natterlog import-log``: bring sessions from a file into this log.

Each fact is appended inside an ``imported`` fact: no worker listens for that
subject, so no todo of another log is ever worked on here.  Until a session's
last fact is there, its user does not see it and the store does nothing for it;
whoever was killed in between goes on where he was.
"""

import argparse
import sys
from enum import Enum
from pathlib import Path

import msgspec

from services.cli.commands.arguments import add_examples
from services.cli.log_files.export_file import SessionLine, check, sessions_of
from services.cli.log_files.exported_files import files_of, import_files
from services.cli.log_files.renumbering import (
    FactToImport,
    facts_to_import,
    renumbered,
)
from services.cli.recorder.recorded_log import NotRecorded, RecordedLog
from services.cli.recorder.run_command import run_with_log
from shared.bus import Bus, NoAnswer
from shared.chain import Overtaken, extend
from shared.commands import DeleteSession
from shared.errors import Conflict, InvalidRequest, Unavailable
from shared.events import FactImported, FileRef, SessionDeleted, encode
from shared.ids import is_id, now
from shared.inspection import FindRuns, FindSessions
from shared.store_client import StoreClient
from shared.subjects import EVENTS, NONE, Address, Scope, kind_of_fact

EXAMPLES = """\
examples:
  natterlog import-log bug.jsonl
  natterlog import-log everything.jsonl.gz
  natterlog import-log bug.jsonl --user 00000000-0000-7000-8000-000000000001
  natterlog import-log --give-up 01a21645-bcb7

What is here already is left as it is. An import that broke off goes on when it is
started again with the same file; --give-up erases what there is of a session.
Exit code: 0 all are here, 1 some are not, 2 wrong usage."""

_TRIES = 5


class Outcome(Enum):
    """What became of a session."""

    IMPORTED = "brought here"
    ALREADY_IMPORTED = "was here already, from this file"


class _Progress(msgspec.Struct):
    """How much of a session an earlier try imported."""

    head: int = 0
    """The sequence that the next fact must follow; 0 once that fact was trimmed."""
    facts: int = 0
    new_seqs: dict[int, int] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Bring sessions that export-log wrote into this log. Nothing is begun."
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what export-log wrote")
    parser.add_argument("--user", metavar="ID", help="let them be this user's, not their own's")
    parser.add_argument("--give-up", metavar="SESSION", help="erase what an import began")
    parser.set_defaults(command=import_log, check_first=check_arguments)


def check_arguments(args: argparse.Namespace) -> None:
    """Make sure that there is something to import, or to give up.

    Raises:
        InvalidRequest: it is not named, or its user is none.
        OSError: the file cannot be read.
    """
    if (args.file is None) == (args.give_up is None):
        raise InvalidRequest("Name a file, or a session to give up.")
    if args.user is not None and not is_id(args.user):
        raise InvalidRequest(f"{args.user[:40]!r} is no user's id.")
    if args.file is not None:
        args.file.open("rb").close()


async def import_log(args: argparse.Namespace, log: RecordedLog) -> int:
    if log.bus is None:
        raise Unavailable("Nothing runs here: start natterlog, because facts go through its log.")
    if args.give_up is not None:
        return await _give_up(log, log.bus, args.give_up)
    end = check(args.file)
    outcomes: list[Outcome | None] = []
    files: dict[tuple[str, str], FileRef] = {}
    for session, lines in sessions_of(args.file):
        facts = facts_to_import(session, lines)
        user = args.user or session.user
        try:
            outcome = await import_session(log, log.bus, session, facts, user=user, file=end.sha256)
        except Conflict as error:
            sys.stderr.write(f"{session.id}: {error}\n")
            outcome = None
        else:
            sys.stdout.write(f"{session.id}: {outcome.value}, {len(facts)} facts.\n")
            files |= files_of(session.id, (each.fact for each in facts))
        outcomes.append(outcome)
    if imported := await import_files(log.bus, args.file, files):
        sys.stdout.write(f"{imported} files were brought here.\n")
    return 1 if None in outcomes else 0


async def import_session(
    log: RecordedLog,
    bus: Bus,
    session: SessionLine,
    facts: list[FactToImport],
    *,
    user: str,
    file: str,
) -> Outcome:
    """Append those facts of a session that are not here yet, and wait until its user sees it.

    Raises:
        Conflict: it is here already, or was deleted here, or went on by itself.
        NoAnswer: the bus is away; another try goes on from there.
    """
    progress = await _progress_of(log, session, user, file)
    if progress.head:
        first = (await bus.api(f"STREAM.INFO.{EVENTS}"))["state"]["first_seq"]
        progress.head = progress.head if progress.head >= first else 0
    if progress.facts == len(facts):
        return Outcome.ALREADY_IMPORTED
    await _check_runs(log, session, facts)
    for position in range(progress.facts, len(facts)):
        each = facts[position]
        try:
            own = renumbered(each.fact, progress.new_seqs)
        except KeyError as error:
            raise InvalidRequest(
                f"Session {session.id}: fact {each.origin} names the fact {error}, "
                "which is not in the file."
            ) from error
        wrapped = FactImported(
            at=now(),
            what=kind_of_fact(own),
            fact=msgspec.Raw(encode(own)),
            file=file,
            position=position,
            of=len(facts),
            origin=each.origin,
        )
        progress.head = await _append(
            bus, Address(user, session.id, each.run), wrapped, progress.head
        )
        progress.new_seqs[each.origin] = progress.head
    await log.sessions(FindSessions(prefix=session.id, min_seq=progress.head))
    return Outcome.IMPORTED


async def _append(bus: Bus, address: Address, fact: FactImported, expected: int) -> int:
    try:
        return await extend(
            bus,
            address.subject_of(fact),
            fact,
            expected=expected,
            scope=Scope.SESSION,
            tries=_TRIES,
        )
    except Overtaken as overtaken:
        raise Conflict("Something else happened to this session meanwhile.") from overtaken
    except NoAnswer as error:
        raise Unavailable(
            "The log cannot be reached. Start the import again: it goes on from here."
        ) from error


async def _progress_of(log: RecordedLog, session: SessionLine, user: str, file: str) -> _Progress:
    """How much an earlier try with the same file imported.

    Raises:
        Conflict: the session is here otherwise.
    """
    progress = _Progress(new_seqs={})
    async for fact in log.session_facts(session.id):
        imported = fact.imported
        if isinstance(fact.fact, SessionDeleted):
            raise Conflict("It was deleted here, and stays so.")
        if imported is None or fact.address.user != user:
            raise Conflict("It is here already.")
        if (imported.file, imported.position) != (file, progress.facts):
            raise Conflict("It is here already, from another file, or a part of it.")
        progress.head, progress.facts = fact.seq, progress.facts + 1
        progress.new_seqs[imported.origin] = fact.seq
    return progress


async def _check_runs(log: RecordedLog, session: SessionLine, facts: list[FactToImport]) -> None:
    """Make sure that no run of another session has one of these ids."""
    for run in {each.run for each in facts if each.run != NONE}:
        for found in await log.runs(FindRuns(prefix=run)):
            if found.session_id != session.id:
                raise Conflict(f"Its run {run} is here already, in session {found.session_id}.")


async def _give_up(log: RecordedLog, bus: Bus, prefix: str) -> int:
    found = await log.session(prefix)
    if not found.importing:
        raise NotRecorded(f"Nothing is being imported into session {found.session.id}.")
    session = found.session
    await StoreClient(bus).ask(DeleteSession(user_id=session.user_id, session_id=session.id))
    sys.stdout.write(f"{session.id}: what there was of it is erased.\n")
    return 0
