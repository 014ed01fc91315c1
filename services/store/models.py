"""Models: what is noted of the providers' offers, and which one a session gets.

The workers tell what is on offer, several of them perhaps, and each at its start:
a fact is appended only when something changed.  The facts about models are a chain of
their own, a user's choice is on the user's.
"""

from collections import Counter

import msgspec
import sqlalchemy as sa

from services.store.applying import read_applied
from services.store.chains import Chains
from services.store.database import Database
from services.store.rows import ModelRow, model_row
from services.store.schema import models, preferences
from shared import ids
from shared.commands import Done, ListModels, ModelList, ModelsNoted, PreferModel, SyncModels
from shared.errors import InvalidRequest, ModelNotFound
from shared.events import ModelFact, ModelPreferred, ModelsSynced
from shared.subjects import EVERYBODY, NONE, user_address


class Models:
    """The commands on models."""

    def __init__(self, chains: Chains, database: Database) -> None:
        self._chains = chains
        self._database = database

    async def sync(self, request: SyncModels) -> ModelsNoted:
        noted = ModelsNoted(added=[], removed=[], seq=0)

        async def decide() -> ModelFact | None:
            nonlocal noted
            known, default = await self._database.read(_known)
            change, noted = compare(known, default, request)
            return change

        seq = await self._chains.append_outside(EVERYBODY, decide)
        return msgspec.structs.replace(noted, seq=seq)

    async def prefer(self, request: PreferModel) -> Done:
        async def decide() -> ModelFact | None:
            if request.model is not None:
                await self._database.read(_need_available, request.model)
            if await self._database.read(_preference, request.user_id) == request.model:
                return None
            return ModelPreferred(at=ids.now(), model=request.model)

        address = user_address(request.user_id)
        return Done(seq=await self._chains.append_outside(address, decide))


def compare(
    known: dict[str, ModelRow], default: str | None, request: SyncModels
) -> tuple[ModelsSynced | None, ModelsNoted]:
    """The change that an offer makes (None: there is none), and what came and went."""
    offered = {model.id: model for model in request.models}
    available = {row.id: row for row in known.values() if row.is_available}
    changed = [
        model
        for model in offered.values()
        if model.id not in available or available[model.id].offer() != model
    ]
    added = [model.id for model in changed if model.id not in available]
    removed = [
        row.id
        for row in available.values()
        if row.id not in offered and row.provider not in request.unavailable
    ]
    noted = ModelsNoted(added=added, removed=removed, seq=0)
    other_default = request.default is not None and request.default != default
    if not (changed or removed or other_default):
        return None, noted
    fact = ModelsSynced(
        at=ids.now(),
        models=changed,
        removed=removed,
        default=request.default if other_default and request.default else msgspec.UNSET,
    )
    return fact, noted


def offered_names(connection: sa.Connection) -> frozenset[str]:
    """Every name that means one model on offer, and no other."""
    offered = [row for row in _rows(connection) if row.is_available]
    ids = {name for row in offered for name in _short_too(row.id)}
    bare = Counter(name for row in offered for name in _short_too(row.name))
    providers = {row.provider for row in offered}
    clear = {n for n, count in bare.items() if count == 1 and n.partition("/")[0] not in providers}
    return frozenset(ids | clear)


def _short_too(name: str) -> set[str]:
    """Ollama's ``:latest`` goes without saying."""
    return {name, name.removesuffix(":latest")}


# -- queries ------------------------------------------------------------------------


def list_models(connection: sa.Connection, request: ListModels) -> ModelList:
    default = preferred_model(connection, request.user_id) or _preference(connection, NONE)
    return ModelList(
        items=[row.record(default) for row in _rows(connection)],
        seq=read_applied(connection),
    )


def preferred_model(connection: sa.Connection, user: str) -> str | None:
    """The model that the user chose for sessions that name none, while it is on offer."""
    return connection.execute(_PREFERRED, {"user": user}).scalar_one_or_none()


def _known(connection: sa.Connection) -> tuple[dict[str, ModelRow], str | None]:
    return {row.id: row for row in _rows(connection)}, _preference(connection, NONE)


def _rows(connection: sa.Connection) -> list[ModelRow]:
    return [model_row(row) for row in connection.execute(_EVERY_MODEL)]


def _preference(connection: sa.Connection, user: str) -> str | None:
    return connection.execute(_PREFERENCE, {"user": user}).scalar_one_or_none()


def _need_available(connection: sa.Connection, model: str) -> None:
    is_available = connection.execute(_AVAILABLE, {"id": model}).scalar_one_or_none()
    if is_available is None:
        raise ModelNotFound("There is no such model.")
    if not is_available:
        raise InvalidRequest("This model is not on offer any more.", path="$.is_default")


_EVERY_MODEL = sa.select(models).order_by(models.c.id)
_AVAILABLE = sa.select(models.c.is_available).where(models.c.id == sa.bindparam("id"))
_PREFERENCE = sa.select(preferences.c.model).where(preferences.c.id == sa.bindparam("user"))
_PREFERRED = (
    sa.select(models.c.id)
    .join(preferences, preferences.c.model == models.c.id)
    .where(preferences.c.id == sa.bindparam("user"), models.c.is_available)
)
