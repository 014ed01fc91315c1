"""``natterlog runs``: list runs, tell one's story, follow what happens."""

import argparse
import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import get_args

import msgspec

from services.cli.commands.arguments import add_examples, add_json, add_limit, add_times
from services.cli.display.pages import (
    list_runs,
    list_totals,
    show_fact,
    show_prompt,
    show_story,
    show_thoughts,
)
from services.cli.display.terminal import Output, brief_ids
from services.cli.recorder.attachments import attached_files
from services.cli.recorder.recorded_log import NotRecorded, RecordedLog
from services.cli.recorder.run_command import run_with_log
from services.cli.stories.prompt import SentPrompt, branch_of, prompts
from services.cli.stories.story import set_running_length, story_of
from services.cli.stories.totals import KEYS, Totals
from shared.bus import Bus, Incoming
from shared.errors import Unavailable
from shared.events import RunEnded
from shared.ids import now
from shared.inspection import FindRuns, FoundRun
from shared.log_entry import LogEntry
from shared.message_state import thoughts_text
from shared.objects import ObjectMissing, unpack
from shared.records import RunStatus
from shared.subjects import LIVE, LIVE_FACTS, NONE

EXAMPLES = """\
examples:
  natterlog runs ls --since 1h --state failed
  natterlog runs ls --since 1d --restarted
  natterlog runs ls --user 0000 --model demo --json
  natterlog runs sum --since 2026-11-26 --by model
  natterlog runs show 01a21645-bd32
  natterlog runs show 01a21645-bd32 --prompt --thoughts
  natterlog runs tail --session 01a21645-bcb7

Ids may be cut as long as they are unique. All times are UTC.
Exit code: 0 done, 1 not possible, 2 wrong usage, 3 no such run."""

_PAGE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Look at runs: replies, file jobs, pipelines; everybody's."
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    ls = commands.add_parser("ls", help="list runs, the one accepted last first")
    _add_filters(ls)
    add_limit(ls)
    ls.set_defaults(command=ls_runs)
    summed = commands.add_parser("sum", help="add up runs, tokens and money by user, model, …")
    _add_filters(summed)
    summed.add_argument("--by", choices=KEYS, default="user", help="what to add up by (user)")
    summed.set_defaults(command=sum_runs)
    show = commands.add_parser("show", help="tell a run's story: attempts, times, end")
    show.add_argument("run_id", metavar="RUN", help="its id, or the beginning of it")
    show.add_argument("--prompt", action="store_true", help="also what each attempt asked, exactly")
    show.add_argument("--thoughts", action="store_true", help="also what the model thought first")
    show.set_defaults(command=show_run)
    tail = commands.add_parser("tail", help="show facts as they happen, until Ctrl-C")
    tail.add_argument("run_id", metavar="RUN", nargs="?", help="of this run alone, until its end")
    tail.add_argument("--user", metavar="ID", help="of this user alone")
    tail.add_argument("--session", metavar="ID", help="of this session alone")
    tail.set_defaults(command=tail_runs)
    for each in (ls, summed, show, tail):
        add_json(each)


def _add_filters(ls: argparse.ArgumentParser) -> None:
    ls.add_argument("--user", metavar="ID", help="of this user (the beginning of the id will do)")
    ls.add_argument("--session", metavar="ID", help="in this session")
    ls.add_argument("--state", choices=get_args(RunStatus), help="in this state")
    ls.add_argument("--model", metavar="NAME", help="written by this model")
    ls.add_argument(
        "--error", metavar="CODE", nargs="?", const="", help="that failed, with this code if given"
    )
    ls.add_argument("--restarted", action="store_true", help="that lost an attempt and began anew")
    add_times(ls, about="accepted")


async def ls_runs(args: argparse.Namespace, log: RecordedLog) -> int:
    found = await log.runs(_query(args, limit=args.limit))
    out = Output()
    if args.json:
        out.json(*found)
    elif found:
        list_runs(out, found)
    else:
        out.line("No such runs.")
    return 0


def _query(
    args: argparse.Namespace, *, limit: int, before: tuple[datetime, int] | None = None
) -> FindRuns:
    return FindRuns(
        user=args.user,
        session=args.session,
        state=args.state,
        model=args.model,
        error=args.error,
        restarted=args.restarted,
        since=args.since,
        until=args.until,
        before=before,
        limit=limit,
    )


async def sum_runs(args: argparse.Namespace, log: RecordedLog) -> int:
    totals, before = Totals(args.by), None
    while found := await log.runs(_query(args, limit=_PAGE, before=before)):
        totals.add(found)
        before = found[-1].created_at, found[-1].first_seq
    out = Output()
    if args.json:
        out.json(*totals.rows())
    else:
        list_totals(out, args.by, totals.rows())
    return 0


async def show_run(args: argparse.Namespace, log: RecordedLog) -> int:
    run = await log.run(args.run_id)
    facts = await log.run_facts(run)
    if not facts:
        raise NotRecorded(f"Of run {run.id} no fact is left, or none that this version can read.")
    story = story_of(facts)
    if story.end is None and story.attempts and (written := await log.written(run)):
        set_running_length(story, len(written.text) if written.attempt == run.attempt else 0)
    sent = await _prompts(log, run, facts) if args.prompt else []
    thoughts = _thoughts(facts) if args.thoughts else None
    out = Output()
    if args.json:
        more = {"prompts": sent} if args.prompt else {}
        more |= {"thoughts": thoughts} if args.thoughts else {}
        out.document({"story": story, **more} if more else story)
        return 0
    show_story(out, story, now())
    for prompt in sent:
        show_prompt(out, prompt)
    if thoughts is not None:
        show_thoughts(out, thoughts)
    return 0


def _thoughts(facts: Sequence[LogEntry]) -> str | None:
    finals = (fact.fact for fact in facts if isinstance(fact.fact, RunEnded))
    return next((thoughts_text(final.thoughts) for final in finals), None)


async def _prompts(log: RecordedLog, run: FoundRun, facts: Sequence[LogEntry]) -> list[SentPrompt]:
    """What the run's attempts asked, wherever the messages and files of it are."""
    session = [fact async for fact in log.session_facts(run.session_id)]
    elsewhere: list[LogEntry] = []
    if (message_id := branch_of(facts)) is not None:
        for other in await log.runs(FindRuns(user=run.user_id, message=message_id, limit=1)):
            elsewhere = [fact async for fact in log.session_facts(other.session_id)]
    files = await attached_files(log, [*elsewhere, *session])
    return prompts(session, run.id, elsewhere=elsewhere, files=files)


# -- following ----------------------------------------------------------------------------


async def tail_runs(args: argparse.Namespace, log: RecordedLog) -> int:
    if log.bus is None:
        raise Unavailable("Nothing runs here, so nothing happens that could be followed.")
    run = None if args.run_id is None else await log.run(args.run_id)
    out = Output()
    incoming: asyncio.Queue[Incoming] = asyncio.Queue()
    subscription = await log.bus.listen_live(LIVE_FACTS, incoming.put_nowait)
    try:
        shown = 0
        for fact in await log.run_facts(run) if run else []:
            _show(out, fact, json=args.json)
            shown = fact.seq
            if fact.kind == "final":
                return 0
        while True:
            fact = await _decode_live(log.bus, await incoming.get())
            if fact is None or fact.seq <= shown or not _is_selected(fact, args, run and run.id):
                continue
            _show(out, fact, json=args.json)
            if run is not None and fact.kind == "final":
                return 0
    finally:
        await subscription.close()


def _is_selected(fact: LogEntry, args: argparse.Namespace, run_id: str | None) -> bool:
    address = fact.address
    return (
        (run_id is None or address.run == run_id)
        and address.user.startswith(args.user or "")
        and address.session.startswith(args.session or "")
    )


async def _decode_live(bus: Bus, message: Incoming) -> LogEntry | None:
    subject = message.subject.removeprefix(LIVE)
    try:
        return LogEntry.read(message.sequence, subject, await unpack(bus, message.data)).unwrapped()
    except (ObjectMissing, msgspec.ValidationError):
        return None  # deleted in the same moment, or of another version


def _show(out: Output, fact: LogEntry, *, json: bool) -> None:
    if json:
        out.json({"seq": fact.seq, "subject": fact.subject, "fact": fact.fact})
    else:
        brief = brief_ids([fact.address.run]) if fact.address.run != NONE else {}
        show_fact(out, fact, brief)
    out.flush()
