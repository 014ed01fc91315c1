"""The fake upstream, against the official clients of the APIs that it fakes."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import ollama
import openai
import pytest

from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.fake_script import Script

GPT, CLAUDE, LLAMA = "fake-gpt", "claude-haiku-5-5", "fake-llama"


def prompt(text: str) -> Any:
    """A list of messages, which each client has a type of its own for."""
    return [{"role": "user", "content": text}]


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
async def gpt(fake: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=fake.openai_url, api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(fake: FakeProvider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=fake.url, api_key="key", max_retries=0) as client:
        yield client


@pytest.fixture
async def llama(fake: FakeProvider) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=fake.url) as client:
        yield client


async def test_openais_client_reads_a_stream(gpt: openai.AsyncOpenAI):
    stream = await gpt.chat.completions.create(
        model=GPT,
        messages=prompt("tokens=5 rate=500"),
        stream=True,
        stream_options={"include_usage": True},
    )

    chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert check_unspliced(text) == ("a1", 5)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 5


async def test_openais_client_reads_a_whole_answer_and_the_models(gpt: openai.AsyncOpenAI):
    answer = await gpt.chat.completions.create(model=GPT, messages=prompt("tokens=5"))
    models = await gpt.models.list()

    assert check_unspliced(answer.choices[0].message.content or "") == ("a1", 5)
    assert [model.id for model in models.data] == ["fake-gpt", "fake-gpt-mini"]


async def test_anthropics_client_reads_a_stream_with_thoughts(claude: anthropic.AsyncAnthropic):
    async with claude.messages.stream(
        model=CLAUDE, max_tokens=9, messages=prompt("tokens=5 think=2 rate=500")
    ) as stream:
        message = await stream.get_final_message()

    assert [block.type for block in message.content] == ["thinking", "text"]
    (_, block) = message.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert check_unspliced(block.text) == ("a1", 5)
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 5)


async def test_anthropics_client_reads_a_whole_answer_and_the_models(
    claude: anthropic.AsyncAnthropic,
):
    answer = await claude.messages.create(model=CLAUDE, max_tokens=9, messages=prompt("tokens=5"))
    models = await claude.models.list()

    (block,) = answer.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert check_unspliced(block.text) == ("a1", 5)
    assert CLAUDE in [model.id for model in models.data]


async def test_ollamas_client_reads_a_stream(llama: ollama.AsyncClient):
    stream = await llama.chat(model=LLAMA, messages=prompt("tokens=5 rate=500"), stream=True)

    lines = [line async for line in stream]

    assert check_unspliced("".join(line.message.content or "" for line in lines)) == ("a1", 5)
    assert (lines[-1].done, lines[-1].eval_count) == (True, 5)


async def test_ollamas_client_reads_a_whole_answer_and_the_models(llama: ollama.AsyncClient):
    answer = await llama.chat(model=LLAMA, messages=prompt("tokens=5"))
    models = await llama.list()

    assert check_unspliced(answer.message.content or "") == ("a1", 5)
    assert [model.model for model in models.models] == ["fake-llama:latest", "fake-qwen:1b"]


async def test_the_clients_meet_their_own_errors(
    gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, llama: ollama.AsyncClient
):
    with pytest.raises(openai.RateLimitError):
        await gpt.chat.completions.create(model=GPT, messages=prompt("fail=429"))
    with pytest.raises(openai.NotFoundError):
        await gpt.chat.completions.create(model="nobody", messages=prompt(""))
    with pytest.raises(anthropic.OverloadedError):
        await claude.messages.create(model=CLAUDE, max_tokens=9, messages=prompt("fail=529"))
    with pytest.raises(ollama.ResponseError, match="no model 'nobody'"):
        await llama.chat(model="nobody", messages=prompt(""))


async def test_an_error_event_is_the_clients_own_error(
    gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
):
    with pytest.raises(openai.APIError):
        async for _ in await gpt.chat.completions.create(
            model=GPT, messages=prompt("fault=error@2"), stream=True
        ):
            pass
    with pytest.raises(anthropic.APIStatusError) as raised:
        async for _ in await claude.messages.create(
            model=CLAUDE, max_tokens=9, messages=prompt("fault=error@2"), stream=True
        ):
            pass

    assert raised.value.type == "overloaded_error"


async def test_no_two_answers_are_alike(gpt: openai.AsyncOpenAI):
    answers = [
        await gpt.chat.completions.create(model=GPT, messages=prompt("hello")) for _ in range(3)
    ]

    texts = [answer.choices[0].message.content or "" for answer in answers]
    assert [check_unspliced(text) for text in texts] == [("a1", 20), ("a2", 20), ("a3", 20)]


async def test_a_fault_may_hit_the_first_tries_only(llama: ollama.AsyncClient):
    outcomes: list[str] = []
    for _ in range(4):
        try:
            await llama.chat(model=LLAMA, messages=prompt("fail=503x2"))
            outcomes.append("answered")
        except ollama.ResponseError as error:
            outcomes.append(str(error.status_code))

    assert outcomes == ["503", "503", "answered", "answered"]


async def test_a_failing_answer_says_what_it_was_told_to(
    fake: FakeProvider, gpt: openai.AsyncOpenAI, llama: ollama.AsyncClient
):
    fake.default = Script(fail="400x9", sentence="Never on Sundays.")

    with pytest.raises(openai.BadRequestError, match="Never on Sundays"):
        await gpt.chat.completions.create(model=GPT, messages=prompt("hello"))
    with pytest.raises(ollama.ResponseError, match="Never on Sundays"):
        await llama.chat(model=LLAMA, messages=prompt("hello"))


async def test_while_it_loads_a_model_it_beats(fake: FakeProvider):
    body = {"model": GPT, "messages": prompt("tokens=1 load=0.5"), "stream": True}

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fake.openai_url}/chat/completions", json=body) as answer,
    ):
        frames = (await answer.read()).split(b"\n\n")

    assert frames.count(b": ping") > 2
    assert frames.index(b": ping") < next(n for n, f in enumerate(frames) if b"a1-0" in f)


async def test_words_of_the_message_win_over_the_next_script_over_the_default(
    fake: FakeProvider, llama: ollama.AsyncClient
):
    fake.default = Script(tokens=1)
    fake.next.append(Script(tokens=2))

    answers = [await llama.chat(model=LLAMA, messages=prompt(m)) for m in ("", "", "tokens=3")]

    assert [answer.eval_count for answer in answers] == [2, 1, 3]


async def test_a_client_that_hangs_up_is_seen(fake: FakeProvider, gpt: openai.AsyncOpenAI):
    stream = await gpt.chat.completions.create(
        model=GPT, messages=prompt("tokens=100000 rate=500"), stream=True
    )
    await fake.wait_for(lambda: fake.seen[0].sent > 3)

    await stream.close()

    await fake.wait_for(lambda: fake.seen[0].closed_at)
    assert fake.seen[0].ended_at is None


async def test_as_a_process_it_is_scripted_and_asked_over_http():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.fake_provider", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = f"http://127.0.0.1:{int(await process.stdout.readline())}"

    try:
        async with aiohttp.ClientSession(url) as session:
            orders = {"reset": True, "default": {"tokens": 2}, "models": {"ollama": ["m"]}}
            async with session.post("/_control", json=orders) as answer:
                assert answer.status == 200
            call = {"model": "m", "messages": prompt("hello"), "stream": False}
            async with session.post("/api/chat", json=call) as answer:
                text = (await answer.json())["message"]["content"]
            async with session.get("/_requests") as answer:
                (seen,) = (await answer.json())["requests"]
    finally:
        process.terminate()
        await process.wait()

    assert check_unspliced(text) == (seen["tag"], 2)
    assert (seen["api"], seen["sent"], seen["body"]) == ("ollama", 2, call)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a1-0 a1-1 a2-2 ", "spliced"),
        ("a1-0 a1-2 ", "token 2"),
        ("a1-0 a1-1 a1-1 ", "token 1"),
        ("a1-1 ", "token 1"),
        ("a1-0 a1-", "no token"),
        ("a1-0 a1-1", "no token"),
        ("?a1-0 ", "no token"),
        ("a1-0  a1-1 ", "no token"),
    ],
)
def test_a_text_of_two_attempts_is_found(text: str, why: str):
    with pytest.raises(AssertionError, match=why):
        check_unspliced(text)


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("a7-0 ", 1), ("b12-0 b12-1😀 b12-2\ufffd ", 3)]
)
def test_a_text_of_one_attempt_passes(text: str, count: int):
    assert check_unspliced(text)[1] == count
