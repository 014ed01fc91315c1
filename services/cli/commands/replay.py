"""``natterlog replay``: the frames that a client of a dialect was sent, at their times."""

import argparse
import sys
from contextlib import aclosing

import msgspec

from services.cli.commands.arguments import add_examples, add_json
from services.cli.recorder.recorded_log import RecordedLog
from services.cli.recorder.run_command import run_with_log
from services.cli.recorder.selection import epoch_of, find_selection
from services.gateway.playback import FORMATS, Playback

EXAMPLES = """\
examples:
  natterlog replay 01a21645-bd32
  natterlog replay 01a21645-bd32 --speed max --dialect channels
  natterlog replay 01a21645-bcb7 --speed 10 --dialect assistant-socket
  natterlog replay 01a21645-bd32 --from 4e66adc88ecc-28-28-115

RUN and SESSION are ids; they may be cut as long as they are unique. What cannot be
shown as it was is said on standard error. docs/replay.md has the whole story.
Exit code: 0 done, 1 not possible, 2 wrong usage, 3 no such run or session."""


class _Line(msgspec.Struct, frozen=True):
    """A frame as ``--json`` shows it."""

    ms: float
    frame: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print exactly the frames that a client who kept up was sent, with the recorded\n"
        "timing. Nothing is started, asked or written."
    )
    add_examples(parser, EXAMPLES)
    parser.set_defaults(run=run_with_log)
    parser.add_argument("what", metavar="RUN|SESSION", help="what is to be shown")
    parser.add_argument("--speed", default="1", metavar="N", help="1, 10, 0.5, or max (1)")
    parser.add_argument(
        "--from", dest="cursor", metavar="CURSOR", help="go on after this cursor, as a client does"
    )
    parser.add_argument(
        "--dialect", metavar="NAME", help=f"one of {', '.join(FORMATS)} (the run's own)"
    )
    parser.add_argument("--times", action="store_true", help="with each frame's time before it")
    add_json(parser)
    parser.set_defaults(command=replay)


async def replay(args: argparse.Namespace, log: RecordedLog) -> int:
    selection = await find_selection(log, args.what)
    playback = Playback(
        selection.facts,
        user=selection.user,
        session_id=selection.session_id,
        run_id=selection.run_id,
        epoch=await epoch_of(log),
    )
    for gap in playback.gaps():
        sys.stderr.write(f"{gap}\n")
    await _show(playback, args)
    return 0


async def _show(playback: Playback, args: argparse.Namespace) -> None:
    out = sys.stdout.buffer
    first: float | None = None
    frames = playback.frames(args.dialect, speed=args.speed, cursor=args.cursor)
    async with aclosing(frames):
        async for frame in frames:
            first = frame.ms if first is None else first
            ms, data = frame.ms - first, frame.data
            if args.json:
                data = msgspec.json.encode(_Line(round(ms, 3), data.decode()))
            elif args.times:
                data = f"{ms / 1000:+.3f} ".encode() + data
            out.write(data if data.endswith(b"\n") else data + b"\n")
            out.flush()
