"""The command ``natterlog``: one subcommand a process, each imports only what it runs."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from services.cli.command_table import COMMANDS
from shared.settings import BadSetting

BAD_SETTING = 2

EPILOG = """\
Everything is configured by environment variables (NATTERLOG_PORT, NATTERLOG_DATA_DIR,
ANTHROPIC_API_KEY, …); docs/settings.md lists them all. Without an API key a built-in
demo provider answers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand → the process's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser(chosen=arguments[0] if arguments else None).parse_args(arguments)
    try:
        return args.run(args)
    except BadSetting as error:
        sys.stderr.write(f"natterlog: {error}\n")
        return BAD_SETTING
    except KeyboardInterrupt:
        return 130


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
