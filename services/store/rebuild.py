"""Drop the projection and make it anew from the cold log.

One transaction: whoever reads meanwhile sees the old rows until the new ones
are complete.  What is newer than the cold log comes by the store's usual way.
"""

import asyncio
import sys

import msgspec

from services.store.applying import apply, clear
from services.store.archive import Archive, links
from services.store.database import Database, database_path
from services.store.migrate import migrate
from shared.bus import Bus, BusError
from shared.commands import Rebuild, Rebuilt
from shared.errors import NatterlogError
from shared.ids import LOCAL_USER
from shared.settings import Settings
from shared.subjects import store_command

_TIMEOUT = 3600.0


async def rebuild(archive: Archive, database: Database) -> Rebuilt:
    """Replay the cold log into empty tables."""
    count, seq = 0, 0
    upto = archive.archived  # beyond its last fact, when that was erased
    async with database.writing() as transaction:
        await transaction.run(clear)
        async for entries in archive.entries(0):
            seq = entries[-1].seq
            await transaction.run(apply, links(entries), seq)
            count += len(entries)
        seq = await transaction.run(apply, [], max(seq, upto))
    return Rebuilt(facts=count, seq=seq)


def main(settings: Settings) -> int:
    """``natterlog rebuild``: ask the store that runs, or do it on its files."""
    try:
        work = (
            _rebuild_running(settings.nats_url) if settings.nats_url else _rebuild_files(settings)
        )
        rebuilt = asyncio.run(work)
    except (NatterlogError, BusError, OSError) as error:
        sys.stderr.write(f"natterlog rebuild: {error}\n")
        return 1
    sys.stdout.write(f"Rebuilt from {rebuilt.facts} facts, up to {rebuilt.seq}.\n")
    return 0


async def _rebuild_running(url: str) -> Rebuilt:
    request = msgspec.json.encode(Rebuild(user_id=LOCAL_USER))
    async with Bus(url, name="rebuild") as bus:
        answer = await bus.ask(store_command(Rebuild.name), request, timeout=_TIMEOUT)
    return msgspec.json.decode(answer, type=Rebuilt)


async def _rebuild_files(settings: Settings) -> Rebuilt:
    archive = Archive(settings.data_dir / "log.db")
    database = Database(database_path(settings), durable=False)
    try:
        await archive.open()
        await migrate(database)
        return await rebuild(archive, database)
    finally:
        await archive.close()
        await database.close()
