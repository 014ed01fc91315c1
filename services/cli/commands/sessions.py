"""``natterlog sessions``: list sessions, show what happened in one."""

import argparse

from services.cli.commands.arguments import add_examples, add_json, add_limit, add_times
from services.cli.display.pages import list_sessions, show_session
from services.cli.display.terminal import Output
from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.run_command import run_with_log
from services.cli.stories.story import Story, story_of
from shared.inspection import FindSessions
from shared.subjects import NONE

EXAMPLES = """\
examples:
  natterlog sessions ls --since 2026-11-26 --until 2026-11-27
  natterlog sessions show 01a21645-bcb7
  natterlog sessions show 01a21645-bcb7 --json

Ids may be cut as long as they are unique. All times are UTC.
Exit code: 0 done, 1 not possible, 2 wrong usage, 3 no such session."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Look at sessions, everybody's."
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    ls = commands.add_parser("ls", help="list sessions, the one last written to first")
    ls.add_argument("--user", metavar="ID", help="of this user (the beginning of the id will do)")
    ls.add_argument("--model", metavar="NAME", help="with this model")
    ls.add_argument("--mode", metavar="MODE", help="of this mode: general, document, content, …")
    add_times(ls, about="changed")
    add_limit(ls)
    ls.set_defaults(command=ls_sessions)
    show = commands.add_parser("show", help="everything that happened in a session, in order")
    show.add_argument("session", metavar="SESSION", help="its id, or the beginning of it")
    show.set_defaults(command=show_one)
    for each in (ls, show):
        add_json(each)


async def ls_sessions(args: argparse.Namespace, log: RecordedLog) -> int:
    found = await log.sessions(
        FindSessions(
            user=args.user,
            model=args.model,
            mode=args.mode,
            since=args.since,
            until=args.until,
            limit=args.limit,
        )
    )
    out = Output()
    if args.json:
        out.json(*found)
    elif found:
        list_sessions(out, found)
    else:
        out.line("No such sessions.")
    return 0


async def show_one(args: argparse.Namespace, log: RecordedLog) -> int:
    found = await log.session(args.session)
    facts = [fact async for fact in log.session_facts(found.session.id)]
    out = Output()
    if not args.json:
        show_session(out, found, facts)
        return 0
    runs: dict[str, list[int]] = {}
    for position, fact in enumerate(facts):
        if fact.address.run != NONE:
            runs.setdefault(fact.address.run, []).append(position)
    stories: list[Story] = [story_of([facts[i] for i in positions]) for positions in runs.values()]
    out.document(
        {
            "session": found,
            "facts": [{"seq": f.seq, "subject": f.subject, "fact": f.fact} for f in facts],
            "runs": stories,
        }
    )
    return 0
