"""How a command of the recorder is run: the log opened for it, its faults shown in a line."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine

import msgspec

from services.cli.recorder.recorded_log import NotRecorded, RecordedLog, open_log
from services.supervisor.run_file import of_running_system
from shared.bus import BusError
from shared.errors import InvalidRequest, NatterlogError
from shared.log import configure
from shared.settings import read_settings

FAILED = 1
"""It could not be done."""
WRONG_USAGE = 2
"""The command line cannot be understood."""
NOTHING_THERE = 3
"""No such run or session, or several of that name."""

LogCommand = Callable[[argparse.Namespace, RecordedLog], Awaitable[int]]
"""What a command does with the log → the exit code."""


def run_with_log(args: argparse.Namespace) -> int:
    """Run ``args.command``, a LogCommand, on the log that the settings name → the exit code.

    ``args.check_first``, where there is one, looks at what needs no log.
    """
    try:
        if "check_first" in args:
            args.check_first(args)
    except InvalidRequest as error:
        return _failed(args, error, WRONG_USAGE)
    except OSError as error:
        return _failed(args, error, FAILED)
    settings = of_running_system(read_settings(os.environ))

    async def run() -> int:
        async with open_log(settings) as log:
            return await args.command(args, log)

    return exit_code_of(args, run)


def exit_code_of(args: argparse.Namespace, run: Callable[[], Coroutine[None, None, int]]) -> int:
    """Run a command to its end → its exit code, or that of its fault, which is shown."""
    settings = read_settings(os.environ)
    configure(msgspec.structs.replace(settings, log_level="warning"), service="recorder")
    try:
        code = asyncio.run(run())
        sys.stdout.flush()
    except NotRecorded as error:
        return _failed(args, error, NOTHING_THERE)
    except (NatterlogError, BusError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # whoever read it, as `head` does, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return _failed(args, error, FAILED)
    return code


def _failed(args: argparse.Namespace, error: Exception, code: int) -> int:
    sys.stderr.write(f"natterlog {args.command_name}: {error}\n")
    return code
