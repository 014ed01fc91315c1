"""``natterlog rebuild``: drop the projection and replay the log into it."""

import argparse
import os

from services.supervisor.run_file import of_running_system
from shared.settings import read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Drop the database's projection and replay the log into it. The log itself, "
        "and thus every word, stays as it is. Works on the system that is running."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing: replay the log into a second database, and name every difference; "
        "reads the store's files, while natterlog runs or not (exit code 1: there is one)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    # the store's own code, because it is done on the store's files where nothing runs
    if args.check:
        from services.store import check

        return check.main(settings)
    from services.store import rebuild

    return rebuild.main(of_running_system(settings))
