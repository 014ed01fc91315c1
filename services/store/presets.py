"""Presets: what is decided when one is made, changed or forgotten, and what is answered."""

from typing import Any

import msgspec
import sqlalchemy as sa

from services.store.applying import read_applied
from services.store.chains import Chains, Decide
from services.store.database import Database
from services.store.model_names import ModelNames
from services.store.queries import MAX_PAGE, not_found
from services.store.resources import PRESET_FIELDS
from services.store.rows import PresetRow, preset_row
from services.store.schema import presets
from shared import ids
from shared.commands import (
    CreatePreset,
    DeletePreset,
    Done,
    GetPreset,
    ListPresets,
    PresetAnswer,
    PresetPage,
    UpdatePreset,
)
from shared.errors import Conflict, Forbidden, InvalidRequest
from shared.events import PresetCreated, PresetDeleted, PresetFact, PresetUpdated
from shared.records import Preset
from shared.subjects import user_address


class Presets:
    """The commands on presets; each user's are a chain of their own."""

    def __init__(self, chains: Chains, database: Database, model_names: ModelNames) -> None:
        self._chains = chains
        self._database = database
        self._model_names = model_names

    async def create(self, request: CreatePreset) -> PresetAnswer:
        if not ids.is_id(request.preset_id):
            raise InvalidRequest("preset_id must be a UUID.", path="$.preset_id")
        await self._model_names.check(request.model)

        async def decide() -> PresetFact | None:
            known = await self._database.read(_find, request.preset_id)
            if known is not None and known.user_id != request.user_id:
                raise Conflict("This preset id is taken; please choose another.")
            fields = _fields(request)
            made = PresetCreated(at=ids.now(), preset_id=request.preset_id, **fields)
            return None if known else made

        return await self._decided(request, decide)

    async def update(self, request: UpdatePreset) -> PresetAnswer:
        async def decide() -> PresetFact | None:
            preset = await self._own(request)
            if isinstance(request.model, str) and request.model != preset.model:
                await self._model_names.check(request.model)
            changes = {f: v for f, v in _fields(request).items() if v is not msgspec.UNSET}
            change = PresetUpdated(at=ids.now(), preset_id=request.preset_id, **changes)
            return change if changes else None

        return await self._decided(request, decide)

    async def delete(self, request: DeletePreset) -> Done:
        async def decide() -> PresetFact | None:
            await self._own(request)
            return PresetDeleted(at=ids.now(), preset_id=request.preset_id)

        return Done(seq=await self._append(request.user_id, decide))

    async def _decided(self, request: CreatePreset | UpdatePreset, decide: Decide) -> PresetAnswer:
        await self._append(request.user_id, decide)
        again = GetPreset(user_id=request.user_id, preset_id=request.preset_id)
        return await self._database.read(get_preset, again)

    async def _append(self, user: str, decide: Decide) -> int:
        return await self._chains.append_outside(user_address(user), decide)

    async def _own(self, request: UpdatePreset | DeletePreset) -> Preset:
        """The preset, which is there and the user's own.

        Raises:
            NotFound: there is none that the user sees.
            Forbidden: it is shared by somebody else.
        """
        seen = GetPreset(user_id=request.user_id, preset_id=request.preset_id)
        answer = await self._database.read(get_preset, seen)
        if answer.preset.owner != request.user_id:
            raise Forbidden("Only its owner may change a shared preset.")
        return answer.preset


def _fields(request: CreatePreset | UpdatePreset) -> dict[str, Any]:
    """The preset's own fields; a request has a name already, so there the preset's is a title."""
    names = {"name": "title"}
    return {field: getattr(request, names.get(field, field)) for field in PRESET_FIELDS}


# -- queries ------------------------------------------------------------------------


def get_preset(connection: sa.Connection, request: GetPreset) -> PresetAnswer:
    row = _find(connection, request.preset_id)
    if row is None or (row.user_id != request.user_id and not row.is_public):
        raise not_found("preset")
    return PresetAnswer(preset=row.record(), seq=read_applied(connection))


def list_presets(connection: sa.Connection, request: ListPresets) -> PresetPage:
    if request.limit < 0 or request.offset < 0:
        raise InvalidRequest("A page cannot begin before the start, nor have less than nothing.")
    seen = (presets.c.user_id == request.user_id) | presets.c.is_public
    page = sa.select(presets).where(seen).order_by(presets.c.name, presets.c.id)
    page = page.limit(min(request.limit, MAX_PAGE)).offset(request.offset)
    total = sa.select(sa.func.count()).select_from(presets).where(seen)
    return PresetPage(
        items=[preset_row(row).record() for row in connection.execute(page)],
        total=connection.execute(total).scalar_one(),
        seq=read_applied(connection),
    )


def _find(connection: sa.Connection, preset_id: str) -> PresetRow | None:
    row = connection.execute(_PRESET, {"id": preset_id}).one_or_none()
    return None if row is None else preset_row(row)


_PRESET = sa.select(presets).where(presets.c.id == sa.bindparam("id"))
