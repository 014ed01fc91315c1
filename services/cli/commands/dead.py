"""``natterlog dead``: list, show, retry and drop dead letters."""

import argparse
import asyncio
import sys

import msgspec

from services.cli.commands.arguments import add_examples, add_json
from services.cli.display.terminal import Output, brief_ids, clock, shortened, table
from services.cli.recorder.dead_letters import (
    Case,
    StoredLetter,
    case_of,
    dead_letters,
    drop_letter,
    find_letter,
    put_back,
)
from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.run_command import run_with_log
from services.cli.stories.story import describe_fact
from shared.bus import Bus
from shared.errors import NatterlogError, Unavailable

EXAMPLES = """\
examples:
  natterlog dead ls
  natterlog dead show 3
  natterlog dead retry 3
  natterlog dead drop 3

A todo that nobody can handle ends its run as failed, and a letter about it is kept
for 30 days. `retry` asks for the work anew, as a run of its own: a reply by answering
the message again, a job by a new one with the same plan and file. Doing it twice is
doing it once. It refuses where the conversation went on (--anyway: not then).
Exit code: 0 done, 1 not possible, 2 wrong usage."""

_HEAD = ("NO", "WHEN (UTC)", "BY", "KIND", "RUN", "NOW", "REASON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Look at what could not be handled, and put it back."
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    ls = commands.add_parser("ls", help="list dead letters, the oldest first")
    ls.set_defaults(command=list_dead_letters)
    show = commands.add_parser("show", help="one letter, its fact, and what became of its run")
    show.add_argument("number", type=int, metavar="NO")
    show.set_defaults(command=show_dead_letter)
    retry = commands.add_parser("retry", help="ask for the work anew, then drop the letter")
    retry.add_argument("number", type=int, metavar="NO", nargs="+")
    retry.add_argument("--anyway", action="store_true", help="although the conversation went on")
    retry.set_defaults(command=retry_dead_letters)
    dropping = commands.add_parser("drop", help="forget letters; their runs stay failed")
    dropping.add_argument("number", type=int, metavar="NO", nargs="+")
    dropping.set_defaults(command=drop_dead_letters)
    for each in (ls, show):
        add_json(each)


async def list_dead_letters(args: argparse.Namespace, log: RecordedLog) -> int:
    cases = [await case_of(log, letter) async for letter in dead_letters(_running(log))]
    out = Output()
    if args.json:
        out.json(*map(_as_json, cases))
    elif cases:
        brief = brief_ids(case.letter.run_id for case in cases)
        table(out, _HEAD, [_row(case, brief) for case in cases])
    else:
        out.line("No dead letters.")
    return 0


def _row(case: Case, brief: dict[str, str]) -> tuple[str, ...]:
    letter = case.letter.letter
    return (
        str(case.letter.number),
        letter.at[5:16].replace("T", " "),
        letter.consumer,
        letter.kind,
        brief[case.letter.run_id],
        case.state,
        shortened(letter.reason, 80),
    )


async def show_dead_letter(args: argparse.Namespace, log: RecordedLog) -> int:
    letter = await find_letter(_running(log), args.number)
    case = await case_of(log, letter)
    out = Output()
    if args.json:
        out.document(_as_json(case))
    else:
        _show(out, case)
    return 0


def _show(out: Output, case: Case) -> None:
    letter = case.letter.letter
    out.line(f"{out.style(f'dead letter {case.letter.number}', 'bold')}, {letter.at[:19]} UTC")
    out.line(f"  {letter.kind} by consumer {letter.consumer}, fact {letter.seq}")
    out.line(f"  delivered {letter.deliveries} times, {letter.errors} errors there")
    out.wrapped(letter.reason, indent="  | ", styles=["red"])
    out.line(f"  run {case.letter.run_id}: {case.state}")
    for fact in case.facts:
        out.line(f"    {clock(fact.fact.at)}  {shortened(describe_fact(fact), 54)}  #{fact.seq}")
    out.line(f"  {case.obstacle or 'retry asks for it anew'}")


async def retry_dead_letters(args: argparse.Namespace, log: RecordedLog) -> int:
    bus = _running(log)
    code = 0
    for number in args.number:
        try:
            run_id = await put_back(log, bus, await find_letter(bus, number), anyway=args.anyway)
        except NatterlogError as error:
            sys.stderr.write(f"{number}: {error}\n")
            code = 1
        else:
            sys.stdout.write(f"{number}: asked for anew, as run {run_id}\n")
    return code


async def drop_dead_letters(args: argparse.Namespace, log: RecordedLog) -> int:
    bus = _running(log)
    found: list[StoredLetter] = [await find_letter(bus, number) for number in args.number]
    await asyncio.gather(*(drop_letter(bus, letter) for letter in found))
    return 0


def _running(log: RecordedLog) -> Bus:
    if log.bus is None:
        raise Unavailable("Dead letters are in the nats-server, and none runs here.")
    return log.bus


def _as_json(case: Case) -> dict[str, object]:
    return {
        "number": case.letter.number,
        **msgspec.structs.asdict(case.letter.letter),
        "run_id": case.letter.run_id,
        "state": case.state,
        "obstacle": case.obstacle,
    }
