"""How ``natterlog user`` and ``natterlog token`` are run: the store is asked over NATS.

Only operators can ask it so.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import msgspec

from services.cli.display.terminal import aligned
from services.supervisor.run_file import running_nats_url
from shared.bus import Bus, BusError
from shared.errors import NatterlogError
from shared.operating import Operator
from shared.settings import read_settings

FAILED = 1

OperatorCommand = Callable[[Operator, argparse.Namespace], Coroutine[Any, Any, None]]


def run_as_operator(args: argparse.Namespace) -> int:
    """Run ``args.command`` on the system that runs → the exit code."""
    settings = read_settings(os.environ)
    url = running_nats_url(settings)
    if url is None:
        sys.stderr.write(
            f"natterlog: nothing runs on {settings.data_dir.resolve()}. Start natterlog first "
            "(`natterlog up`), or name another system by NATTERLOG_DATA_DIR or "
            "NATTERLOG_NATS_URL.\n"
        )
        return FAILED
    try:
        asyncio.run(_with_operator(url, args.command, args))
    except (NatterlogError, BusError, OSError) as error:
        sys.stderr.write(f"natterlog: {error}\n")
        return FAILED
    return 0


async def _with_operator(url: str, command: OperatorCommand, args: argparse.Namespace) -> None:
    async with Bus(url, name="operator") as bus:
        await command(Operator(bus), args)


# -- what is written --------------------------------------------------------------


def day(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}Z"


def write_json(items: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(items), indent=2)
    sys.stdout.write(f"{text.decode()}\n")


def write_table(rows: list[tuple[str, ...]]) -> None:
    for line in aligned(rows):
        sys.stdout.write(f"{line}\n")
