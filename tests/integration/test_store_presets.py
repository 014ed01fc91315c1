"""Presets on a real log: made once, changed by their owner, the same after a rebuild."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared import ids
from shared.commands import (
    CreatePreset,
    DeletePreset,
    ListPresets,
    Rebuild,
    UpdatePreset,
)
from shared.errors import Conflict, Forbidden, NotFound
from shared.store_client import StoreClient
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work


@pytest.fixture
async def store(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StoreAtWork]:
    async with store_at_work(nats_server, tmp_path) as made:
        await made.bus.serve("store", made.store.endpoints())
        yield made


async def test_a_preset_that_is_made_twice_is_there_once(store: StoreAtWork):
    client = StoreClient(store.bus)
    wish = CreatePreset(user_id=store.user, preset_id=ids.new_id(), title="Editor")

    answers = await asyncio.gather(*(client.ask(wish) for _ in range(5)))

    page = await client.ask(ListPresets(user_id=store.user))
    assert [answer.preset for answer in answers] == page.items * 5


async def test_many_changes_at_once_all_count(store: StoreAtWork):
    client = StoreClient(store.bus)
    preset_id = ids.new_id()
    await client.ask(CreatePreset(user_id=store.user, preset_id=preset_id, title="Editor"))

    changes: list[dict[str, Any]]
    changes = [{"title": "Poet"}, {"temperature": 1.5}, {"is_public": True}, {"model": "demo"}]
    changed = [
        client.ask(UpdatePreset(user_id=store.user, preset_id=preset_id, **change))
        for change in changes
    ]
    await asyncio.gather(*changed)

    preset = (await client.ask(ListPresets(user_id=store.user))).items[0]
    assert (preset.name, preset.temperature, preset.is_public, preset.model) == (
        *("Poet", 1.5, True, "demo"),
    )


async def test_a_shared_preset_is_changed_by_its_owner_only(store: StoreAtWork):
    client, other = StoreClient(store.bus), ids.new_id()
    shared, private = ids.new_id(), ids.new_id()
    await client.ask(
        CreatePreset(user_id=store.user, preset_id=shared, title="Shared", is_public=True)
    )
    await client.ask(CreatePreset(user_id=store.user, preset_id=private, title="Private"))

    for preset_id, refusal in ((shared, Forbidden), (private, NotFound)):
        with pytest.raises(refusal):
            await client.ask(UpdatePreset(user_id=other, preset_id=preset_id, title="Mine"))
        with pytest.raises(refusal):
            await client.ask(DeletePreset(user_id=other, preset_id=preset_id))
    with pytest.raises(Conflict):
        await client.ask(CreatePreset(user_id=other, preset_id=private, title="Mine"))


async def test_presets_are_the_same_after_a_rebuild(store: StoreAtWork):
    client = StoreClient(store.bus)
    for title in ("Editor", "Poet", "Gone"):
        made = await client.ask(
            CreatePreset(user_id=store.user, preset_id=ids.new_id(), title=title)
        )
    await client.ask(DeletePreset(user_id=store.user, preset_id=made.preset.id))
    before = (await client.ask(ListPresets(user_id=store.user))).items

    await client.ask(Rebuild(user_id=store.user))

    assert (await client.ask(ListPresets(user_id=store.user))).items == before
    assert [preset.name for preset in before] == ["Editor", "Poet"]
