"""``natterlog export-log``: write sessions to a file, with people's words or without."""

import argparse
import importlib.metadata
import sys
from pathlib import Path

import msgspec

from services.cli.commands.arguments import add_examples
from services.cli.log_files.export_file import (
    FORMAT,
    WITH_FILES,
    FactLine,
    LogLine,
    SessionLine,
    Writer,
    check_new,
    writing,
)
from services.cli.log_files.exported_files import files_of, write_files
from services.cli.log_files.redaction import redacted
from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.run_command import run_with_log
from shared.attachments import attached_in
from shared.errors import InvalidRequest
from shared.events import SessionDeleted, encode
from shared.ids import now
from shared.inspection import FindSessions, FoundSession
from shared.log_entry import LogEntry
from shared.subjects import NONE

EXAMPLES = """\
examples:
  natterlog export-log 01a21645-bcb7 bug.jsonl --redact
  natterlog export-log --all everything.jsonl.gz

The file holds what was said, so it is readable by you alone; --redact puts other
letters in the place of all words, and keeps lengths, lines, marks and times.
Files that messages and jobs refer to travel along, unless it is redacted or --without-files
says so, or nothing runs: then they are only named.
Exit code: 0 done, 1 not possible, 2 wrong usage, 3 no such session."""

_PAGE = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write sessions with everything that happened in them to a file."
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    parser.add_argument("what", nargs="*", metavar="SESSION FILE", help="or --all FILE")
    parser.add_argument("--all", action="store_true", help="every session of every user")
    parser.add_argument("--redact", action="store_true", help="without anybody's words")
    parser.add_argument("--without-files", action="store_true", help="name files only")
    parser.set_defaults(command=export_log, check_first=check_arguments)


def check_arguments(args: argparse.Namespace) -> None:
    """Make sure that it is named what to write, and where to.

    Raises:
        InvalidRequest: one is missing, or there is such a file.
    """
    if len(args.what) != (1 if args.all else 2):
        raise InvalidRequest("Name a session and a file, or --all and a file.")
    check_new(Path(args.what[-1]))


async def export_log(args: argparse.Namespace, log: RecordedLog) -> int:
    path = Path(args.what[-1])
    found = await _all_sessions(log) if args.all else [await log.session(args.what[0])]
    bus = None if args.redact or args.without_files else log.bus
    unfinished = missing = 0
    with writing(path) as writer:
        writer.write(
            LogLine(
                format=FORMAT if bus is None else WITH_FILES,
                natterlog=importlib.metadata.version("natterlog"),
                made_at=now(),
                redacted=args.redact,
                files=bus is not None,
            )
        )
        for each in found:
            if not each.importing:
                facts = [fact async for fact in log.session_facts(each.session.id)]
                unfinished += _write(writer, each, facts, redact=args.redact)
                if bus is not None:
                    own = files_of(each.session.id, (fact.fact for fact in facts))
                    missing += await write_files(bus, writer, own)
                    if not args.all:
                        found += await _attached_sessions(log, each, facts)
    _report(path, writer, bus is not None)
    if missing:
        sys.stderr.write(f"{missing} files are not there any more, or not yet; they are named.\n")
    if unfinished:
        sys.stderr.write(
            f"{unfinished} runs were under way; where this is imported they will be failed.\n"
        )
    return 0


def _report(path: Path, writer: Writer, files: bool) -> None:
    counted = [f"{writer.sessions} sessions", f"{writer.facts} facts"]
    counted += [f"{writer.files} files"] if writer.files else []
    sys.stdout.write(f"{path}: {', '.join(counted)}{'' if files else '; files are named only'}.\n")


async def _attached_sessions(
    log: RecordedLog, found: FoundSession, facts: list[LogEntry]
) -> list[FoundSession]:
    """The files of a session's messages, each a session of its own."""
    files: list[FoundSession] = []
    for file_id in attached_in(fact.fact for fact in facts):
        files += await log.sessions(
            FindSessions(prefix=file_id, user=found.session.user_id, mode="file")
        )
    return files


async def _all_sessions(log: RecordedLog) -> list[FoundSession]:
    found: list[FoundSession] = []
    follows = ""
    while page := await log.sessions(FindSessions(follows=follows, limit=_PAGE)):
        found += page
        follows = page[-1].session.id
    return found


def _write(writer: Writer, found: FoundSession, facts: list[LogEntry], *, redact: bool) -> int:
    """Write one session → how many of its runs were under way."""
    if not facts or isinstance(facts[-1].fact, SessionDeleted):
        return 0  # it went while the others were written
    open_runs = unfinished(facts)
    writer.write(
        SessionLine(
            id=found.session.id,
            user=found.session.user_id,
            facts=len(facts),
            unfinished=open_runs,
        )
    )
    for fact in facts:
        data = encode(redacted(fact.fact)) if redact else fact.data
        writer.write(FactLine(seq=fact.seq, run=fact.address.run, fact=msgspec.Raw(data)))
    return len(open_runs)


def unfinished(facts: list[LogEntry]) -> list[str]:
    """The runs without a final, in the order of their acceptance."""
    runs = dict.fromkeys(fact.address.run for fact in facts if fact.address.run != NONE)
    for fact in facts:
        if fact.kind == "final":
            runs.pop(fact.address.run, None)
    return list(runs)
