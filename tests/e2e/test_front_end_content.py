"""A content front end, written from its own document, before the whole system."""

import asyncio
import json

import pytest

from tests.support.fake_script import Script
from tests.support.job_clients import ContentClient
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE = 60
STEPS = ["keywords", "content_generation", "compliance_check"]
STRATEGY = {
    "keywords": ["botox"],
    "audience": "adults",
    "tone": "calm",
    "hooks": ["Is it safe?"],
    "hashtags": ["#botox"],
}
POST = "# Slide 1: Is it safe?"
COMPLIANCE = {"approved": True, "issues": [], "disclaimer": "Ask a doctor."}


def scripts(*, rate: float = 0.0, delay: float = 0.0) -> list[Script]:
    """The three answers of a pipeline that goes well."""
    answers = [json.dumps(STRATEGY), POST, json.dumps(COMPLIANCE)]
    return [Script(reply=answer, rate=rate, delay=delay) for answer in answers]


async def test_a_post_is_written_step_by_step(natterlog: Running):
    natterlog.fake.next.extend(scripts())
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        path = await client.start(session_id="job_001")
        await client.watch(path)

    assert client.steps() == [STEPS]
    assert client.end == {
        "type": "result",
        "session_id": path.rpartition("/")[2],
        "response_text": POST,
        "strategy": STRATEGY,
        "compliance": COMPLIANCE,
    }
    assert "Botox Safety" in natterlog.fake.seen[0].message
    assert POST in natterlog.fake.seen[-1].message


async def test_late_and_repeated_connections_are_told_the_same(natterlog: Running):
    natterlog.fake.next.extend(scripts())
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        path = await client.start()
        await client.watch(path)
        for _ in range(2):
            async with ContentClient(natterlog.system.url) as late:
                await late.watch(path)
            assert late.connections == client.connections


async def test_an_answer_that_misses_its_schema_is_asked_for_again_and_told_once(
    natterlog: Running,
):
    natterlog.fake.next.extend([Script(reply="no JSON"), *scripts()])
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        await client.watch(await client.start())

    assert client.steps() == [STEPS]
    assert client.end is not None
    assert client.end["strategy"] == STRATEGY


async def test_a_step_that_misses_its_schema_for_good_is_the_error(natterlog: Running):
    natterlog.fake.default = Script(reply="never JSON")
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        await client.watch(await client.start())

    assert client.end is not None
    assert (client.end["type"], client.end["step"]) == ("error", "keywords")
    assert client.steps() == [[]]


async def test_a_cancel_ends_the_job_and_the_models_work(natterlog: Running):
    natterlog.fake.default = Script(tokens=5000, rate=50)
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        path = await client.start()
        await natterlog.fake.wait_for(lambda: natterlog.fake.seen)
        url = f"{client.url}/chat/{path.rpartition('/')[2]}/cancel"
        async with client.http.post(url) as first, client.http.post(url) as second:
            assert (first.status, second.status) == (200, 200)
        await client.watch(path)

    assert client.end is not None
    assert (client.end["type"], client.end["code"]) == ("error", "cancelled")
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)


async def test_the_stream_of_a_step_is_its_answer(natterlog: Running):
    natterlog.fake.next.extend(scripts(rate=20))
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        path = await client.start()
        texts: dict[str, str] = {}
        async with client.http.ws_connect(f"{client.url}{path}?stream=1") as ws:
            async for message in ws:
                frame = json.loads(message.data)
                if frame["type"] == "chunk":
                    texts[frame["step"]] = texts.get(frame["step"], "") + frame["content"]
                elif frame["type"] == "reset":
                    texts[frame["step"]] = ""
        closed = ws.close_code

    assert closed == 1000
    assert texts["content_generation"] == POST
    assert json.loads(texts["keywords"]) == STRATEGY
    assert json.loads(texts["compliance_check"]) == COMPLIANCE
