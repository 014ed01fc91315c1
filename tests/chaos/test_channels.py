"""Chat front ends written from their own document, while one service after the other is killed.

What such a client shows is held against the log: each reply is there once, whole,
and of one attempt; no piece was lost, doubled or spliced on the way.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.support.channels_client import ChatClient
from tests.support.log_checks import check_run, wait_until_all_ended
from tests.support.running import Running, short_lease

CLIENTS = 4
PROMPT = "tokens=240 rate=60"
ENOUGH = 120
"""Characters after which a reply counts as being in its middle."""


@asynccontextmanager
async def clients_under_way(*urls: str, sessions: int = CLIENTS) -> AsyncIterator[list[ChatClient]]:
    """So many clients in sessions of their own, each reply past its beginning."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(ChatClient(*urls)) for _ in range(sessions)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(begin(client))
        yield clients


async def begin(client: ChatClient) -> None:
    await client.open(await client.create_session())
    await client.send(PROMPT)
    await client.until(lambda: len(client.streaming) > ENOUGH)


async def check_all(natterlog: Running, clients: list[ChatClient]) -> None:
    """Wait for every reply, and hold what is shown against the log."""
    for client in clients:
        await client.until(lambda client=client: client.replies())
    runs = await wait_until_all_ended(natterlog.bus)
    for run in runs.values():
        check_run(run)
        assert run.final.status == "completed"
    for client in clients:
        question, reply = client.messages.values()
        assert (question["role"], question["content"]) == ("user", PROMPT)
        assert reply["content"] in [run.final.text for run in runs.values()]
        assert (client.streaming, client.errors) == ("", [])


@short_lease
@pytest.mark.parametrize("service", ["llm-worker", "gateway", "store"])
async def test_a_killed_service_costs_a_chat_front_end_no_character(
    natterlog: Running, service: str
):
    async with clients_under_way(natterlog.system.url) as clients:
        process = natterlog.system.one(service)
        await process.kill()
        await process.start()

        await check_all(natterlog, clients)

        lost_line, lost_text = service == "gateway", service == "llm-worker"
        assert [client.connections > 1 for client in clients] == [lost_line] * CLIENTS
        assert [client.resets for client in clients] == [int(lost_text)] * CLIENTS


@short_lease
async def test_all_services_killed_one_after_the_other_in_one_reply(natterlog: Running):
    async with clients_under_way(natterlog.system.url) as clients:
        for service in ("gateway", "llm-worker", "store"):
            process = natterlog.system.one(service)
            await process.kill()
            await process.start()

        await check_all(natterlog, clients)


async def test_clients_of_one_session_at_two_gateways_see_the_same_when_one_is_killed(
    natterlog: Running,
):
    first = natterlog.system.one("gateway")
    other = await natterlog.system.start("gateway")
    async with (
        clients_under_way(first.url, other.url, sessions=1) as (moving,),
        ChatClient(other.url) as staying,
    ):
        await staying.open(moving.session_id)

        await first.kill()
        await moving.until(lambda: moving.connections > 1)
        await moving.send("tokens=20 rate=60")
        for client in (moving, staying):
            await client.until(lambda client=client: len(client.replies()) == 2)

        assert moving.messages == staying.messages
        assert moving.order[-2:] == staying.order[-2:]
        assert moving.resets == staying.resets == 0
