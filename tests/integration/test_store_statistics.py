"""What a user has and what it took, counted by a store on a real log."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared import ids
from shared.commands import (
    DeleteSession,
    GetStatistics,
    Rebuild,
    UpdateSession,
)
from shared.events import Usage
from shared.records import ModelStatistics, Statistics
from shared.store_client import StoreClient
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work

NOTHING = Statistics(
    sessions=0,
    active_sessions=0,
    messages=0,
    tokens_in=0,
    tokens_out=0,
    cost_usd=None,
    average_latency_ms=None,
    by_model=[],
)


@pytest.fixture
async def store(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StoreAtWork]:
    async with store_at_work(nats_server, tmp_path) as made:
        await made.bus.serve("store", made.store.endpoints())
        yield made


async def counted(store: StoreAtWork, user: str | None = None) -> Statistics:
    query = GetStatistics(user_id=user or store.user)
    return (await StoreClient(store.bus).ask(query)).statistics


async def reply(store: StoreAtWork, session: str, **final: Any) -> None:
    run = (await store.send(session)).run
    await store.claim(run)
    await store.end(run, **final)


async def test_nothing_is_counted_before_there_is_something(store: StoreAtWork):
    assert await counted(store) == NOTHING


async def test_sessions_messages_tokens_and_models_are_counted(store: StoreAtWork):
    one, two = await store.create(), await store.create()
    usage = Usage(
        input_tokens=10,
        output_tokens=7,
        cache_read_input_tokens=4,
        cache_creation_input_tokens=2,
    )
    await reply(store, one, model="big", latency_ms=100, usage=usage)
    await reply(store, one, model="big", latency_ms=201, usage=usage)
    await reply(store, two, model="small", latency_ms=400, usage=None)
    await reply(store, two, model="small", latency_ms=9, status="cancelled")
    await store.store.commands.update_session(
        UpdateSession(user_id=store.user, session_id=two, status="inactive")
    )

    assert await counted(store) == Statistics(
        sessions=2,
        active_sessions=1,
        messages=8,
        tokens_in=16 + 16 + 3,
        tokens_out=7 + 7 + 5,
        cost_usd=None,
        average_latency_ms=234,
        by_model=[
            ModelStatistics(
                model="big",
                replies=2,
                tokens_in=32,
                tokens_out=14,
                cost_usd=None,
                average_latency_ms=150,
            ),
            ModelStatistics(
                model="small",
                replies=2,
                tokens_in=3,
                tokens_out=5,
                cost_usd=None,
                average_latency_ms=400,
            ),
        ],
    )
    assert await counted(store, ids.new_id()) == NOTHING


async def test_what_has_a_price_is_added_up_and_what_has_none_is_never_free(store: StoreAtWork):
    session = await store.create()
    await reply(store, session, model="priced", cost=1_250_000_000)
    await reply(store, session, model="priced", cost=250_000_000)
    await reply(store, session, model="priced", cost=None)
    await reply(store, session, model="free", cost=0)
    await reply(store, session, model="unpriced", cost=None)

    found = await counted(store)

    assert found.cost_usd == 1.5
    assert [(of.model, of.cost_usd) for of in found.by_model] == [
        ("priced", 1.5),
        ("free", 0.0),
        ("unpriced", None),
    ]


async def test_what_a_deleted_or_hidden_session_took_stays_counted(store: StoreAtWork):
    deleted, hidden = await store.create(), await store.create(mode="adhoc")
    for session in (deleted, hidden):
        await reply(store, session, model="demo")

    request = DeleteSession(user_id=store.user, session_id=deleted)
    await store.store.commands.delete_session(request)

    found = await counted(store)
    assert (found.sessions, found.active_sessions, found.messages) == (0, 0, 0)
    assert (found.tokens_in, found.tokens_out) == (6, 10)
    assert [(of.model, of.replies) for of in found.by_model] == [("demo", 2)]


async def test_the_counts_are_the_same_after_a_rebuild(store: StoreAtWork):
    session = await store.create()
    for model in ("b", "a", "b", None):
        await reply(store, session, model=model, latency_ms=7)
    before = await counted(store)

    await StoreClient(store.bus).ask(Rebuild(user_id=store.user))

    assert await counted(store) == before
    assert [of.model for of in before.by_model] == ["b", None, "a"]
