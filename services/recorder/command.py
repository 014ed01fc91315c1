"""How a command of the recorder is run: the log opened for it, and its faults told in a line."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec

from services.recorder.reading import AskingFiles, Log, NotRecorded, reading
from shared.bus import BusError
from shared.commands import Request
from shared.errors import NatterlogError, NotFound
from shared.log import configure
from shared.settings import Settings

FAILED = 1
"""It could not be done; 2 is a command line that cannot be understood."""
NOTHING_THERE = 3
"""No such run or session, or several of that name."""

Command = Callable[[argparse.Namespace, Log, Settings], Awaitable[int]]
"""What a subcommand does; it answers the exit code."""


def run(command: Command, asked: argparse.Namespace, settings: Settings, files: AskingFiles) -> int:
    """Carry out a command → the process's exit code."""

    async def opened() -> int:
        if not getattr(asked, "needs_log", _always)(asked):
            return await command(asked, Log(_no_log, None), settings)
        async with reading(settings, files) as log:
            return await command(asked, log, settings)

    configure(msgspec.structs.replace(settings, log_level="warning"), service="recorder")
    try:
        code = asyncio.run(opened())
        sys.stdout.flush()
    except NotRecorded as error:
        return told(asked, error, NOTHING_THERE)
    except (NatterlogError, BusError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # whoever read it, as `head` does, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return told(asked, error, FAILED)
    return code


def _always(_: argparse.Namespace) -> bool:
    return True


async def _no_log(request: Request) -> NoReturn:
    raise NotFound(f"No log was opened that could answer {request.name}.")


def told(asked: argparse.Namespace, error: Exception, code: int) -> int:
    sys.stderr.write(f"natterlog {asked.command_name}: {error}\n")
    return code
