"""``natterlog version``: print natterlog's version."""

import argparse
import importlib.metadata
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    sys.stdout.write(f"natterlog {importlib.metadata.version('natterlog')}\n")
    return 0
