"""What is sent to providers, how long they are waited for, and what becomes of their faults."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.fake_script import Script
from tests.support.native_client import Reply
from tests.support.running import Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = {"OPENAI_API_KEY": "configured-openai-key", "ANTHROPIC_API_KEY": "configured-claude-key"}
PROVIDERS = ("openai", "ollama", "anthropic")
MODELS = {provider: [f"fake-{n}:1b" for n in range(99)] for provider in PROVIDERS}
every_provider = pytest.mark.parametrize("provider", PROVIDERS)

_numbers = count()


def a_model(provider: str) -> str:
    """One that no other test has asked: its circuit is closed, and nothing is known of it."""
    return f"{provider}/{MODELS[provider][next(_numbers)]}"


def all_three(fake: FakeProvider) -> dict[str, str]:
    return {
        **KEYS,
        "OPENAI_BASE_URL": fake.openai_url,
        "ANTHROPIC_BASE_URL": fake.url,
        "OLLAMA_HOST": fake.url,
        "LLM_DEFAULT_MODEL": "openai/fake-0:1b",
        "LLM_TIMEOUT": "1",
        "NATTERLOG_FIRST_WORD_TIMEOUT": "20",
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    async with running_system(provided=all_three, models=MODELS) as running:
        yield running


async def reply_to(natterlog: Running, session_id: str, content: str) -> str:
    """A reply that ended well."""
    reply = await natterlog.client.send(session_id, content)
    reply.check()
    return reply.text


async def failed(natterlog: Running, session_id: str, content: str) -> dict[str, Any]:
    """The error of a reply that did not."""
    reply = await natterlog.client.send(session_id, content)
    assert reply.end is not None
    assert reply.end["type"] == "error", reply.end
    return reply.end


async def facts(natterlog: Running, session_id: str, kind: str) -> list[dict[str, Any]]:
    """The session's facts of this kind."""
    url = natterlog.client.url(f"/sessions/{session_id}/events")
    async with natterlog.client.http.get(url) as response:
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    found = [line.get("fact", line) for line in lines]
    return [fact for fact in found if fact["type"] == kind]


def sent(natterlog: Running) -> list[str]:
    """The sides and the first words of the last request's messages, but for the system's."""
    messages = natterlog.fake.seen[-1].body["messages"]
    return [f"{m['role']}: {m['content']}" for m in messages if m["role"] != "system"]


# -- a conversation in turns ------------------------------------------------------------


@every_provider
@pytest.mark.parametrize("ending", ["fail=400", "fault=empty"])
async def test_a_session_goes_on_after_a_reply_that_failed_or_was_empty(
    natterlog: Running, provider: str, ending: str
):
    natterlog.fake.default = Script(refuses="vllm-turns", reply="Fine.")
    session_id = await natterlog.client.session(model=a_model(provider))
    await natterlog.client.send(session_id, ending)

    answers = [
        await reply_to(natterlog, session_id, message) for message in ("And now?", "Thanks.")
    ]

    assert answers == ["Fine.", "Fine."]
    assert sent(natterlog) == [f"user: {ending}\n\nAnd now?", "assistant: Fine.", "user: Thanks."]


@every_provider
async def test_a_session_goes_on_after_a_reply_that_was_stopped_before_its_first_word(
    natterlog: Running, provider: str
):
    session_id = await natterlog.client.session(model=a_model(provider))
    natterlog.fake.default = Script(refuses="vllm-turns", reply="Fine.")
    natterlog.fake.next.append(Script(delay=60))
    stopped = Reply()
    await natterlog.client.start(stopped, session_id, "One")
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen)
    await natterlog.client.call("POST", f"/runs/{stopped.run_id}/cancel")
    await natterlog.client.follow(stopped)

    assert await reply_to(natterlog, session_id, "Two") == "Fine."
    assert sent(natterlog) == ["user: One\n\nTwo"]


async def test_a_session_that_is_longer_than_a_prompt_begins_with_its_user(natterlog: Running):
    natterlog.fake.default = Script(refuses="vllm-turns", reply="Fine.")
    session_id = await natterlog.client.session(model=a_model("openai"))

    for n in range(12):
        assert await reply_to(natterlog, session_id, f"{n}") == "Fine."

    assert sent(natterlog)[0] == "user: 2"
    [*_, claim] = await facts(natterlog, session_id, "claim")
    assert len(claim["prompt"]["message_ids"]) == 19
    assert claim["prompt"]["notes"] == ["1 reply at the conversation's edge was not sent."]


# -- how long a provider is waited for --------------------------------------------------


@every_provider
@pytest.mark.parametrize("loading", ["load=2.5", "delay=2.5"])
async def test_a_model_that_loads_longer_than_the_time_limit_answers(
    natterlog: Running, provider: str, loading: str
):
    session_id = await natterlog.client.session(model=a_model(provider))

    text = await reply_to(natterlog, session_id, f"tokens=3 {loading}")

    assert check_unspliced(text)[1] == 3
    assert len(natterlog.fake.seen) == 1


# -- what is tried again, and what is not -----------------------------------------------


async def test_a_broken_model_does_not_shut_the_others_of_its_provider(natterlog: Running):
    model = a_model("openai")
    broken = await natterlog.client.session(model=model)
    sound = await natterlog.client.session(model=a_model("openai"))
    for n in range(2):
        await failed(natterlog, broken, f"{n} fail=500x99 retry_after=0.01")
    calls = len(natterlog.fake.seen)

    alone = await failed(natterlog, broken, "2 fail=500x99 retry_after=0.01")
    calls_of_it = len(natterlog.fake.seen) - calls
    text = await reply_to(natterlog, sound, "fail=500x0 tokens=3")

    assert (alone["code"], calls_of_it) == ("provider_unavailable", 0)
    name = model.partition("/")[2]
    assert f"The model '{name}' of openai has failed 5 times in a row" in alone["message"]
    assert check_unspliced(text)[1] == 3


@every_provider
@pytest.mark.parametrize(
    ("script", "code", "retryable"),
    [
        (Script(fail="401x9"), "provider_error", False),
        (Script(fail="403x9"), "provider_error", False),
        (Script(fail="402x9"), "provider_error", False),
        (Script(fail="500x9", sentence="Incorrect API key provided."), "provider_error", False),
        (Script(fail="429x9", retry_after=3600), "provider_unavailable", True),
    ],
    ids=["401", "403", "402", "500 of a wrong key", "429 for an hour"],
)
async def test_what_another_try_would_not_mend_is_asked_once(
    natterlog: Running, provider: str, script: Script, code: str, retryable: bool
):
    natterlog.fake.default = script
    session_id = await natterlog.client.session(model=a_model(provider))

    error = await failed(natterlog, session_id, "Hello")

    assert (error["code"], error["retryable"]) == (code, retryable)
    assert len(natterlog.fake.seen) == 1


async def test_a_wish_for_more_than_a_minute_is_passed_on(natterlog: Running):
    natterlog.fake.default = Script(fail="429x9", retry_after=3600)
    session_id = await natterlog.client.session(model=a_model("openai"))
    body = {"session_id": session_id, "content": "Hello"}

    url = natterlog.client.url("/messages")
    async with natterlog.client.http.post(url, json=body) as response:
        status, wish = response.status, int(response.headers["Retry-After"])
    streamed = await failed(natterlog, session_id, "Again")

    assert status == 503
    assert 3590 <= wish <= 3600
    assert streamed["retry_after"] == 3600.0


@every_provider
async def test_every_failed_call_is_in_the_facts(natterlog: Running, provider: str):
    session_id = await natterlog.client.session(model=a_model(provider))

    await reply_to(natterlog, session_id, "tokens=3 fail=503x2 retry_after=0.01")

    [final] = await facts(natterlog, session_id, "final")
    message = f"{provider} answered 503: scripted to fail with 503"
    tries = [(tried["code"], tried["status"], tried["message"]) for tried in final["tries"]]
    assert tries == [("provider_unavailable", 503, message)] * 2


# -- what models do not take ------------------------------------------------------------


async def test_a_server_that_takes_little_is_asked_as_it_likes_from_then_on(natterlog: Running):
    styles = "openai-max-tokens,openai-temperature,azure-stream-options,vllm-system"
    model = a_model("openai")
    natterlog.fake.default = Script(refuses=styles, reply="Fine.")
    wish = {"temperature": 0.7, "max_tokens": 99, "system_prompt": "Be brief."}
    session_id = await natterlog.client.session(model=model, **wish)

    first = await reply_to(natterlog, session_id, "Hello")
    calls = len(natterlog.fake.seen)
    second = await reply_to(natterlog, session_id, "And?")

    assert (first, second, calls, len(natterlog.fake.seen)) == ("Fine.", "Fine.", 5, 6)
    assert natterlog.fake.seen[-1].body == {
        "model": model.partition("/")[2],
        "messages": [
            {"role": "user", "content": "Be brief.\n\nHello"},
            {"role": "assistant", "content": "Fine."},
            {"role": "user", "content": "And?"},
        ],
        "stream": True,
        "max_completion_tokens": 99,
    }
    [*_, claim] = await facts(natterlog, session_id, "claim")
    assert (len(claim["prompt"]["notes"]), claim["prompt"]["system"]) == (4, "Be brief.")


async def test_what_several_find_out_at_once_fails_none_of_them(natterlog: Running):
    model = a_model("openai")
    natterlog.fake.default = Script(refuses="openai-temperature", reply="Fine.", delay=0.2)
    sessions = [await natterlog.client.session(model=model, temperature=0.7) for _ in range(5)]

    answers = await asyncio.gather(*(reply_to(natterlog, each, "Hello") for each in sessions))

    assert answers == ["Fine."] * 5
    assert len(natterlog.fake.seen) == 10


async def test_a_server_that_wants_thoughts_back_answers_the_second_turn(natterlog: Running):
    natterlog.fake.default = Script(refuses="deepseek-thoughts", reply="Fine.")
    session_id = await natterlog.client.session(model=a_model("openai"))

    answers = [await reply_to(natterlog, session_id, f"{n}") for n in range(3)]

    assert answers == ["Fine."] * 3
    assert len(natterlog.fake.seen) == 4
    replies = [m for m in natterlog.fake.seen[-1].body["messages"] if m["role"] == "assistant"]
    assert [reply["reasoning_content"] for reply in replies] == ["", ""]


async def test_ollama_is_asked_for_the_context_that_a_prompt_needs(natterlog: Running):
    natterlog.fake.default = Script(reply="Fine.")
    model = a_model("ollama")
    short, long = [await natterlog.client.session(model=model) for _ in "ab"]

    await reply_to(natterlog, short, "Hello")
    of_short = natterlog.fake.seen[-1].body["options"]
    await reply_to(natterlog, long, "word " * 12_000)
    of_long = natterlog.fake.seen[-1].body["options"]

    assert "num_ctx" not in of_short
    assert of_long["num_ctx"] == 8_192  # what its window has


# -- what stays here --------------------------------------------------------------------


@every_provider
@pytest.mark.parametrize(
    "script",
    [
        {"fail": "400x9"},
        {"fail": "503x9", "retry_after": 0.01},
        {"fault": "error@3", "error": "invalid_request_error"},
    ],
    ids=["refused", "tried again", "broken off"],
)
async def test_what_a_provider_gives_away_is_shown_nowhere(
    natterlog: Running, provider: str, script: dict[str, Any]
):
    secrets = [
        *KEYS.values(),
        "sk-planted1234",
        "bearerofnews77",
        "10.11.12.13",
        "planted.internal",
    ]
    sentence = (
        f"No: {secrets[0]} {secrets[1]} sk-planted1234, Bearer bearerofnews77, "
        "http://user:bearerofnews77@10.11.12.13:8000/v1, planted.internal:99"
    )
    natterlog.fake.default = Script(sentence=sentence, **script)
    session_id = await natterlog.client.session(model=a_model(provider))

    error = await failed(natterlog, session_id, "Hello")
    body = {"session_id": session_id, "content": "Again"}
    shown = [json.dumps(error)]
    shown.append(json.dumps(await natterlog.client.call("POST", "/messages", json=body)))
    for path in (f"/messages/{session_id}", f"/sessions/{session_id}/events"):
        async with natterlog.client.http.get(natterlog.client.url(path)) as response:
            shown.append(await response.text())
    shown.append(natterlog.system.logs())

    assert "No: [redacted] [redacted] [redacted], Bearer [redacted]" in error["message"]
    assert [secret for secret in secrets for text in shown if secret in text] == []
    assert '"event": "run.failed"' in shown[-1]
    assert '"event": "consumer.failed"' not in shown[-1]
