"""A database of an older version becomes what the log says today."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command

from services.store.database import Database
from services.store.migrations.upgrade import config
from services.store.search import search_messages
from shared.commands import SearchMessages
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work


def as_of_0003(connection: sa.Connection, applied: int, epoch: str) -> None:
    """Tables as version 0003 made them, with a row that is told otherwise today."""
    command.upgrade(config(connection), "0003")
    connection.exec_driver_sql("UPDATE projection SET applied = ?, epoch = ?", (applied, epoch))
    connection.exec_driver_sql(
        "INSERT INTO ai_chat_sessions (id, user_id, context_tags, mode, status, created_at,"
        " updated_at, on_busy, enable_tools, depth, waiting, last_seq) VALUES ('stale', 'u', '[]',"
        " 'general', 'active', '2026-01-01', '2026-01-01', 'queue', 0, 0, 0, 1)"
    )


async def test_an_older_database_equals_a_rebuild_after_its_migration(
    nats_server: NatsServer, tmp_path: Path
):
    async with store_at_work(nats_server, tmp_path) as before:
        session = await before.create()
        await before.reply(session, "Where is the cat?", "On the roof.")
        await before.file()
        user, today = before.user, await before.dump()
        applied, epoch = await before.settled(), before.store.archive.epoch
    drop_database(tmp_path)
    old = Database(tmp_path / "natterlog.db", durable=False)
    await old.write(as_of_0003, applied, epoch)
    await old.close()

    async with store_at_work(nats_server, tmp_path) as after:
        migrated = await after.dump()
        hits = await found(after, user)

    assert migrated == today
    assert hits == 1


def drop_database(directory: Path) -> None:
    for path in directory.glob("natterlog.db*"):
        path.unlink()


async def found(at_work: StoreAtWork, user: str) -> int:
    request = SearchMessages(user_id=user, query="cat")
    return (await at_work.store.session_log.read(search_messages, request)).total
