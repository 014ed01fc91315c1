"""What is particular to OpenAI-compatible servers."""

from datetime import UTC, datetime

import pytest

from services.llm_worker.providers.base import ModelInfo, Prompt, PromptMessage
from services.llm_worker.providers.connections import Connections
from services.llm_worker.providers.openai import DEFAULT_URL, OpenAI
from services.llm_worker.providers.outbound import Outbound
from services.llm_worker.providers.registry import Registry
from services.llm_worker.providers.silence import Timeouts
from shared.events import Usage
from shared.settings import Settings
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.providers import prompt_for, reply_of

TALK = [
    PromptMessage("user", "one two"),
    PromptMessage("assistant", "three"),
    PromptMessage("user", "four"),
]


async def test_the_request_says_what_the_prompt_says(fake: FakeProvider, registry: Registry):
    prompt = Prompt(
        model="fake-gpt", messages=TALK, system="Be brief.", temperature=0.3, max_tokens=99
    )

    await reply_of(registry.providers["openai"], prompt)

    assert fake.seen[0].headers["authorization"] == "Bearer openai-key"
    assert fake.seen[0].body == {
        "model": "fake-gpt",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one two"},
            {"role": "assistant", "content": "three"},
            {"role": "user", "content": "four"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.3,
        "max_tokens": 99,
    }


async def test_what_the_prompt_leaves_open_is_not_sent(fake: FakeProvider, registry: Registry):
    await reply_of(registry.providers["openai"], prompt_for("openai", "hello"))

    assert set(fake.seen[0].body) == {"model", "messages", "stream", "stream_options"}


async def test_without_a_key_none_is_sent(fake: FakeProvider):
    registry = Registry(Settings(openai_base_url=fake.openai_url))

    await reply_of(registry.providers["openai"], prompt_for("openai", "hello"))

    assert "authorization" not in fake.seen[0].headers
    await registry.aclose()


async def test_cached_tokens_are_counted_apart(fake: FakeProvider, registry: Registry):
    prompt = Prompt(model="fake-gpt", messages=TALK)

    _, ended = await reply_of(registry.providers["openai"], prompt)

    prompt_tokens = len(str(fake.seen[0].body["messages"]).split())
    assert ended.usage == Usage(
        input_tokens=prompt_tokens - 1, cache_read_input_tokens=1, output_tokens=20
    )


@pytest.mark.parametrize(
    ("base_url", "model", "sent"),
    [
        (DEFAULT_URL, "gpt-4o", {"temperature": 0.3, "max_completion_tokens": 99}),
        (DEFAULT_URL, "gpt-5-mini", {"max_completion_tokens": 99}),
        (DEFAULT_URL, "o3", {"max_completion_tokens": 99}),
        ("http://localhost:8080/v1", "gpt-5-mini", {"temperature": 0.3, "max_tokens": 99}),
    ],
)
def test_openais_own_reasoning_models_take_no_temperature_and_another_limit(
    base_url: str, model: str, sent: dict[str, object]
):
    connections = Connections(Outbound(Settings()))
    provider = OpenAI(connections, base_url=base_url, api_key=None, timeouts=Timeouts(1, 1))
    prompt = Prompt(model=model, messages=TALK, temperature=0.3, max_tokens=99)

    body = provider._body(prompt)

    always = {"model", "messages", "stream", "stream_options"}
    assert {key: value for key, value in body.items() if key not in always} == sent
    assert bool(provider.notes(prompt)) == ("temperature" not in sent)


async def test_models_that_do_not_chat_are_not_listed(fake: FakeProvider, registry: Registry):
    fake.models["openai"] = ["text-embedding-3-small", "gpt-4o", "whisper-1", "tts-1", "dall-e-3"]

    models = await registry.providers["openai"].models()

    assert [model.name for model in models] == ["gpt-4o"]


async def test_a_finish_reason_is_enough_when_the_connection_breaks_after_it(
    fake: FakeProvider, registry: Registry
):
    prompt = prompt_for("openai", "tokens=6 fault=undone")

    text, ended = await reply_of(registry.providers["openai"], prompt)

    assert check_unspliced(text) == ("a1", 6)
    assert ended.stop_reason == "end_turn"


async def test_a_model_says_its_age_and_little_else(registry: Registry):
    model = (await registry.providers["openai"].models())[0]

    assert model == ModelInfo(
        name="fake-gpt", modified_at=datetime.fromtimestamp(1_790_000_000, UTC)
    )
