"""The command ``natterlog``: one subcommand a process, each imports only what it runs."""

import argparse
import asyncio
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from services.account_options import add_token_commands, add_user_commands
from shared.settings import BadSetting, Settings, read_settings

FAILED = 1
BAD_SETTING = 2

SERVICES = {
    "gateway": ("services.gateway.__main__", "serve all dialects over HTTP and WebSocket"),
    "llm-worker": ("services.llm_worker.__main__", "turn chat todos into streamed replies"),
    "processor": ("services.processor.__main__", "run file jobs and content pipelines"),
    "store": ("services.store.__main__", "archive the log, keep its projection, answer queries"),
}

RECORDER: dict[str, tuple[str, str]] = {
    # one line a command: its module, whose ``arguments(parser)`` sets ``command``, and what it does
    "runs": ("services.recorder.runs", "look at runs: list them, tell their story, follow them"),
    "sessions": ("services.recorder.sessions", "look at sessions and at what happened in them"),
    "export-log": ("services.recorder.carry_out", "write sessions to a file, redacted or whole"),
    "import-log": ("services.recorder.carry_in", "bring sessions from such a file into this log"),
    "dead": ("services.recorder.deadletters", "look at what could not be handled; put it back"),
    "replay": ("services.recorder.replay", "show the frames that a run's clients were sent"),
    "rerun": ("services.recorder.rerun", "run a reply once more, beside the old one, and compare"),
    "verify": ("services.recorder.verify", "hold today's code against recorded sessions"),
}

PLAYED = frozenset(("replay", "verify"))
"""Commands that are given the gateway's way of showing what was recorded."""

EPILOG = """\
Everything is configured by environment variables (NATTERLOG_PORT, NATTERLOG_DATA_DIR,
ANTHROPIC_API_KEY, …); docs/settings.md lists them all. Without an API key a built-in
demo provider answers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand → the process's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = parser(chosen=arguments[0] if arguments else None).parse_args(arguments)
    try:
        return asked.run(asked)
    except BadSetting as error:
        sys.stderr.write(f"natterlog: {error}\n")
        return BAD_SETTING
    except KeyboardInterrupt:
        return 130


def parser(*, chosen: str | None = None) -> argparse.ArgumentParser:
    """The command line, as ``--help`` shows it; of the recorder, the ``chosen`` command's whole."""
    top = argparse.ArgumentParser(
        prog="natterlog",
        description="The self-hosted chat back end whose replies survive anything.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True, title="commands")
    _add_up(commands.add_parser("up", help="run all of natterlog, with a nats-server of its own"))
    for name, (module, what) in SERVICES.items():
        service = commands.add_parser(name, help=what, description=f"Run one process: {what}.")
        service.set_defaults(run=_service, module=module)
    what = "drop the projection and replay the log into it"
    _add_rebuild(commands.add_parser("rebuild", help=what))
    for name, (module, what) in RECORDER.items():
        command = commands.add_parser(
            name, help=what, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.set_defaults(run=_recorder, command_name=name)
        if name == chosen:  # its arguments come with all that it imports
            importlib.import_module(module).arguments(command)
    _add_models(commands.add_parser("models", help="list the models on offer"))
    user = commands.add_parser("user", help="add, list, disable and enable users")
    add_user_commands(user)
    user.set_defaults(run=_accounts)
    token = commands.add_parser("token", help="create, list and revoke tokens")
    add_token_commands(token)
    token.set_defaults(run=_accounts)
    version = commands.add_parser("version", help="print natterlog's version")
    version.set_defaults(run=_version)
    return top


def _add_rebuild(rebuild: argparse.ArgumentParser) -> None:
    rebuild.description = (
        "Drop the database's projection and replay the log into it. The log itself, "
        "and thus every word, stays as it is. Works on the system that is running."
    )
    rebuild.add_argument(
        "--check",
        action="store_true",
        help="change nothing: replay the log into a second database, and name every difference; "
        "reads the store's files, while natterlog runs or not (exit code 1: there is one)",
    )
    rebuild.set_defaults(run=_rebuild)


def _add_models(models: argparse.ArgumentParser) -> None:
    models.description = (
        "List the models that the providers offer, and what each can do, as the "
        "system that is running knows it."
    )
    models.add_argument("--sync", action="store_true", help="ask the providers first")
    models.add_argument("--json", action="store_true", help="as JSON, with every field")
    models.set_defaults(run=_models)


def _add_up(up: argparse.ArgumentParser) -> None:
    up.description = (
        "Run all of natterlog on this machine: a nats-server (unless NATTERLOG_NATS_URL names "
        "one) and every service. What dies is started again; Ctrl-C stops all in order, "
        "and a second Ctrl-C at once. An option here goes before its environment variable."
    )
    up.add_argument("--host", help="address of the gateway (NATTERLOG_HOST, 127.0.0.1)")
    up.add_argument("--port", help="port of the gateway, 0: any free one (NATTERLOG_PORT, 8000)")
    up.add_argument("--data-dir", help="where everything is kept (NATTERLOG_DATA_DIR, ./data)")
    for option, what in (
        ("--gateways", "how many gateways share the port (1)"),
        ("--workers", "how many llm_workers (1)"),
        ("--processors", "how many processors (1)"),
    ):
        up.add_argument(option, type=_how_many, default=1, metavar="N", help=what)
    up.set_defaults(run=_up)


# -- subcommands, each with the imports that it needs --------------------------


def _up(asked: argparse.Namespace) -> int:
    from services import embedded_nats, running, supervisor

    environ = with_options(os.environ, host=asked.host, port=asked.port, data_dir=asked.data_dir)
    counts = supervisor.Counts(
        gateways=asked.gateways, workers=asked.workers, processors=asked.processors
    )
    try:
        return supervisor.up(read_settings(environ), environ, counts)
    except (
        embedded_nats.NatsServerUnusable,
        running.DataDirUnusable,
        supervisor.CannotListen,
    ) as error:
        sys.stderr.write(f"natterlog: {error}\n")
        return FAILED


def _service(asked: argparse.Namespace) -> int:
    from shared.bus import BusClosed

    settings = read_settings(os.environ)
    try:
        run_service(importlib.import_module(asked.module).main, settings)
    except BusClosed as error:  # the log has said so
        sys.stderr.write(f"natterlog: the connection to NATS is closed for good: {error}\n")
        return FAILED
    return 0


def _rebuild(asked: argparse.Namespace) -> int:
    from services.running import running_nats_url

    settings = read_settings(os.environ)
    if asked.check:
        check: Callable[[Settings], int] = importlib.import_module("services.store.check").main
        return check(settings)
    settings = msgspec.structs.replace(settings, nats_url=running_nats_url(settings))
    rebuild: Callable[[Settings], int] = importlib.import_module("services.store.rebuild").main
    return rebuild(settings)


def _recorder(asked: argparse.Namespace) -> int:
    from services.recorder.command import run
    from services.running import running_nats_url

    settings = read_settings(os.environ)
    settings = msgspec.structs.replace(settings, nats_url=running_nats_url(settings))
    files = importlib.import_module("services.store.files").asking_files
    if asked.command_name in PLAYED:
        asked.playback = importlib.import_module("services.gateway.playback").Playback
    return run(asked.command, asked, settings, files)


def _accounts(asked: argparse.Namespace) -> int:
    from services import accounts

    return accounts.run(asked, read_settings(os.environ))


def _models(asked: argparse.Namespace) -> int:
    from services import models
    from services.running import running_nats_url

    settings = read_settings(os.environ)
    settings = msgspec.structs.replace(settings, nats_url=running_nats_url(settings))
    return models.main(settings, sync=asked.sync, as_json=asked.json)


def _version(_: argparse.Namespace) -> int:
    sys.stdout.write(f"natterlog {importlib.metadata.version('natterlog')}\n")
    return 0


# -- steps ---------------------------------------------------------------------


def run_service(service: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    """Run a service's ``main`` on uvloop until it returns."""
    import uvloop

    async def run() -> None:
        await service(settings)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def with_options(environ: Mapping[str, str], **options: str | None) -> dict[str, str]:
    """The environment as options of the command line change it."""
    given = {f"NATTERLOG_{name.upper()}": text for name, text in options.items() if text}
    return {**environ, **given}


def _how_many(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text)):
        raise argparse.ArgumentTypeError(f"expected a number, 1 to 999, and not {text[:60]!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
