"""``natterlog verify``: does today's code show recorded sessions as they were shown?"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path

from services.cli.commands.arguments import add_examples, add_json
from services.cli.display.terminal import Output, printable
from services.cli.log_files import corpus
from services.cli.log_files.corpus import Difference, FrameLine
from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.run_command import exit_code_of, run_with_log
from services.cli.recorder.selection import find_selection
from shared.errors import InvalidRequest

EXAMPLES = """\
examples:
  natterlog verify
  natterlog verify ~/bugs --json
  natterlog verify --add 01a21645-bcb7 --as reply-that-restarted
  natterlog verify --render

--add keeps a session of the log with the frames that it has today; from then on they
must stay the same. --render writes the frames of all sessions anew, as today's code has
them: after a change of what clients are sent that is meant. Nothing need run to verify.
Exit code: 0 all are the same, 1 one differs, 2 wrong usage, 3 no such session."""

CORPUS = Path("tests/corpus")
DIFFERS = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_SHOWN = 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show every session of a corpus with today's code, and name the first\n"
        "frame that is another than when it was recorded."
    )
    add_examples(parser, EXAMPLES)
    parser.add_argument(
        "corpus",
        nargs="?",
        type=Path,
        default=CORPUS,
        metavar="CORPUS",
        help=f"its directory ({CORPUS})",
    )
    parser.add_argument("--add", metavar="SESSION", help="keep this session in the corpus")
    parser.add_argument("--as", dest="name", metavar="NAME", help="under this name")
    parser.add_argument(
        "--render", action="store_true", help="write all frames anew from the recorded facts"
    )
    add_json(parser)
    parser.set_defaults(run=run, command=add_session)


def run(args: argparse.Namespace) -> int:
    if args.add is not None:
        return run_with_log(args)
    if args.render:
        return exit_code_of(args, partial(render, args.corpus, Output()))
    return exit_code_of(args, partial(check, args.corpus, Output(), as_json=args.json))


async def add_session(args: argparse.Namespace, log: RecordedLog) -> int:
    selection = await find_selection(log, args.add)
    name = args.name or selection.session_id
    if not _NAME.fullmatch(name):
        raise InvalidRequest("A name has small letters, digits and dashes.")
    selection = selection._replace(run_id=None)
    frames = await corpus.add(args.corpus, name, selection)
    sys.stdout.write(f"{args.corpus / name}: {len(selection.facts)} facts, {frames} frames.\n")
    return 0


async def render(path: Path, out: Output) -> int:
    """Write the frames of a whole corpus anew → the exit code."""
    for name in corpus.names(path):
        out.line(f"{name}: {await corpus.render(path, name)} frames.")
    return 0


async def check(path: Path, out: Output, *, as_json: bool = False) -> int:
    """Verify a whole corpus and show what differs → the exit code."""
    failed = 0
    for name in corpus.names(path):
        compared, difference = await corpus.difference(path, name)
        failed += difference is not None
        if as_json:
            out.json({"name": name, "same": compared, "difference": difference})
        elif difference is None:
            out.line(f"{name}: {compared} frames, all the same.")
        else:
            _show_difference(out, difference)
    return DIFFERS if failed else 0


def _show_difference(out: Output, found: Difference) -> None:
    head = f"{found.name}: frame {found.number} of {found.dialect} is another one."
    out.line(out.style(head, "red"))
    at = _first_other(found.was, found.now)
    out.line(f"  was: {_around(found.was, at)}")
    out.line(f"  is:  {_around(found.now, at)}")


def _first_other(was: FrameLine | None, now: FrameLine | None) -> int:
    """The position of the first character that differs."""
    pairs = zip(was.frame if was else "", now.frame if now else "", strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)


def _around(line: FrameLine | None, at: int) -> str:
    if line is None:
        return "(no more frames)"
    start = max(0, at - _SHOWN // 3)
    shown = line.frame[start : start + _SHOWN].replace("\n", "\\n")
    more = "…" if start else ""
    return f"{line.ms:.0f} ms {more}{printable(shown)}"
