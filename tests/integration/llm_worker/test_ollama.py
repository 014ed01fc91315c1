"""What is particular to Ollama."""

from datetime import UTC, datetime

from services.llm_worker.providers.base import ModelInfo, Prompt, PromptMessage
from services.llm_worker.providers.registry import Registry
from shared.events import Usage
from tests.support.fake_provider import FakeProvider
from tests.support.providers import prompt_for, reply_of, settings_for


async def test_the_request_says_what_the_prompt_says(fake: FakeProvider, registry: Registry):
    prompt = Prompt(
        model="fake-llama",
        messages=[PromptMessage("user", "hello")],
        system="Be brief.",
        temperature=0.3,
        max_tokens=99,
    )

    await reply_of(registry.providers["ollama"], prompt)

    assert fake.seen[0].path == "/api/chat"
    assert fake.seen[0].body == {
        "model": "fake-llama",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hello"},
        ],
        "stream": True,
        "options": {"temperature": 0.3, "num_predict": 99},
    }
    assert registry.providers["ollama"].notes(prompt) == []


async def test_a_long_prompt_asks_for_the_context_that_it_needs_and_there_is(
    fake: FakeProvider, registry: Registry
):
    provider = registry.providers["ollama"]
    prompt = prompt_for("ollama", "word " * 6_000)

    await reply_of(provider, prompt)
    before = provider.notes(prompt)
    await provider.models()  # now its window is known
    await reply_of(provider, prompt)

    assert [seen.body["options"] for seen in fake.seen] == [{"num_ctx": 16_384}, {"num_ctx": 8_192}]
    assert before == []
    assert provider.notes(prompt) == [
        "The prompt may have 10,016 tokens, and fake-llama reads 8,192: its window is no larger."
    ]


async def test_a_model_that_is_made_for_a_large_context_is_not_given_less(fake: FakeProvider):
    registry = Registry(settings_for(fake))
    fake.models["ollama"] = ["roomy:latest"]
    provider = registry.providers["ollama"]
    await provider.models()

    await reply_of(provider, Prompt(model="roomy", messages=[PromptMessage("user", "w " * 9_000)]))

    assert fake.seen[0].body["options"] == {}
    await registry.aclose()


async def test_without_the_setting_no_context_is_asked_for(fake: FakeProvider):
    registry = Registry(settings_for(fake, ollama_num_ctx=0))

    await reply_of(registry.providers["ollama"], prompt_for("ollama", "word " * 6_000))

    assert fake.seen[0].body["options"] == {}
    await registry.aclose()


async def test_its_counts_are_the_usage(fake: FakeProvider, registry: Registry):
    _, ended = await reply_of(registry.providers["ollama"], prompt_for("ollama", "tokens=7"))

    prompt_tokens = len(str(fake.seen[0].body["messages"]).split())
    assert ended.usage == Usage(input_tokens=prompt_tokens, output_tokens=7)


async def test_a_model_says_what_it_is_and_what_it_can_do(registry: Registry):
    llama, qwen = await registry.providers["ollama"].models()

    assert llama == ModelInfo(
        name="fake-llama:latest",
        context_window=8_192,
        size=1_000_000,
        modified_at=datetime(2026, 10, 1, tzinfo=UTC),
        digest="f" * 64,
        details=llama.details,
    )
    assert llama.details is not None
    assert llama.details.family == "fake"
    assert (qwen.supports_tools, qwen.supports_vision, qwen.context_window) == (True, True, 40_960)


async def test_a_model_that_cannot_chat_is_not_on_offer(fake: FakeProvider, registry: Registry):
    fake.models["ollama"] = ["nomic-embed:latest", "fake-qwen:1b"]

    offered = await registry.providers["ollama"].models()

    assert [model.name for model in offered] == ["fake-qwen:1b"]


async def test_what_a_model_can_do_is_asked_once(fake: FakeProvider, registry: Registry):
    before = await registry.providers["ollama"].models()
    fake.shows = False

    after = await registry.providers["ollama"].models()

    assert after == before


async def test_a_server_that_tells_no_abilities_still_lists_its_models(
    fake: FakeProvider, registry: Registry
):
    fake.shows = False

    offered = await registry.providers["ollama"].models()

    assert [(m.name, m.supports_vision, m.context_window) for m in offered] == [
        ("fake-llama:latest", False, None),
        ("fake-qwen:1b", False, None),
    ]
