"""What users have outside any session, from its facts into rows (architecture.md, law 1).

A shelf is a table and the struct of its rows; :func:`project` says what a fact
does to the rows that it names.  Which rows those are, :func:`_named` says without
having read them, so that all of a batch can be read at once.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from services.store.rows import (
    ModelRow,
    PreferenceRow,
    PresetRow,
    TokenRow,
    UserRow,
    model_row,
    preference_row,
    preset_row,
    token_row,
    user_row,
)
from services.store.saving import upsert
from services.store.schema import models, preferences, presets, tokens, users
from shared.events import (
    LibraryFact,
    ModelPreferred,
    ModelsSynced,
    OfferedModel,
    PresetCreated,
    PresetDeleted,
    PresetUpdated,
    TokenCreated,
    TokenRevoked,
    UserCreated,
    UserDisabled,
    UserEnabled,
)
from shared.log_entry import LogEntry
from shared.subjects import parse


class ResourceKind(NamedTuple):
    """A kind of thing that is kept, each under its id."""

    table: sa.Table
    read: Callable[[sa.Row[Any]], Any]


PRESETS = ResourceKind(presets, preset_row)
MODELS = ResourceKind(models, model_row)
PREFERENCES = ResourceKind(preferences, preference_row)
USERS = ResourceKind(users, user_row)
TOKENS = ResourceKind(tokens, token_row)
SHELVES = (PRESETS, MODELS, PREFERENCES, USERS, TOKENS)
TABLES = tuple(shelf.table for shelf in SHELVES)


class Library:
    """The rows that some facts are about; None where a row was dropped."""

    def __init__(self) -> None:
        self.rows: dict[ResourceKind, dict[str, Any]] = {shelf: {} for shelf in SHELVES}


def project(library: Library, user: str, seq: int, fact: LibraryFact) -> None:
    """Change the rows that the fact is about."""
    del seq
    presets = library.rows[PRESETS]
    match fact:
        case UserCreated() | UserDisabled() | UserEnabled():
            _project_user(library.rows[USERS], user, fact)
        case TokenCreated() | TokenRevoked():
            _project_token(library.rows[TOKENS], user, fact)
        case PresetCreated():
            presets[fact.preset_id] = _new_preset(user, fact)
        case PresetUpdated():
            _change(presets.get(fact.preset_id), user, fact)
        case PresetDeleted():
            if (row := presets.get(fact.preset_id)) is not None and row.user_id == user:
                presets[fact.preset_id] = None
        case ModelPreferred():
            library.rows[PREFERENCES][user] = PreferenceRow(id=user, model=fact.model)
        case ModelsSynced():
            _sync(library, user, fact)


def load(connection: sa.Connection, links: list[LogEntry]) -> Library:
    """The rows that the facts are about, as they are before them."""
    library = Library()
    wanted: dict[ResourceKind, set[str]] = {}
    for link in links:
        if isinstance(link.fact, LibraryFact):
            for shelf, row_id in _named(parse(link.subject).user, link.fact):
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


def _named(user: str, fact: LibraryFact) -> Iterator[tuple[ResourceKind, str]]:
    match fact:
        case ModelPreferred():
            yield PREFERENCES, user
        case ModelsSynced():
            yield PREFERENCES, user
            for model in fact.models:
                yield MODELS, model.id
            for model_id in fact.removed:
                yield MODELS, model_id
        case UserCreated() | UserDisabled() | UserEnabled():
            yield USERS, user
        case TokenCreated() | TokenRevoked():
            yield TOKENS, fact.token_id
        case _:
            yield PRESETS, fact.preset_id


# -- users and tokens -----------------------------------------------------------------


def _project_user(
    rows: dict[str, UserRow], user: str, fact: UserCreated | UserDisabled | UserEnabled
) -> None:
    row = rows.get(user)
    if isinstance(fact, UserCreated):
        rows.setdefault(user, UserRow(id=user, name=fact.name, created_at=fact.at))
    elif row is not None:
        row.disabled_at = fact.at if isinstance(fact, UserDisabled) else None


def _project_token(rows: dict[str, TokenRow], user: str, fact: TokenCreated | TokenRevoked) -> None:
    row = rows.get(fact.token_id)
    if isinstance(fact, TokenCreated):
        rows[fact.token_id] = TokenRow(
            id=fact.token_id,
            user_id=user,
            sha256=fact.sha256,
            label=fact.label,
            created_at=fact.at,
            expires_at=fact.expires_at,
        )
    elif row is not None and row.user_id == user:
        row.revoked_at = row.revoked_at or fact.at


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


# -- models -----------------------------------------------------------------------


def _sync(library: Library, user: str, fact: ModelsSynced) -> None:
    known = library.rows[MODELS]
    for model in fact.models:
        known[model.id] = _offered(model, known.get(model.id), fact.at)
    for model_id in fact.removed:
        if (row := known.get(model_id)) is not None:
            row.is_available, row.updated_at = False, fact.at
    if fact.default is not msgspec.UNSET:
        library.rows[PREFERENCES][user] = PreferenceRow(id=user, model=fact.default)


def _offered(model: OfferedModel, before: ModelRow | None, at: datetime) -> ModelRow:
    return ModelRow(
        **msgspec.structs.asdict(model),
        id=model.id,
        is_available=True,
        created_at=at if before is None else before.created_at,
        updated_at=at,
    )
