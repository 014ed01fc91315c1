"""``natterlog verify``: does today's code show recorded sessions as they were shown?"""

import argparse
import re
import sys
from pathlib import Path

from services.recorder import corpus
from services.recorder.corpus import Difference, FrameLine
from services.recorder.playing import MakePlayback, find
from services.recorder.reading import Log
from services.recorder.terminal import Page, add_output, printable
from shared.errors import InvalidRequest
from shared.settings import Settings

EXAMPLES = """\
examples:
  natterlog verify
  natterlog verify ~/bugs --json
  natterlog verify --add 01a21645-bcb7 --as reply-that-restarted
  natterlog verify --render

--add keeps a session of the log with the frames that it has today; from then on they
must stay the same. --render writes the frames of all sessions anew, as today's code has
them: after a change of what clients are sent that is meant. Nothing need run to verify.
Exit code: 0 all are the same, 1 one differs, 2 asked wrongly, 3 no such session."""

CORPUS = Path("tests/corpus")
DIFFERS = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_SHOWN = 160


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show every session of a corpus with today's code, and name the first\n"
        "frame that is another than when it was recorded."
    )
    parser.epilog = EXAMPLES
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
    add_output(parser)
    parser.set_defaults(command=verify, needs_log=_adds)


def _adds(asked: argparse.Namespace) -> bool:
    return asked.add is not None


async def verify(asked: argparse.Namespace, log: Log, _: Settings) -> int:
    if asked.add is not None:
        return await _add(asked, log)
    if asked.render:
        return await render(asked.corpus, asked.playback, Page())
    return await check(asked.corpus, asked.playback, Page(), as_json=asked.json)


async def _add(asked: argparse.Namespace, log: Log) -> int:
    named = await find(log, asked.add)
    name = asked.name or named.session_id
    if not _NAME.fullmatch(name):
        raise InvalidRequest("A name has small letters, digits and dashes.")
    named = named._replace(run_id=None)
    frames = await corpus.add(asked.corpus, name, named, asked.playback)
    sys.stdout.write(f"{asked.corpus / name}: {len(named.facts)} facts, {frames} frames.\n")
    return 0


async def render(path: Path, make: MakePlayback, page: Page) -> int:
    """Write the frames of a whole corpus anew → the exit code."""
    for name in corpus.names(path):
        page.line(f"{name}: {await corpus.render(path, name, make)} frames.")
    return 0


async def check(path: Path, make: MakePlayback, page: Page, *, as_json: bool = False) -> int:
    """Verify a whole corpus and tell of it → the exit code."""
    failed = 0
    for name in corpus.names(path):
        compared, difference = await corpus.difference(path, name, make)
        failed += difference is not None
        if as_json:
            page.json({"name": name, "same": compared, "difference": difference})
        elif difference is None:
            page.line(f"{name}: {compared} frames, all the same.")
        else:
            _tell(page, difference)
    return DIFFERS if failed else 0


def _tell(page: Page, found: Difference) -> None:
    head = f"{found.name}: frame {found.number} of {found.dialect} is another one."
    page.line(page.style(head, "red"))
    at = _first_other(found.was, found.now)
    page.line(f"  was: {_around(found.was, at)}")
    page.line(f"  is:  {_around(found.now, at)}")


def _first_other(was: FrameLine | None, now: FrameLine | None) -> int:
    """Where the frames part."""
    pairs = zip(was.frame if was else "", now.frame if now else "", strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)


def _around(line: FrameLine | None, at: int) -> str:
    if line is None:
        return "(no more frames)"
    start = max(0, at - _SHOWN // 3)
    shown = line.frame[start : start + _SHOWN].replace("\n", "\\n")
    more = "…" if start else ""
    return f"{line.ms:.0f} ms {more}{printable(shown)}"
