"""Models on a real log: noted once however many workers tell them, and chosen by users."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared import ids
from shared.bus import Bus
from shared.chain import read_chain
from shared.commands import (
    CreateJob,
    CreateSession,
    GetSession,
    ListModels,
    PreferModel,
    Rebuild,
    SyncModels,
    UpdateSession,
)
from shared.errors import InvalidRequest, ModelNotFound
from shared.events import ModelsSynced, OfferedModel
from shared.store_client import StoreClient
from shared.subjects import EVERYBODY, NONE
from tests.support.nats_server import NatsServer
from tests.support.plans import a_document
from tests.support.store_at_work import StoreAtWork, store_at_work

DEMO = OfferedModel(provider="demo", name="demo")
LLAMA = OfferedModel(provider="ollama", name="llama", size=5)


@pytest.fixture
async def store(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StoreAtWork]:
    async with store_at_work(nats_server, tmp_path) as made:
        await made.bus.serve("store", made.store.endpoints())
        yield made


def offer(*models: OfferedModel) -> SyncModels:
    return SyncModels(
        user_id=NONE,
        unavailable=[],
        models=list(models),
        default="demo/demo",
    )


async def facts(bus: Bus) -> list[ModelsSynced]:
    links = await read_chain(bus, EVERYBODY.session_facts)
    return [link.fact for link in links if isinstance(link.fact, ModelsSynced)]


async def model_of(store: StoreAtWork, session_id: str) -> str | None:
    query = GetSession(user_id=store.user, session_id=session_id)
    return (await StoreClient(store.bus).ask(query)).session.model


async def test_workers_that_start_at_once_write_one_fact(store: StoreAtWork):
    client = StoreClient(store.bus)

    answers = await asyncio.gather(*(client.ask(offer(DEMO, LLAMA)) for _ in range(8)))

    (fact,) = await facts(store.bus)
    assert fact.models == [DEMO, LLAMA]
    assert sorted(answer.added for answer in answers) == [[]] * 7 + [["demo/demo", "ollama/llama"]]


async def test_what_changed_nothing_is_no_fact(store: StoreAtWork):
    client = StoreClient(store.bus)
    await client.ask(offer(DEMO, LLAMA))

    await client.ask(offer(LLAMA, DEMO))
    gone = await client.ask(offer(DEMO))

    assert gone.removed == ["ollama/llama"]
    assert [(f.models, f.removed) for f in await facts(store.bus)] == [
        ([DEMO, LLAMA], []),
        ([], ["ollama/llama"]),
    ]


async def test_many_models_are_one_fact_that_is_packed(store: StoreAtWork):
    client = StoreClient(store.bus)
    many = [OfferedModel(provider="ollama", name=f"{n:04}{'x' * 250}") for n in range(1_500)]

    await client.ask(offer(DEMO, *many))
    listed = (await client.ask(ListModels(user_id=store.user))).items

    assert len(listed) == 1_501
    assert [f.models for f in await facts(store.bus)] == [[DEMO, *many]]


async def test_a_users_default_goes_into_what_is_opened_without_a_model(store: StoreAtWork):
    client = StoreClient(store.bus)
    await client.ask(offer(DEMO, LLAMA))
    before = await store.create()

    await client.ask(PreferModel(user_id=store.user, model="ollama/llama"))
    job = CreateJob(
        user_id=store.user,
        session_id=ids.new_id(),
        run_id=ids.new_id(),
        plan=a_document(),
        mode="document",
    )
    await client.start_run(job)
    chosen = [await store.create(), job.session_id, await store.create(model="demo")]
    stranger = CreateSession(user_id=ids.new_id(), session_id=ids.new_id())
    theirs = (await client.ask(stranger)).session.model

    assert await model_of(store, before) == "demo"
    assert [await model_of(store, session) for session in chosen] == [
        "ollama/llama",
        "ollama/llama",
        "demo",
    ]
    assert theirs == "demo"


async def test_a_session_whose_model_was_taken_away_follows_the_default(store: StoreAtWork):
    client = StoreClient(store.bus)
    await client.ask(offer(DEMO, LLAMA))
    session_id = await store.create()
    await client.ask(UpdateSession(user_id=store.user, session_id=session_id, model=None))
    run = (await store.send(session_id)).run

    before = (await store.context(run)).model
    await client.ask(PreferModel(user_id=store.user, model="ollama/llama"))
    after = (await store.context(run)).model

    assert (before, after) == (None, "ollama/llama")


async def test_only_a_model_on_offer_can_be_chosen(store: StoreAtWork):
    client = StoreClient(store.bus)
    await client.ask(offer(DEMO, LLAMA))
    await client.ask(offer(DEMO))

    with pytest.raises(InvalidRequest):
        await client.ask(PreferModel(user_id=store.user, model="ollama/llama"))
    with pytest.raises(ModelNotFound):
        await client.ask(PreferModel(user_id=store.user, model="ollama/nothing"))


async def test_a_choice_that_is_made_already_is_no_fact(store: StoreAtWork):
    client = StoreClient(store.bus)
    await client.ask(offer(DEMO, LLAMA))

    wish = PreferModel(user_id=store.user, model="ollama/llama")
    await asyncio.gather(*(client.ask(wish) for _ in range(5)))

    chain = await read_chain(store.bus, f"evt.{store.user}.{NONE}.>")
    assert len(chain) == 1


async def test_models_are_the_same_after_a_rebuild(store: StoreAtWork):
    client = StoreClient(store.bus)
    await client.ask(offer(DEMO, LLAMA))
    await client.ask(PreferModel(user_id=store.user, model="ollama/llama"))
    await client.ask(offer(DEMO))
    before = await store.dump()

    await client.ask(Rebuild(user_id=store.user))

    assert await store.dump() == before


async def test_a_replys_own_system_prompt_goes_before_the_sessions(store: StoreAtWork):
    session_id = await store.create(system_prompt="Be kind.")
    run = (await store.send(session_id, system="Be brief.")).run

    assert (await store.context(run)).system_prompt == "Be brief."
