"""The tables, the migrations that made them, and where they lie."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from services.store import rows, schema
from services.store.database import Database, database_path
from services.store.migrate import migrate
from services.store.migrations.upgrade import config, upgrade
from shared.settings import BadSetting, Settings


def described(connection: sa.Connection) -> list[Any]:
    inspector = sa.inspect(connection)
    return [
        (
            name,
            [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)],
            inspector.get_pk_constraint(name)["constrained_columns"],
            sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(name)),
        )
        for name in sorted(inspector.get_table_names())
        if name != "alembic_version"
    ]


async def test_new_tables_are_what_the_migrations_make(tmp_path: Path):
    new, migrated = (Database(tmp_path / name, durable=False) for name in ("new.db", "old.db"))

    await migrate(new)
    await migrated.write(upgrade)

    assert await new.read(described) == await migrated.read(described)
    query = sa.text("SELECT version_num FROM alembic_version")
    versions = [await d.read(lambda c: c.execute(query).scalar()) for d in (new, migrated)]
    assert versions == [schema.VERSION] * 2
    heads = ScriptDirectory.from_config(await new.read(config)).get_heads()
    assert heads == [schema.VERSION]
    await asyncio.gather(new.close(), migrated.close())


async def test_tables_of_another_version_are_migrated(tmp_path: Path):
    database = Database(tmp_path / "old.db", durable=False)
    create = sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    await database.write(lambda c: c.execute(create))

    await migrate(database)

    assert await database.read(lambda c: sa.inspect(c).has_table("runs"))
    await database.close()


async def test_rows_that_know_less_of_a_turn_are_made_anew(tmp_path: Path):
    database = Database(tmp_path / "old.db", durable=False)
    await database.write(upgrade, "0003")
    await database.write(lambda c: c.execute(schema.projection.update().values(applied=7)))
    statement = "INSERT INTO presets VALUES ('p', 'u', 'Old', '', '', '', 0, 0, 0, '', '')"
    await database.write(lambda c: c.execute(sa.text(statement)))

    await migrate(database)

    count = sa.select(sa.func.count()).select_from(schema.presets)
    assert await database.read(lambda c: c.execute(count).scalar()) == 0
    assert (
        await database.read(lambda c: c.execute(sa.select(schema.projection.c.applied)).scalar())
        == 0
    )
    await database.close()


async def test_rows_that_know_no_endings_are_made_anew_with_their_words(tmp_path: Path):
    database = Database(tmp_path / "old.db", durable=False)
    await database.write(upgrade, "0007")
    for statement in (
        "UPDATE projection SET applied = 7",
        "INSERT INTO words(rowid, text, message_id) VALUES (1, 'once upon', 'm')",
        "INSERT INTO attachments VALUES ('f', 'm', 's')",
    ):
        await database.write(lambda c, statement=statement: c.execute(sa.text(statement)))

    await migrate(database)

    queries = ("SELECT count(*) FROM words", "SELECT count(*) FROM attachments")
    left = [await database.read(lambda c, q=q: c.execute(sa.text(q)).scalar()) for q in queries]
    assert left == [0, 0]
    applied = sa.text("SELECT applied FROM projection")
    assert await database.read(lambda c: c.execute(applied).scalar()) == 0
    await database.close()


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (schema.sessions, rows.SessionRow),
        (schema.messages, rows.MessageRow),
        (schema.runs, rows.RunRow),
        (schema.usage_log, rows.UsageRow),
        (schema.models, rows.ModelRow),
        (schema.preferences, rows.PreferenceRow),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_row_has_the_columns_of_its_table(table: sa.Table, row: type[msgspec.Struct]):
    assert sorted(c.name for c in table.c) == sorted(row.__struct_fields__)


def test_the_tables_lie_in_the_data_directory_unless_a_url_says_otherwise(tmp_path: Path):
    default = Settings(data_dir=tmp_path)
    elsewhere = Settings(data_dir=tmp_path, database_url="sqlite+aiosqlite:////srv/n.db")

    assert database_path(default) == tmp_path / "natterlog.db"
    assert database_path(elsewhere) == Path("/srv/n.db")


@pytest.mark.parametrize("url", ["postgresql+asyncpg://localhost/n", "sqlite://", "nonsense"])
def test_another_database_is_refused_by_the_name_of_its_variable(url: str):
    with pytest.raises(BadSetting, match="NATTERLOG_DATABASE_URL"):
        database_path(Settings(database_url=url))
