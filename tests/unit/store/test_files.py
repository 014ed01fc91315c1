"""The store's files, written and read in place."""

import os
from pathlib import Path

from sqlalchemy import text

from services.store.database import Database
from services.store.files import reading


async def test_a_directory_of_any_name_holds_the_stores_files(tmp_path: Path):
    directory = tmp_path / 'what? 50% #1 "ä"&mode=memory'
    database = Database(directory / "log.db", durable=False)

    await database.write(lambda connection: connection.execute(text("CREATE TABLE here (it INT)")))
    await database.close()
    with reading(directory / "log.db").connect() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()

    assert tables == ["here"]
    assert os.listdir(tmp_path) == [directory.name]
