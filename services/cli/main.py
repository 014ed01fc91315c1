"""The command ``natterlog``: one subcommand a process, each imports only what it runs."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from services.cli.command_table import COMMANDS, SERVICES
from services.cli.near_misses import did_you_mean, unknown_settings
from shared.settings import BadSetting

WRONG_USAGE = 2

EPILOG = """\
Everything is configured by environment variables (NATTERLOG_PORT, NATTERLOG_DATA_DIR,
ANTHROPIC_API_KEY, …); docs/settings.md lists them all. Without an API key a built-in
demo provider answers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand → the process's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        nearest = did_you_mean(arguments[0], COMMANDS)
        _complain(f"There is no command {arguments[0]!r}.{nearest} `natterlog --help` lists them.")
        return WRONG_USAGE
    args = parser(chosen=arguments[0] if arguments else None).parse_args(arguments)
    if args.command_name == "up" or args.command_name in SERVICES:
        for sentence in unknown_settings(os.environ):
            _complain(sentence)
    try:
        return args.run(args)
    except BadSetting as error:
        _complain(str(error))
        return WRONG_USAGE
    except KeyboardInterrupt:
        return 130


def _complain(sentence: str) -> None:
    sys.stderr.write(f"natterlog: {sentence}\n")


def parser(*, chosen: str | None = None) -> argparse.ArgumentParser:
    """The command line as ``--help`` shows it; with the options of the ``chosen`` command only."""
    top = argparse.ArgumentParser(
        prog="natterlog",
        description="The self-hosted chat back end whose replies survive anything.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help)
        subparser.set_defaults(command_name=name)
        if name == chosen:  # its options come with all that it imports
            module = importlib.import_module(f"services.cli.commands.{command.module}")
            module.add_arguments(subparser)
    return top
