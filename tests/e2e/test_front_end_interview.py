"""The interview front end against every service as a process, some of them killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shared.events import RunClaimed
from tests.support.fake_provider import check_unspliced
from tests.support.fake_script import Script
from tests.support.interview_client import Answer, InterviewClient
from tests.support.log_checks import check_run, wait_until_all_ended
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "fake-gpt"


@pytest_asyncio.fixture(loop_scope="module")
async def page(natterlog: Running) -> AsyncIterator[InterviewClient]:
    async with InterviewClient(natterlog.system.url) as client:
        yield client


async def run_of(natterlog: Running, answer: Answer) -> dict[str, Any]:
    """The run as the native API shows it."""
    run_id = answer.headers["X-Run-Id"]
    status, run = await natterlog.client.call("GET", f"/runs/{run_id}")
    assert status == 200, run
    return run


async def until_some_is_shown(talk: AsyncIterator[Answer], answer: Answer) -> None:
    async for _ in talk:
        if len(answer.text) >= 60:
            return
    raise AssertionError("it ended before")


async def test_a_prompt_is_answered_to_its_last_character(
    natterlog: Running, page: InterviewClient
):
    answer = await page.ask("tokens=40 rate=200", MODEL)

    tag, tokens = check_unspliced(answer.text)
    assert (tag, tokens) == (natterlog.fake.seen[-1].tag, 40)
    assert (answer.error, answer.models) == (None, {MODEL})
    assert answer.stats["eval_count"] == 40
    assert natterlog.fake.seen[-1].body["temperature"] == 0.7
    assert natterlog.fake.seen[-1].body["max_tokens"] == 300


async def test_the_page_offers_the_models_of_every_provider(page: InterviewClient):
    assert await page.models() == ["demo", "fake-gpt", "fake-gpt-mini"]


async def test_a_model_that_is_not_there_is_told_with_those_that_are(
    natterlog: Running, page: InterviewClient
):
    answer = await page.ask("Hi", "llama3.2:latest")

    assert answer.status == 404
    assert answer.error is not None
    assert "fake-gpt-mini" in answer.error


async def test_a_provider_that_fails_before_its_first_words_has_its_status(
    natterlog: Running, page: InterviewClient
):
    natterlog.fake.default = Script(fail="400")

    answer = await page.ask("Hi", MODEL)

    assert (answer.status, answer.done) == (502, False)
    assert answer.error is not None


async def test_a_worker_killed_before_the_first_words_is_not_noticed(
    natterlog: Running, page: InterviewClient
):
    natterlog.fake.next.append(Script(delay=60))
    asking = asyncio.create_task(page.ask("tokens=20 rate=100", MODEL))
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen)

    worker = natterlog.system.one("llm-worker")
    await worker.kill()
    await worker.start()

    answer = await asking
    assert (answer.status, answer.error) == (200, None)
    assert check_unspliced(answer.text) == (natterlog.fake.seen[-1].tag, 20)


async def test_a_worker_killed_after_the_first_words_ends_the_stream_with_an_error(
    natterlog: Running, page: InterviewClient
):
    answer = Answer()
    talk = page.asking(answer, "tokens=400 rate=60", MODEL)
    await until_some_is_shown(talk, answer)

    worker = natterlog.system.one("llm-worker")
    await worker.kill()
    await worker.start()
    async for _ in talk:
        pass

    tag, tokens = check_unspliced(answer.text)
    assert (tag, answer.done) == (natterlog.fake.seen[0].tag, True)
    assert answer.error is not None
    assert tokens < 400
    runs = await wait_until_all_ended(natterlog.bus)
    assert runs[answer.headers["X-Run-Id"]].final.status == "cancelled"


async def test_within_a_session_the_second_attempt_is_kept_though_it_is_not_shown(
    natterlog: Running, page: InterviewClient
):
    session_id = await natterlog.client.session()
    answer = Answer()
    talk = page.asking(answer, "tokens=120 rate=60", MODEL, session_id=session_id)
    await until_some_is_shown(talk, answer)

    worker = natterlog.system.one("llm-worker")
    await worker.kill()
    await worker.start()
    async for _ in talk:
        pass

    assert answer.error is not None
    runs = await wait_until_all_ended(natterlog.bus)
    run = runs[answer.headers["X-Run-Id"]]
    check_run(run)
    assert check_unspliced(run.final.text) == (natterlog.fake.seen[-1].tag, 120)
    assert check_unspliced(answer.text)[0] == natterlog.fake.seen[0].tag
    _, listed = await natterlog.client.call("GET", f"/messages/{session_id}")
    assert [m["content"] for m in listed["items"]] == ["tokens=120 rate=60", run.final.text]


async def test_a_session_is_the_context_of_its_next_prompt(
    natterlog: Running, page: InterviewClient
):
    session_id = await natterlog.client.session(system_prompt="Be kind.")
    await page.ask("tokens=3", MODEL, session_id=session_id)
    first = natterlog.fake.seen[-1]

    await page.ask("tokens=4", MODEL, session_id=session_id, system="Be brief.")

    told = natterlog.fake.seen[-1].body["messages"]
    assert [(m["role"], m["content"].startswith(f"{first.tag}-0")) for m in told] == [
        ("system", False),
        ("user", False),
        ("assistant", True),
        ("user", False),
    ]
    assert told[0]["content"] == "Be brief."


async def test_a_page_that_is_closed_stops_the_model(natterlog: Running, page: InterviewClient):
    answer = Answer()
    talk = page.asking(answer, "tokens=5000 rate=50", MODEL)
    await until_some_is_shown(talk, answer)

    async with contextlib.aclosing(talk):
        pass

    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)
    runs = await wait_until_all_ended(natterlog.bus)
    assert runs[answer.headers["X-Run-Id"]].final.status == "cancelled"


async def test_within_a_session_a_closed_page_stops_nothing(
    natterlog: Running, page: InterviewClient
):
    session_id = await natterlog.client.session()
    answer = Answer()
    talk = page.asking(answer, "tokens=100 rate=100", MODEL, session_id=session_id)
    await until_some_is_shown(talk, answer)

    async with contextlib.aclosing(talk):
        pass

    runs = await wait_until_all_ended(natterlog.bus)
    assert runs[answer.headers["X-Run-Id"]].final.status == "completed"
    assert (await run_of(natterlog, answer))["status"] == "completed"


async def test_what_is_not_honoured_is_noted_in_the_log(natterlog: Running, page: InterviewClient):
    answer = await page.ask("tokens=2", MODEL, options={"seed": 7, "top_p": 0.9})

    runs = await wait_until_all_ended(natterlog.bus)
    (claim,) = [link.fact for link in runs[answer.headers["X-Run-Id"]].claims]
    assert isinstance(claim, RunClaimed)
    assert claim.prompt is not None
    assert claim.prompt.notes == ["Not honoured in this dialect: seed, top_p."]
