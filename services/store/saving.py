"""Rows into a table, whether they are new or not."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert


def upsert(connection: sa.Connection, table: sa.Table, rows: Iterable[msgspec.Struct]) -> None:
    """Insert the rows, or change those that are there; a row has the table's columns."""
    values = [msgspec.structs.asdict(row) for row in rows]
    if values:
        connection.execute(_statement(table), values)


@cache
def _statement(table: sa.Table) -> Any:
    statement = insert(table)
    changing = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
    return statement.on_conflict_do_update(index_elements=[table.c.id], set_=changing)
