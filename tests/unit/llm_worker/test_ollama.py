"""What is particular to Ollama."""

from services.llm_worker.providers.base import Prompt, PromptMessage
from services.llm_worker.providers.registry import Registry
from shared.events import Usage
from tests.support.fake_provider import FakeProvider
from tests.unit.llm_worker.conftest import asking, reply_of


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


async def test_its_counts_are_the_usage(fake: FakeProvider, registry: Registry):
    _, ended = await reply_of(registry.providers["ollama"], asking("ollama", "tokens=7"))

    prompt_tokens = len(str(fake.seen[0].body["messages"]).split())
    assert ended.usage == Usage(input_tokens=prompt_tokens, output_tokens=7)


async def test_a_model_says_its_size_and_age(fake: FakeProvider, registry: Registry):
    model = (await registry.providers["ollama"].models())[0]

    assert (model.size, model.modified_at) == (1_000_000, "2026-10-01T00:00:00Z")
