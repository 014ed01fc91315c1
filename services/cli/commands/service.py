"""``natterlog gateway``, ``llm-worker``, ``processor`` and ``store``: run one service."""

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Awaitable, Callable

import uvloop

from services.cli.command_table import SERVICES
from shared.bus import BusClosed
from shared.settings import Settings, read_settings

FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    name = parser.get_default("command_name")
    parser.description = f"Run one process: {SERVICES[name].help}."
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    package = args.command_name.replace("-", "_")
    # by its name, because a process imports one service and not the others
    main = importlib.import_module(f"services.{package}.__main__").main
    try:
        run_service(main, settings)
    except BusClosed as error:  # the log has it with all that is known
        sys.stderr.write(f"natterlog: the connection to NATS is closed for good: {error}\n")
        return FAILED
    return 0


def run_service(service: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    """Run a service's ``main`` on uvloop until it returns."""

    async def run_main() -> None:
        await service(settings)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_main())
