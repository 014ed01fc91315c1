"""What users have outside any session, from its facts into rows (architecture.md, law 1).

A resource kind is a table and the struct of its rows; :func:`project` says what a fact
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
    Fact,
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


class ResourceKind(NamedTuple):
    """A kind of thing that is kept, each under its id."""

    table: sa.Table
    read: Callable[[sa.Row[Any]], Any]


PRESETS = ResourceKind(presets, preset_row)
MODELS = ResourceKind(models, model_row)
PREFERENCES = ResourceKind(preferences, preference_row)
USERS = ResourceKind(users, user_row)
TOKENS = ResourceKind(tokens, token_row)
KINDS = (PRESETS, MODELS, PREFERENCES, USERS, TOKENS)
TABLES = tuple(kind.table for kind in KINDS)


class Library:
    """The rows that some facts are about; None where a row was dropped."""

    def __init__(self) -> None:
        self.rows: dict[ResourceKind, dict[str, Any]] = {kind: {} for kind in KINDS}


def project(library: Library, user: str, fact: LibraryFact) -> None:
    """Change the rows that the fact is about."""
    PROJECTORS[type(fact)](library, user, fact)


def load(connection: sa.Connection, entries: list[LogEntry]) -> Library:
    """The rows that the facts are about, as they are before them."""
    library = Library()
    wanted: dict[ResourceKind, set[str]] = {}
    for entry in entries:
        if isinstance(entry.fact, LibraryFact):
            for kind, row_id in _named(entry.address.user, entry.fact):
                wanted.setdefault(kind, set()).add(row_id)
    for kind, ids in wanted.items():
        found = sa.select(kind.table).where(kind.table.c.id.in_(ids))
        library.rows[kind] = {row.id: kind.read(row) for row in connection.execute(found)}
    return library


def save(connection: sa.Connection, library: Library) -> None:
    """Write the rows back, and drop those that are gone."""
    for kind, rows in library.rows.items():
        gone = [row_id for row_id, row in rows.items() if row is None]
        if gone:
            connection.execute(kind.table.delete().where(kind.table.c.id.in_(gone)))
        upsert(connection, kind.table, [row for row in rows.values() if row is not None])


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


def _create_user(library: Library, user: str, fact: UserCreated) -> None:
    row = UserRow(id=user, name=fact.name, created_at=fact.at)
    library.rows[USERS].setdefault(user, row)


def _enable_user(library: Library, user: str, fact: UserEnabled | UserDisabled) -> None:
    row: UserRow | None = library.rows[USERS].get(user)
    if row is not None:
        row.disabled_at = fact.at if isinstance(fact, UserDisabled) else None


def _create_token(library: Library, user: str, fact: TokenCreated) -> None:
    library.rows[TOKENS][fact.token_id] = TokenRow(
        id=fact.token_id,
        user_id=user,
        sha256=fact.sha256,
        label=fact.label,
        created_at=fact.at,
        expires_at=fact.expires_at,
    )


def _revoke_token(library: Library, user: str, fact: TokenRevoked) -> None:
    row: TokenRow | None = library.rows[TOKENS].get(fact.token_id)
    if row is not None and row.user_id == user:
        row.revoked_at = row.revoked_at or fact.at


# -- presets ----------------------------------------------------------------------

PRESET_FIELDS = (
    *("name", "description", "system_prompt"),
    *("model", "temperature", "max_tokens", "is_public"),
)


def _create_preset(library: Library, user: str, fact: PresetCreated) -> None:
    fields = {field: getattr(fact, field) for field in PRESET_FIELDS}
    library.rows[PRESETS][fact.preset_id] = PresetRow(
        id=fact.preset_id, user_id=user, created_at=fact.at, updated_at=fact.at, **fields
    )


def _update_preset(library: Library, user: str, fact: PresetUpdated) -> None:
    row: PresetRow | None = library.rows[PRESETS].get(fact.preset_id)
    if row is None or row.user_id != user:
        return  # deleted just before, or an id that two users chose
    row.updated_at = fact.at
    for field in PRESET_FIELDS:
        value = getattr(fact, field)
        if value is not msgspec.UNSET:
            setattr(row, field, value)


def _delete_preset(library: Library, user: str, fact: PresetDeleted) -> None:
    row: PresetRow | None = library.rows[PRESETS].get(fact.preset_id)
    if row is not None and row.user_id == user:
        library.rows[PRESETS][fact.preset_id] = None


# -- models -----------------------------------------------------------------------


def _prefer_model(library: Library, user: str, fact: ModelPreferred) -> None:
    library.rows[PREFERENCES][user] = PreferenceRow(id=user, model=fact.model)


def _sync_models(library: Library, user: str, fact: ModelsSynced) -> None:
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


PROJECTORS: dict[type[Fact], Callable[[Library, str, Any], None]] = {
    UserCreated: _create_user,
    UserDisabled: _enable_user,
    UserEnabled: _enable_user,
    TokenCreated: _create_token,
    TokenRevoked: _revoke_token,
    PresetCreated: _create_preset,
    PresetUpdated: _update_preset,
    PresetDeleted: _delete_preset,
    ModelPreferred: _prefer_model,
    ModelsSynced: _sync_models,
}
"""What each fact outside sessions does to the rows of its user's."""
