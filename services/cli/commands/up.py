"""``natterlog up``: run all of natterlog on this machine."""

import argparse
import os
import sys
from collections.abc import Mapping

from services.cli.commands.arguments import count_up_to
from services.supervisor import embedded_nats, run_file, supervisor
from shared.settings import read_settings

FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run all of natterlog on this machine: a nats-server (unless NATTERLOG_NATS_URL names "
        "one) and every service. What dies is started again; Ctrl-C stops all in order, "
        "and a second Ctrl-C at once. An option here goes before its environment variable."
    )
    parser.add_argument("--host", help="address of the gateway (NATTERLOG_HOST, 127.0.0.1)")
    parser.add_argument(
        "--port", help="port of the gateway, 0: any free one (NATTERLOG_PORT, 8000)"
    )
    parser.add_argument("--data-dir", help="where everything is kept (NATTERLOG_DATA_DIR, ./data)")
    for option, help_text in (
        ("--gateways", "how many gateways share the port (1)"),
        ("--workers", "how many llm_workers (1)"),
        ("--processors", "how many processors (1)"),
    ):
        parser.add_argument(option, type=count_up_to(999), default=1, metavar="N", help=help_text)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    environ = with_options(os.environ, host=args.host, port=args.port, data_dir=args.data_dir)
    counts = supervisor.Counts(
        gateways=args.gateways, workers=args.workers, processors=args.processors
    )
    try:
        return supervisor.up(read_settings(environ), environ, counts)
    except (
        embedded_nats.NatsServerUnusable,
        run_file.DataDirUnusable,
        supervisor.CannotListen,
    ) as error:
        sys.stderr.write(f"natterlog: {error}\n")
        return FAILED


def with_options(environ: Mapping[str, str], **options: str | None) -> dict[str, str]:
    """The environment as options of the command line change it."""
    given = {f"NATTERLOG_{name.upper()}": text for name, text in options.items() if text}
    return {**environ, **given}
