"""``natterlog runs``: list runs, tell one's story, follow what happens."""

import argparse
import asyncio
from collections.abc import Sequence
from typing import get_args

import msgspec

from services.cli.commands.arguments import add_examples, add_json, add_limit, add_times
from services.cli.display.pages import (
    list_runs,
    list_sums,
    show_fact,
    show_prompt,
    show_story,
    show_thoughts,
)
from services.cli.display.terminal import Page, brief_ids
from services.cli.recorder.attachments import attached_files
from services.cli.recorder.recorded_log import NotRecorded, RecordedFact, RecordedLog, recorded
from services.cli.recorder.run_command import run_with_log
from services.cli.stories.prompt import SentPrompt, branch_of, prompts
from services.cli.stories.story import running_text, tell
from services.cli.stories.totals import KEYS, Sums
from shared.bus import Bus, Incoming
from shared.conversation import thoughts_text
from shared.errors import Unavailable
from shared.events import RunEnded
from shared.ids import now
from shared.inspection import FindRuns, FoundRun
from shared.objects import ObjectMissing, unpack
from shared.records import RunStatus
from shared.subjects import LIVE, LIVE_FACTS, NONE

EXAMPLES = """\
examples:
  natterlog runs ls --since 1h --state failed
  natterlog runs ls --user 0000 --model demo --json
  natterlog runs sum --since 2026-11-26 --by model
  natterlog runs show 01a21645-bd32
  natterlog runs show 01a21645-bd32 --prompt --thoughts
  natterlog runs tail --session 01a21645-bcb7

Ids may be cut as long as they are unique. All times are UTC.
Exit code: 0 done, 1 not possible, 2 asked wrongly, 3 no such run."""

_PAGE = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Look at runs: replies, file jobs, pipelines; everybody's."
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    ls = commands.add_parser("ls", help="list runs, the newest first")
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
    add_times(ls, about="accepted")


async def ls_runs(asked: argparse.Namespace, log: RecordedLog) -> int:
    found = await log.runs(_wanted(asked, limit=asked.limit))
    page = Page()
    if asked.json:
        page.json(*found)
    elif found:
        list_runs(page, found)
    else:
        page.line("No such runs.")
    return 0


def _wanted(asked: argparse.Namespace, *, limit: int, before: int | None = None) -> FindRuns:
    return FindRuns(
        user=asked.user,
        session=asked.session,
        state=asked.state,
        model=asked.model,
        error=asked.error,
        since=asked.since,
        until=asked.until,
        before=before,
        limit=limit,
    )


async def sum_runs(asked: argparse.Namespace, log: RecordedLog) -> int:
    sums, before = Sums(asked.by), None
    while found := await log.runs(_wanted(asked, limit=_PAGE, before=before)):
        sums.add(found)
        before = found[-1].first_seq
    page = Page()
    if asked.json:
        page.json(*sums.rows())
    else:
        list_sums(page, asked.by, sums.rows())
    return 0


async def show_run(asked: argparse.Namespace, log: RecordedLog) -> int:
    run = await log.run(asked.run_id)
    facts = await log.run_facts(run)
    if not facts:
        raise NotRecorded(f"Of run {run.id} no fact is left, or none that this version can read.")
    story = tell(facts)
    if story.end is None and story.attempts and (written := await log.written(run)):
        running_text(story, len(written.text) if written.attempt == run.attempt else 0)
    sent = await _prompts(log, run, facts) if asked.prompt else []
    thoughts = _thoughts(facts) if asked.thoughts else None
    page = Page()
    if asked.json:
        more = {"prompts": sent} if asked.prompt else {}
        more |= {"thoughts": thoughts} if asked.thoughts else {}
        page.document({"story": story, **more} if more else story)
        return 0
    show_story(page, story, now())
    for prompt in sent:
        show_prompt(page, prompt)
    if thoughts is not None:
        show_thoughts(page, thoughts)
    return 0


def _thoughts(facts: Sequence[RecordedFact]) -> str | None:
    finals = (fact.fact for fact in facts if isinstance(fact.fact, RunEnded))
    return next((thoughts_text(final.thoughts) for final in finals), None)


async def _prompts(
    log: RecordedLog, run: FoundRun, facts: Sequence[RecordedFact]
) -> list[SentPrompt]:
    """What the run's attempts asked, wherever the messages and files of it are."""
    session = [fact async for fact in log.session_facts(run.session_id)]
    elsewhere: list[RecordedFact] = []
    if (message_id := branch_of(facts)) is not None:
        for other in await log.runs(FindRuns(user=run.user_id, message=message_id, limit=1)):
            elsewhere = [fact async for fact in log.session_facts(other.session_id)]
    files = await attached_files(log, [*elsewhere, *session])
    return prompts(session, run.id, elsewhere=elsewhere, files=files)


# -- following ----------------------------------------------------------------------------


async def tail_runs(asked: argparse.Namespace, log: RecordedLog) -> int:
    if log.bus is None:
        raise Unavailable("Nothing runs here, so nothing happens that could be followed.")
    run = None if asked.run_id is None else await log.run(asked.run_id)
    page = Page()
    heard: asyncio.Queue[Incoming] = asyncio.Queue()
    listening = await log.bus.listen_live(LIVE_FACTS, heard.put_nowait)
    try:
        shown = 0
        for fact in await log.run_facts(run) if run else []:
            _show(page, fact, json=asked.json)
            shown = fact.seq
            if fact.what == "final":
                return 0
        while True:
            fact = await _whole(log.bus, await heard.get())
            if fact is None or fact.seq <= shown or not _is_asked(fact, asked, run and run.id):
                continue
            _show(page, fact, json=asked.json)
            if run is not None and fact.what == "final":
                return 0
    finally:
        await listening.close()


def _is_asked(fact: RecordedFact, asked: argparse.Namespace, run_id: str | None) -> bool:
    address = fact.address
    return (
        (run_id is None or address.run == run_id)
        and address.user.startswith(asked.user or "")
        and address.session.startswith(asked.session or "")
    )


async def _whole(bus: Bus, message: Incoming) -> RecordedFact | None:
    subject = message.subject.removeprefix(LIVE)
    try:
        return recorded(message.sequence, subject, await unpack(bus, message.data))
    except (ObjectMissing, msgspec.ValidationError):
        return None  # deleted in the same moment, or of another version


def _show(page: Page, fact: RecordedFact, *, json: bool) -> None:
    if json:
        page.json({"seq": fact.seq, "subject": fact.subject, "fact": fact.fact})
    else:
        brief = brief_ids([fact.address.run]) if fact.address.run != NONE else {}
        show_fact(page, fact, brief)
    page.flush()
