"""The interview front end, unchanged, before the whole system with Ollama behind it.

It has the address of the API and the name of a model, as its ``.env.local`` does.  What
its document plans for later is asked of the native API, about the sessions it talks in.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shared.events import RunClaimed
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.fake_script import Script
from tests.support.interview_client import MODEL, Answer, InterviewClient
from tests.support.log_checks import check_run, wait_until_all_ended
from tests.support.running import LEASE, Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

PULLED = {"ollama": [MODEL, "qwen3:8b"]}
"""What ``ollama pull`` has brought."""


def as_ollama(fake: FakeProvider) -> dict[str, str]:
    return {"OLLAMA_HOST": fake.url}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    async with running_system(models=PULLED, provided=as_ollama, NATTERLOG_LEASE=LEASE) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def page(natterlog: Running) -> AsyncIterator[InterviewClient]:
    async with InterviewClient(f"{natterlog.system.url}/api") as client:
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
    answer = await page.ask("tokens=40 rate=200")

    tag, tokens = check_unspliced(answer.text)
    assert (tag, tokens) == (natterlog.fake.seen[-1].tag, 40)
    assert (answer.error, answer.models) == (None, {MODEL})
    assert answer.stats["eval_count"] == 40
    assert natterlog.fake.seen[-1].body["options"] == {"temperature": 0.7, "num_predict": 300}


async def test_without_a_stream_the_answer_comes_at_once(page: InterviewClient):
    answer = await page.ask("tokens=12", stream=False)

    assert check_unspliced(answer.text)[1] == 12
    assert (answer.done, answer.models) == (True, {MODEL})


async def test_the_page_offers_the_models_that_were_pulled(page: InterviewClient):
    assert await page.models() == ["demo", MODEL, "qwen3:8b"]


async def test_a_model_that_is_not_there_is_told_with_those_that_are(
    natterlog: Running, page: InterviewClient
):
    answer = await page.ask_patiently("Hi", "mistral:latest")

    assert (answer.status, answer.tries) == (404, 1)
    assert answer.error is not None
    assert "mistral:latest" in answer.error
    assert MODEL in answer.error


async def test_a_provider_that_fails_before_its_first_words_has_its_status(
    natterlog: Running, page: InterviewClient
):
    natterlog.fake.default = Script(fail="400")

    answer = await page.ask("Hi")

    assert (answer.status, answer.done) == (502, False)
    assert answer.error is not None


async def test_a_worker_killed_before_the_first_words_is_not_noticed(
    natterlog: Running, page: InterviewClient
):
    natterlog.fake.next.append(Script(delay=60))
    answering = asyncio.create_task(page.ask("tokens=20 rate=100"))
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen)

    worker = natterlog.system.one("llm-worker")
    await worker.kill()
    await worker.start()

    answer = await answering
    assert (answer.status, answer.error) == (200, None)
    assert check_unspliced(answer.text) == (natterlog.fake.seen[-1].tag, 20)


async def test_a_worker_killed_after_the_first_words_ends_the_stream_with_an_error(
    natterlog: Running, page: InterviewClient
):
    answer = Answer()
    talk = page.stream(answer, "tokens=400 rate=60")
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
    talk = page.stream(answer, "tokens=120 rate=60", session_id=session_id)
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
    await page.ask("tokens=3", session_id=session_id)
    first = natterlog.fake.seen[-1]

    await page.ask("tokens=4", session_id=session_id, system="Be brief.")

    messages = natterlog.fake.seen[-1].body["messages"]
    assert [(m["role"], m["content"].startswith(f"{first.tag}-0")) for m in messages] == [
        ("system", False),
        ("user", False),
        ("assistant", True),
        ("user", False),
    ]
    assert messages[0]["content"] == "Be brief."


async def test_a_page_that_is_closed_stops_the_model(natterlog: Running, page: InterviewClient):
    answer = Answer()
    talk = page.stream(answer, "tokens=5000 rate=50")
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
    talk = page.stream(answer, "tokens=100 rate=100", session_id=session_id)
    await until_some_is_shown(talk, answer)

    async with contextlib.aclosing(talk):
        pass

    runs = await wait_until_all_ended(natterlog.bus)
    assert runs[answer.headers["X-Run-Id"]].final.status == "completed"
    assert (await run_of(natterlog, answer))["status"] == "completed"


async def test_the_history_of_an_interview_and_its_system_prompt_reach_the_model(
    natterlog: Running, page: InterviewClient
):
    page.system = "You are an interviewer."

    first = await page.send("I build compilers. tokens=4")
    await page.send("In my free time too. tokens=5")

    messages = natterlog.fake.seen[-1].body["messages"]
    assert messages[0] == {"role": "system", "content": "You are an interviewer."}
    assert messages[1]["content"].splitlines() == [
        "candidate: I build compilers. tokens=4",
        f"interviewer: {first.text}",
        "candidate: In my free time too. tokens=5",
    ]


# -- what goes wrong, and is tried again ----------------------------------------------


async def test_a_gateway_that_is_away_is_tried_again_until_it_is_back(
    natterlog: Running, page: InterviewClient
):
    gateway = natterlog.system.one("gateway")
    await gateway.kill()
    answering = asyncio.create_task(page.ask_patiently("tokens=20"))
    await page.failed.wait()
    await gateway.start()

    answer = await answering

    assert answer.tries > 1
    assert (answer.status, answer.error, answer.done) == (200, None, True)
    assert check_unspliced(answer.text)[1] == 20


async def test_a_provider_that_is_overloaded_for_a_moment_is_not_noticed(
    natterlog: Running, page: InterviewClient
):
    answer = await page.ask_patiently("tokens=20 fail=503x1")

    assert (answer.tries, answer.error) == (1, None)
    assert check_unspliced(answer.text)[1] == 20
    assert [seen.status for seen in natterlog.fake.seen] == [503, 200]


async def test_a_page_that_waits_no_longer_stops_the_model(natterlog: Running):
    async with InterviewClient(f"{natterlog.system.url}/api", seconds=0.5) as impatient:
        with pytest.raises(TimeoutError):
            await impatient.ask("tokens=5 delay=60")

        await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)


async def test_a_silent_provider_is_a_timeout_with_its_own_status():
    async with (
        running_system(
            services=("store", "llm-worker", "gateway"),
            models=PULLED,
            provided=as_ollama,
            NATTERLOG_FIRST_WORD_TIMEOUT="0.5",
        ) as natterlog,
        InterviewClient(f"{natterlog.system.url}/api") as page,
    ):
        answer = await page.ask("tokens=5 delay=60")

    assert (answer.status, answer.done) == (504, False)
    assert answer.error is not None


async def test_one_message_too_many_is_told_with_the_time_to_wait():
    async with (
        running_system(
            services=("store", "llm-worker", "gateway"),
            models=PULLED,
            provided=as_ollama,
            NATTERLOG_MESSAGES_PER_MINUTE="2",
        ) as natterlog,
        InterviewClient(f"{natterlog.system.url}/api") as page,
    ):
        answers = [await page.ask("tokens=2") for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[-1].error is not None
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60


# -- what its document plans for later ------------------------------------------------


async def test_an_interview_can_be_kept_and_go_on_with_another_model_and_be_exported(
    natterlog: Running, page: InterviewClient
):
    client = natterlog.client
    session_id = await client.session(mode="interview")

    first = await page.ask("I build compilers. tokens=4", session_id=session_id)
    second = await page.ask("And parsers. tokens=5", "qwen3:8b", session_id=session_id)
    async with client.http.get(client.url(f"/sessions/{session_id}/export?format=md")) as answer:
        paper = await answer.text()

    assert (first.models, second.models) == ({MODEL}, {"qwen3:8b"})
    body = natterlog.fake.seen[-1].body
    assert body["model"] == "qwen3:8b"
    assert body["messages"][1]["content"] == first.text
    for text in ("I build compilers. tokens=4", first.text.strip(), second.text.strip()):
        assert text in paper


async def test_a_reply_can_be_rated_and_conversations_are_counted(
    natterlog: Running, page: InterviewClient
):
    client = natterlog.client
    session_id = await client.session(mode="interview")
    answer = await page.ask("tokens=6", session_id=session_id)
    run = await run_of(natterlog, answer)
    _, listed = await client.call("GET", f"/messages/{session_id}")
    reply = listed["items"][-1]

    _, rated = await client.call(
        "PUT", f"/messages/{reply['id']}/feedback", json={"rating": "up", "comment": "apt"}
    )
    _, usage = await client.call("GET", "/usage?group_by=session")

    assert reply["run_id"] == run["id"]
    assert rated["feedback"] == {"rating": "up", "comment": "apt"}
    (mine,) = [group for group in usage["items"] if group["session_id"] == session_id]
    assert (mine["calls"], mine["output_tokens"]) == (1, 6)


async def test_what_is_not_honoured_is_noted_in_the_log(natterlog: Running, page: InterviewClient):
    answer = await page.ask("tokens=2", options={"seed": 7, "top_p": 0.9})

    runs = await wait_until_all_ended(natterlog.bus)
    (claim,) = [link.fact for link in runs[answer.headers["X-Run-Id"]].claims]
    assert isinstance(claim, RunClaimed)
    assert claim.prompt is not None
    assert claim.prompt.notes == ["Not honoured in this dialect: seed, top_p."]
