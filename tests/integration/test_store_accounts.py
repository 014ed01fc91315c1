"""Users and tokens on a real log: each name and each credential once, the same after a rebuild."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared import ids
from shared.bus import Bus
from shared.commands import CheckToken, Holder, Rebuild
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.operating import (
    CreateToken,
    CreateUser,
    EnableUser,
    ListTokens,
    ListUsers,
    Operator,
    RevokeToken,
    TokenAnswer,
    UserAnswer,
)
from shared.store_client import StoreClient
from tests.support.nats_server import NatsServer
from tests.support.store_at_work import StoreAtWork, store_at_work


@pytest.fixture
async def store(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StoreAtWork]:
    async with store_at_work(nats_server, tmp_path) as made:
        await made.bus.serve("store", made.store.endpoints())
        yield made


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def add(operator: Operator, user: str) -> UserAnswer:
    return await operator.ask(CreateUser(account_id=ids.new_id(), user=user))


async def token(operator: Operator, user: str, value: str, **fields: Any) -> TokenAnswer:
    wish = CreateToken(user=user, token_id=ids.new_id(), sha256=digest(value), **fields)
    return await operator.ask(wish)


async def holder(bus: Bus, value: str) -> Holder | None:
    check = CheckToken(user_id=ids.LOCAL_USER, sha256=digest(value))
    return (await StoreClient(bus).ask(check)).holder


async def test_of_many_who_want_a_name_one_gets_it(store: StoreAtWork):
    operator = Operator(store.bus)

    answers = await asyncio.gather(
        *(add(operator, "alice") for _ in range(8)), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(refused) == 7
    assert [user.name for user in (await operator.ask(ListUsers())).items] == ["alice"]


async def test_two_stores_give_a_name_once(
    store: StoreAtWork, nats_server: NatsServer, tmp_path: Path
):
    wishes = [CreateUser(account_id=ids.new_id(), user="alice") for _ in range(6)]
    async with store_at_work(nats_server, tmp_path / "other") as other:
        create = [store.store.accounts.create_user, other.store.accounts.create_user] * 3

        answers = await asyncio.gather(
            *(do(wish) for do, wish in zip(create, wishes, strict=True)), return_exceptions=True
        )

    winners = [answer for answer in answers if isinstance(answer, UserAnswer)]
    assert len(winners) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 5


async def test_an_operation_that_is_asked_twice_is_done_once(store: StoreAtWork):
    operator = Operator(store.bus)
    user = CreateUser(account_id=ids.new_id(), user="alice")
    made = CreateToken(user="alice", token_id=ids.new_id(), sha256=digest("t"))

    users = [(await operator.ask(user)).user for _ in range(2)]
    tokens = [(await operator.ask(made)).token for _ in range(2)]

    assert users == [users[0]] * 2
    assert tokens == (await operator.ask(ListTokens())).items * 2


async def test_a_token_stands_for_its_user_until_it_is_revoked(store: StoreAtWork):
    operator = Operator(store.bus)
    alice = (await add(operator, "alice")).user
    expires = ids.now() + timedelta(days=1)
    made = (await token(operator, "alice", "t", label="laptop", expires_at=expires)).token
    known = Holder(user_id=alice.id, token_id=made.id, sha256=digest("t"), expires_at=expires)

    before = await holder(store.bus, "t")
    await operator.ask(EnableUser(user="alice", enabled=False))
    disabled = await holder(store.bus, "t")
    await operator.ask(EnableUser(user="alice", enabled=True))
    enabled = await holder(store.bus, "t")
    await operator.ask(RevokeToken(token_id=made.id))
    revoked = await holder(store.bus, "t")

    assert [before, disabled, enabled, revoked] == [known, None, known, None]


async def test_the_local_user_is_there_before_anybody_is_added(store: StoreAtWork):
    operator = Operator(store.bus)

    await token(operator, "local", "t")

    found = await holder(store.bus, "t")
    assert found is not None
    assert found.user_id == ids.LOCAL_USER
    assert (await add(operator, "local")).user.id == ids.LOCAL_USER


async def test_what_makes_no_sense_is_refused_and_nothing_is_stored(store: StoreAtWork):
    operator = Operator(store.bus)
    await add(operator, "alice")
    await add(operator, "bob")
    await token(operator, "alice", "t")

    for wish, refusal in (
        (token(operator, "nobody", "u"), NotFound),
        (token(operator, "bob", "t"), Conflict),
        (token(operator, "bob", "u", label="x" * 201), InvalidRequest),
        (operator.ask(RevokeToken(token_id="no-id")), NotFound),
        (operator.ask(EnableUser(user="nobody", enabled=False)), NotFound),
        (operator.ask(ListTokens(user="nobody")), NotFound),
        (add(operator, "a b"), InvalidRequest),
        (add(operator, ""), InvalidRequest),
        (add(operator, "*.>"), InvalidRequest),
    ):
        with pytest.raises(refusal):
            await wish

    assert len((await operator.ask(ListTokens())).items) == 1
    assert [user.name for user in (await operator.ask(ListUsers())).items] == ["alice", "bob"]


async def test_accounts_are_the_same_after_a_rebuild(store: StoreAtWork):
    operator = Operator(store.bus)
    await add(operator, "alice")
    await add(operator, "bob")
    first = (await token(operator, "alice", "t", label="laptop")).token
    await token(operator, "bob", "u")
    await operator.ask(RevokeToken(token_id=first.id))
    await operator.ask(EnableUser(user="bob", enabled=False))
    before = await store.dump()

    await StoreClient(store.bus).ask(Rebuild(user_id=ids.LOCAL_USER))

    assert await store.dump() == before
    assert len(before["users"]) == len(before["tokens"]) == 2
