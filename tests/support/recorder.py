"""The recorder's commands against a store at work, as the command line would run them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.cli.main import parser
from services.cli.recorder.recorded_log import RecordedLog, queries_to_store
from services.store.files import queries_to_files
from shared.settings import Settings
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work


@asynccontextmanager
async def served_store(server: NatsServer, data_dir: Path) -> AsyncIterator[StoreAtWork]:
    """A store that answers over the bus."""
    async with store_at_work(server, data_dir) as at_work:
        await at_work.bus.serve("store", at_work.store.endpoints())
        yield at_work


def log_of(at_work: StoreAtWork) -> RecordedLog:
    return RecordedLog(queries_to_store(at_work.bus), at_work.bus)


async def run(log: RecordedLog, *arguments: str) -> int:
    """Run a command of the recorder → its exit code."""
    args = parser(chosen=arguments[0]).parse_args(arguments)
    if "check_first" in args:
        args.check_first(args)
    return await args.command(args, log)


@asynccontextmanager
async def log_of_files(data_dir: Path) -> AsyncIterator[RecordedLog]:
    """What is read when nothing runs."""
    async with queries_to_files(Settings(data_dir=data_dir)) as ask:
        yield RecordedLog(ask, None)
