"""The content front end, unchanged, before the whole system."""

import asyncio
import json

import pytest

from tests.support.content_client import ContentClient
from tests.support.fake_script import Script
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

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
    assert client.closed_with == 1000
    assert "Botox Safety" in natterlog.fake.seen[0].message
    assert POST in natterlog.fake.seen[-1].message


@pytest.mark.parametrize("platform", ["Instagram", "Twitter", "TikTok", "Facebook"])
async def test_every_platform_of_the_form_is_supported(natterlog: Running, platform: str):
    natterlog.fake.next.extend(scripts())
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        await client.watch(await client.start(platform=platform))

    assert client.end is not None
    assert client.end["type"] == "result"
    assert platform in natterlog.fake.seen[1].message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"platform": "MySpace"}, "Instagram, Twitter, TikTok, Facebook"), ({"topic": ""}, "topic")],
)
async def test_a_form_that_does_not_fit_is_told_in_a_sentence(
    natterlog: Running, fields: dict[str, str], reason: str
):
    async with ContentClient(natterlog.system.url) as client:
        status, body = await client.started(**fields)

    assert (status, body["code"]) == (400, "invalid_request")
    assert reason in body["error"]


async def test_a_click_that_is_sent_twice_is_one_job_and_another_one_is_another(
    natterlog: Running,
):
    natterlog.fake.default = Script(tokens=5000, rate=50)
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        twice = [await client.start(session_id="job_1767225600000") for _ in range(2)]
        other = await client.start()
        for path in (twice[0], other):
            await client.call("POST", f"/chat/{path.rpartition('/')[2]}/cancel")

    assert twice[0] == twice[1] != other


async def test_several_sessions_at_once_each_get_their_own_result(natterlog: Running):
    natterlog.fake.default = Script(reply="never JSON")
    natterlog.fake.next.extend(scripts())
    async with (
        ContentClient(natterlog.system.url) as one,
        ContentClient(natterlog.system.url) as two,
        asyncio.timeout(DEADLINE),
    ):
        path = await one.start()
        await one.watch(path)
        await asyncio.gather(two.watch(await two.start()), one.watch(path))

    assert one.end is not None
    assert two.end is not None
    assert (one.end["type"], two.end["type"]) == ("result", "error")
    assert one.end["session_id"] == one.session_id != two.session_id


async def test_a_cut_line_is_told_every_step_again_and_the_result(natterlog: Running):
    keywords, post, compliance = scripts()
    slow = Script(reply=post.reply, rate=2)
    natterlog.fake.next.extend([keywords, slow, compliance])
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        path = await client.start()
        await client.watch(path, until=lambda frame: frame["type"] == "progress")

        gateway = natterlog.system.one("gateway")
        await gateway.kill()
        watching = asyncio.create_task(client.watch(path))
        await gateway.start()
        await watching

    assert client.steps() == [STEPS[:1], STEPS]
    assert client.end is not None
    assert client.end["response_text"] == POST


async def test_what_was_written_is_kept_and_listed(natterlog: Running):
    natterlog.fake.next.extend(scripts())
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        path = await client.start()
        await client.watch(path)
        _, listed = await client.call("GET", "/api/v1/chat/sessions?mode=content")
        async with ContentClient(natterlog.system.url) as later:
            await later.watch(path)

    assert client.session_id in [session["id"] for session in listed["items"]]
    assert later.end == client.end


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
        answers = [await client.call("POST", f"/chat/{client.session_id}/cancel") for _ in range(2)]
        await client.watch(path)

    assert client.end is not None
    assert [status for status, _ in answers] == [200, 200]
    assert (client.end["type"], client.end["code"]) == ("error", "cancelled")
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)


async def test_the_stream_of_a_step_is_its_answer(natterlog: Running):
    natterlog.fake.next.extend(scripts(rate=20))
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        path = await client.start()
        texts: dict[str, str] = {}
        async with client.browser.socket(f"{client.url}{path}?stream=1") as ws:
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
