"""A conversation's life through real processes: other models, other branches, costs, copies."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.native_client import events_of
from tests.support.running import Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEADLINE = 60
PRICED = "claude-haiku-5-5"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    """Two providers besides the demo, both at the fake: an OpenAI-compatible one and Anthropic."""
    async with running_system(ANTHROPIC_API_KEY="fake") as running:
        gateway, worker = running.system.one("gateway"), running.system.one("llm-worker")
        await worker.stop()
        await running.system.start("llm-worker", ANTHROPIC_BASE_URL=running.fake.url)
        assert gateway.running
        yield running


def models_and_roles(natterlog: Running) -> list[tuple[str, list[str]]]:
    """The model of each prompt, and what was said in it by whom."""
    return [
        (seen.body["model"], [m["role"] for m in seen.body["messages"]])
        for seen in natterlog.fake.seen
    ]


async def test_another_model_goes_on_with_the_same_conversation(natterlog: Running):
    client = natterlog.client
    session_id = await client.session(model="openai/fake-gpt")

    async with asyncio.timeout(DEADLINE):
        first = await client.send(session_id, "one tokens=5")
        await client.send(session_id, "two tokens=5", model=f"anthropic/{PRICED}")
        await client.send(session_id, "three tokens=5")
        await client.call("PATCH", f"/sessions/{session_id}", json={"model": PRICED})
        await client.send(session_id, "four tokens=5")

    turn = ["user", "assistant"]
    assert models_and_roles(natterlog) == [
        ("fake-gpt", ["user"]),
        (PRICED, [*turn, "user"]),
        ("fake-gpt", [*turn * 2, "user"]),
        (PRICED, [*turn * 3, "user"]),
    ]
    assert natterlog.fake.seen[-1].body["messages"][1]["content"] == first.text
    _, page = await client.call("GET", f"/messages/{session_id}")
    assert [m["model"] for m in page["items"] if m["role"] == "assistant"] == [
        "fake-gpt",
        PRICED,
        "fake-gpt",
        PRICED,
    ]
    assert (await client.call("GET", f"/sessions/{session_id}"))[1]["title"] == "one tokens=5"


async def test_what_a_reply_costs_is_in_the_log_and_in_the_sums(natterlog: Running):
    client = natterlog.client
    session_id = await client.session()
    async with asyncio.timeout(DEADLINE):
        await client.send(session_id, "priced tokens=5", model=PRICED)
        await client.send(session_id, "unpriced tokens=5", model="openai/fake-gpt")

    async with client.http.get(client.url(f"/sessions/{session_id}/events")) as answer:
        facts = [json.loads(line) for line in (await answer.text()).splitlines()]
    _, usage = await client.call("GET", "/usage?group_by=session")

    priced, unpriced = (f["fact"]["cost"] for f in facts if f["type"] == "final")
    (mine,) = [g for g in usage["items"] if g["session_id"] == session_id]
    assert priced > 0
    assert unpriced is None
    assert mine["cost_usd"] == priced / 1e9
    assert (mine["calls"], mine["unpriced_calls"]) == (2, 1)
    assert mine["unpriced_tokens"] > 0


async def test_an_edit_is_streamed_and_the_old_branch_comes_back(natterlog: Running):
    client = natterlog.client
    session_id = await client.session()
    async with asyncio.timeout(DEADLINE):
        old = await client.send(session_id, "the old way tokens=5")
        question = old.events[0]["user_message"]["id"]
        events = [event async for event in edited(natterlog, question, "the new way tokens=5")]
        _, new = await client.call("GET", f"/messages/{session_id}")
        await client.call("PUT", f"/sessions/{session_id}/active", json={"message_id": question})
        _, again = await client.call("GET", f"/messages/{session_id}")

    assert [events[0], events[-1]] == ["message_start", "message_complete"]
    assert new["items"][0]["content"] == "the new way tokens=5"
    assert [m["content"] for m in again["items"]] == ["the old way tokens=5", old.text]
    assert natterlog.fake.seen[-1].body["messages"][-1]["content"] == "the new way tokens=5"


async def edited(natterlog: Running, message_id: str, content: str) -> AsyncIterator[str]:
    url = natterlog.client.url(f"/messages/{message_id}/edit?stream=true")
    async with natterlog.client.http.post(url, json={"content": content}) as answer:
        async for event, _ in events_of(answer):
            yield event["type"]


async def test_a_copy_of_a_conversation_goes_on_where_it_was(natterlog: Running):
    client = natterlog.client
    session_id = await client.session()
    async with asyncio.timeout(DEADLINE):
        reply = await client.send(session_id, "remember the zeppelin tokens=5")
        async with client.http.get(
            client.url(f"/sessions/{session_id}/export?format=json")
        ) as answer:
            exported = await answer.read()
        await client.call("DELETE", f"/sessions/{session_id}")
        _, copy = await client.call("POST", "/sessions/import", data=exported)
        await client.send(copy["id"], "and now? tokens=5")
        _, hits = await client.call("GET", "/search?q=zeppelin")
        async with client.http.get(
            client.url(f"/sessions/{copy['id']}/export?format=pdf")
        ) as answer:
            pdf = await answer.read()

    prompt = [m["content"] for m in natterlog.fake.seen[-1].body["messages"]]
    assert prompt == ["remember the zeppelin tokens=5", reply.text, "and now? tokens=5"]
    assert [hit["session_id"] for hit in hits["items"]] == [copy["id"]]
    assert pdf.startswith(b"%PDF-")
