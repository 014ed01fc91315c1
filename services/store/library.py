"""What users have outside any session, from its facts into rows (architecture.md, law 1).

A shelf is a table and the struct of its rows; :func:`project` says what a fact
does to the row that it names.  Which row that is, :func:`_shelf_and_id` says
without having read it, so that all of a batch can be read at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from services.store.rows import PresetRow, preset_row
from services.store.saving import upsert
from services.store.schema import presets
from shared.chain import Link
from shared.events import LibraryFact, PresetCreated, PresetDeleted, PresetUpdated


class Shelf(NamedTuple):
    """A kind of thing that is kept, each under its id."""

    table: sa.Table
    read: Callable[[sa.Row[Any]], Any]


PRESETS = Shelf(presets, preset_row)
SHELVES = (PRESETS,)
TABLES = tuple(shelf.table for shelf in SHELVES)


class Library:
    """The rows that some facts are about; None where a row was dropped."""

    def __init__(self) -> None:
        self.rows: dict[Shelf, dict[str, Any]] = {shelf: {} for shelf in SHELVES}


def project(library: Library, user: str, seq: int, fact: LibraryFact) -> None:
    """Change the row that the fact is about."""
    del seq
    presets = library.rows[PRESETS]
    match fact:
        case PresetCreated():
            presets[fact.preset_id] = _new_preset(user, fact)
        case PresetUpdated():
            _change(presets.get(fact.preset_id), user, fact)
        case PresetDeleted():
            if (row := presets.get(fact.preset_id)) is not None and row.user_id == user:
                presets[fact.preset_id] = None


def load(connection: sa.Connection, links: list[Link]) -> Library:
    """The rows that the facts are about, as they are before them."""
    library = Library()
    wanted: dict[Shelf, set[str]] = {}
    for link in links:
        if isinstance(link.fact, LibraryFact):
            shelf, row_id = _shelf_and_id(link.fact)
            wanted.setdefault(shelf, set()).add(row_id)
    for shelf, ids in wanted.items():
        found = sa.select(shelf.table).where(shelf.table.c.id.in_(ids))
        library.rows[shelf] = {row.id: shelf.read(row) for row in connection.execute(found)}
    return library


def save(connection: sa.Connection, library: Library) -> None:
    """Write the rows back, and drop those that are gone."""
    for shelf, rows in library.rows.items():
        gone = [row_id for row_id, row in rows.items() if row is None]
        if gone:
            connection.execute(shelf.table.delete().where(shelf.table.c.id.in_(gone)))
        upsert(connection, shelf.table, [row for row in rows.values() if row is not None])


def _shelf_and_id(fact: LibraryFact) -> tuple[Shelf, str]:
    return PRESETS, fact.preset_id


# -- presets ----------------------------------------------------------------------

PRESET_FIELDS = (
    *("name", "description", "system_prompt"),
    *("model", "temperature", "max_tokens", "is_public"),
)


def _new_preset(user: str, fact: PresetCreated) -> PresetRow:
    fields = {field: getattr(fact, field) for field in PRESET_FIELDS}
    return PresetRow(
        id=fact.preset_id, user_id=user, created_at=fact.at, updated_at=fact.at, **fields
    )


def _change(row: PresetRow | None, user: str, fact: PresetUpdated) -> None:
    if row is None or row.user_id != user:
        return  # deleted just before, or an id that two users chose
    row.updated_at = fact.at
    for field in PRESET_FIELDS:
        value = getattr(fact, field)
        if value is not msgspec.UNSET:
            setattr(row, field, value)
