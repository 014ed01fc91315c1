"""All five front ends, unchanged, at one gateway at the same time.

Each has its address and nothing else.  The system has the three providers that their
documents name, and whoever names no model is answered by the demo.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
import pytest_asyncio

from tests.support.assistant_client import AssistantClient
from tests.support.browser import BROKEN
from tests.support.channels_client import ChatClient
from tests.support.content_client import TOKEN, ContentClient
from tests.support.documents_client import DocumentsClient
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.interview_client import MODEL, Answer, InterviewClient
from tests.support.log_checks import wait_until_all_ended
from tests.support.people import add_user
from tests.support.people import natterlog as command
from tests.support.running import LEASE, Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEADLINE = 90
STEPS = ["keywords", "content_generation", "compliance_check"]
LONG = "Tell me more.\ndemo: words=90 rate=30"
MODELS = {"ollama": [MODEL], "openai": ["qwen3:8b"]}
Underway = Callable[[], None]
"""Says that a front end shows the beginning of its answer."""


def as_all_three(fake: FakeProvider) -> dict[str, str]:
    return {
        "OLLAMA_HOST": fake.url,
        "LLM_SERVER_URL": fake.url,
        "CLAUDE_API_KEY": "sk-ant-fake",
        "ANTHROPIC_BASE_URL": fake.url,
        "LLM_DEFAULT_MODEL": "demo",
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    async with running_system(
        models=MODELS, provided=as_all_three, NATTERLOG_LEASE=LEASE
    ) as running:
        yield running


# -- each front end, from its first request to its whole answer ---------------------------


async def interview(url: str, underway: Underway) -> None:
    async with InterviewClient(f"{url}/api") as page:
        assert MODEL in await page.models()
        answer = Answer()
        while answer.error or not answer.done:  # its user asks again
            answer = Answer()
            try:
                async for _ in page.stream(answer, "tokens=90 rate=30"):
                    underway()
            except BROKEN as error:
                answer.error = str(error) or "timeout"
                await asyncio.sleep(0.2)  # what its user does
        assert check_unspliced(answer.text)[1] == 90


async def assistant(url: str, underway: Underway) -> None:
    async with AssistantClient(f"{url}/api/v1") as page:
        await page.start()
        async for _ in page.sending(LONG):
            underway()
        if page.error:  # its stream was cut: a reload shows all
            async with asyncio.timeout(DEADLINE):
                while len(page.messages) < 2 or page.messages[-1].get("status") != "completed":
                    await asyncio.sleep(0.5)  # what its user does
                    with contextlib.suppress(*BROKEN):
                        await page.reload()
        shown = page.shown
        await page.reload()
        assert page.shown == shown
        assert len(page.shown[-1][1].split()) == 90


async def documents(url: str, underway: Underway) -> None:
    async with DocumentsClient(url) as page:
        job_id = await page.upload(b"name,age\nAda,36\n", LONG, name="people.csv")
        answer = page.answers[job_id]
        await page.watch(until=lambda: answer.text)
        underway()
        await page.watch()
        assert answer.end == {"type": "job_completed", "job_id": job_id, "ai_response": answer.text}
        assert answer.progress == 100


async def content(url: str, underway: Underway) -> None:
    async with ContentClient(url) as page:
        path = await page.start(query=LONG)
        await page.watch(path, until=lambda frame: frame["type"] == "progress")
        underway()
        await page.watch(path)
        assert page.end is not None
        assert page.end["type"] == "result", page.end
        assert page.steps()[-1] == STEPS


async def channels(url: str, underway: Underway) -> None:
    async with ChatClient(url) as page:
        await page.open(await page.create_session(model="qwen3:8b"))
        await page.send("tokens=90 rate=30")
        await page.until(lambda: len(page.streaming) > 30)
        underway()
        await page.until(page.replies)
        assert check_unspliced(page.replies()[0]["content"])[1] == 90
        assert page.errors == []


FRONT_ENDS: list[Callable[[str, Underway], Coroutine[None, None, None]]] = [
    *(interview, assistant, documents, content, channels),
]


@pytest.mark.parametrize("killed", [None, "gateway", "llm-worker"], ids=str)
async def test_all_five_have_their_answers_at_once(natterlog: Running, killed: str | None):
    url = natterlog.system.url
    begun = {front_end: asyncio.Event() for front_end in FRONT_ENDS}

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        for front_end, event in begun.items():
            group.create_task(front_end(url, event.set))
        for event in begun.values():
            await event.wait()
        if killed:
            process = natterlog.system.one(killed)
            await process.kill()
            await process.start()

    for run in (await wait_until_all_ended(natterlog.bus)).values():
        assert run.final.status in ("completed", "cancelled")  # an interview that was cut


async def test_those_that_send_a_token_work_with_it_and_not_without():
    async with running_system(models=MODELS, provided=as_all_three) as natterlog:
        url, system = natterlog.system.url, natterlog.system
        await command(system, "user", "add", "studio")
        await command(system, "token", "create", "studio", "--value", TOKEN)
        token, stranger = await add_user(system, "alice"), await add_user(system, "bob")
        async with (
            asyncio.timeout(DEADLINE),
            AssistantClient(f"{url}/api/v1", token=token) as assistant,
            DocumentsClient(url, token=token) as documents,
            ContentClient(url) as content,
            ChatClient(url, token=token) as channels,
        ):
            await assistant.start()
            await assistant.send("demo: words=5")
            job_id = await documents.upload(b"words", "demo: words=5")
            await documents.watch()
            await content.watch(await content.start())
            await channels.open(await channels.create_session())
            await channels.send("demo: words=5")
            await channels.until(channels.replies)

            async with (
                AssistantClient(f"{url}/api/v1", token=stranger) as other_page,
                DocumentsClient(url) as nobody,
                ContentClient(url, token="wrong") as wrong,
                ChatClient(url, token=stranger) as other_chat,
                InterviewClient(f"{url}/api") as interview,
            ):
                anothers = [
                    (await other_page.call("GET", f"/sessions/{assistant.session_id}"))[0],
                    (await other_chat.call("GET", f"/sessions/{channels.session_id}/"))[0],
                ]
                unknown = [
                    await nobody.call("GET", f"/api/jobs/{job_id}"),
                    await wrong.started(),
                ]
                refusal = await interview.ask("Hi")
                async with wrong.browser.socket(f"{url}/ws/chat/{content.session_id}") as socket:
                    await socket.receive(timeout=10)
                    closed = socket.close_code

    assert (assistant.error, channels.errors) == ("", [])
    assert documents.answers[job_id].end is not None
    assert content.end is not None
    assert content.end["type"] == "result"
    assert anothers == [404, 404]
    assert [(status, body["code"]) for status, body in unknown] == [(401, "unauthorized")] * 2
    assert (refusal.status, closed) == (401, 4401)
    assert refusal.error is not None


async def test_a_shared_preset_is_everybodys_and_a_private_one_is_its_owners():
    async with running_system(
        services=("store", "llm-worker", "gateway"), models=MODELS, provided=as_all_three
    ) as natterlog:
        system = natterlog.system
        tokens = [await add_user(system, name) for name in ("alice", "bob")]
        async with (
            ChatClient(system.url, token=tokens[0]) as alice,
            ChatClient(system.url, token=tokens[1]) as bob,
        ):
            presets = {
                public: (
                    await alice.call("POST", "/presets/", json={"name": "P", "is_public": public})
                )[1]["id"]
                for public in (True, False)
            }
            _, listed = await bob.call("GET", "/presets/")
            used, _ = await bob.call(
                "POST", f"/presets/{presets[True]}/create_session_from_preset/"
            )
            changed, _ = await bob.call("PATCH", f"/presets/{presets[True]}/", json={"name": "Q"})
            hidden, _ = await bob.call("GET", f"/presets/{presets[False]}/")

    assert [preset["id"] for preset in listed["results"]] == [presets[True]]
    assert (used, changed, hidden) == (201, 403, 404)
