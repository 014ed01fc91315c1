"""Every subcommand of ``natterlog``, in the order in which ``--help`` lists them."""

from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand: its module in ``services.cli.commands``, and what it does.

    The module's ``add_arguments(parser)`` sets ``run``, a function of the parsed arguments
    that answers the exit code.
    """

    module: str
    help: str


SERVICES = {
    "gateway": Command("service", "serve all dialects over HTTP and WebSocket"),
    "llm-worker": Command("service", "turn chat todos into streamed replies"),
    "processor": Command("service", "run file jobs and content pipelines"),
    "store": Command("service", "archive the log, keep its projection, answer queries"),
}

RECORDER = {
    "runs": Command("runs", "look at runs: list them, tell their story, follow them"),
    "sessions": Command("sessions", "look at sessions and at what happened in them"),
    "export-log": Command("export_log", "write sessions to a file, redacted or whole"),
    "import-log": Command("import_log", "bring sessions from such a file into this log"),
    "dead": Command("dead", "look at what could not be handled; put it back"),
    "replay": Command("replay", "show the frames that a run's clients were sent"),
    "rerun": Command("rerun", "run a reply once more, beside the old one, and compare"),
    "verify": Command("verify", "hold today's code against recorded sessions"),
}
"""The commands of the flight recorder."""

COMMANDS = {
    "up": Command("up", "run all of natterlog, with a nats-server of its own"),
    **SERVICES,
    "rebuild": Command("rebuild", "drop the projection and replay the log into it"),
    **RECORDER,
    "models": Command("models", "list the models on offer"),
    "user": Command("user", "add, list, disable and enable users"),
    "token": Command("token", "create, list and revoke tokens"),
    "version": Command("version", "print natterlog's version"),
}
