"""What is particular to Claude."""

from datetime import UTC, datetime

import pytest

from services.llm_worker.providers.anthropic import MAX_TOKENS
from services.llm_worker.providers.base import Prompt, PromptMessage
from services.llm_worker.providers.registry import Registry
from shared.events import Usage
from tests.support.fake_provider import FakeProvider
from tests.support.providers import fault_of, prompt_for, reply_of, settings_for


async def test_the_request_says_what_the_prompt_says_but_the_temperature(
    fake: FakeProvider, registry: Registry
):
    prompt = Prompt(
        model="claude-haiku-5-5",
        messages=[PromptMessage("user", "hello")],
        system="Be brief.",
        temperature=0.3,
        max_tokens=99,
    )

    await reply_of(registry.providers["anthropic"], prompt)

    assert fake.seen[0].body == {
        "model": "claude-haiku-5-5",
        "messages": [{"role": "user", "content": "hello"}],
        "system": "Be brief.",
        "max_tokens": 99,
        "stream": True,
    }
    assert registry.providers["anthropic"].notes(prompt) == [
        "Anthropic's API takes no temperature, so it was not sent."
    ]


async def test_the_limit_that_the_api_insists_on_comes_from_the_settings(fake: FakeProvider):
    for settings in (settings_for(fake), settings_for(fake, claude_max_tokens=77)):
        registry = Registry(settings)
        await reply_of(registry.providers["anthropic"], prompt_for("anthropic", "hello"))
        await registry.aclose()

    assert [seen.body["max_tokens"] for seen in fake.seen] == [MAX_TOKENS, 77]


async def test_usage_is_what_the_last_event_says_of_each_count(
    fake: FakeProvider, registry: Registry
):
    _, ended = await reply_of(registry.providers["anthropic"], prompt_for("anthropic", "tokens=7"))

    assert ended.usage == Usage(
        input_tokens=len(str(fake.seen[0].body["messages"]).split()),
        output_tokens=7,
        cache_creation_input_tokens=2,
        cache_read_input_tokens=1,
    )


@pytest.mark.parametrize("fault", ["error@2", "drop@2", "end@2", "stall@2"])
async def test_a_reply_that_broke_off_tells_what_it_has_cost_already(
    fake: FakeProvider, impatient: Registry, fault: str
):
    prompt = prompt_for("anthropic", f"tokens=7 rate=500 fault={fault}")

    _, error = await fault_of(impatient.providers["anthropic"], prompt)

    assert error.usage == Usage(
        input_tokens=len(str(fake.seen[0].body["messages"]).split()),
        output_tokens=1,
        cache_creation_input_tokens=2,
        cache_read_input_tokens=1,
    )


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        ("overloaded_error", "provider_unavailable", True),
        ("rate_limit_error", "provider_unavailable", True),
        ("timeout_error", "timeout", True),
        ("api_error", "provider_error", True),
        ("invalid_request_error", "provider_error", False),
        ("authentication_error", "provider_error", False),
        ("permission_error", "provider_error", False),
        ("not_found_error", "provider_error", False),  # because its list does have the model
    ],
)
async def test_an_error_event_is_judged_by_its_type(
    fake: FakeProvider, registry: Registry, error: str, code: str, transient: bool
):
    prompt = prompt_for("anthropic", f"fault=error@2 error={error}")

    _, fault = await fault_of(registry.providers["anthropic"], prompt)

    assert (fault.code, fault.transient) == (code, transient)


async def test_a_model_says_what_it_can(fake: FakeProvider, registry: Registry):
    model = (await registry.providers["anthropic"].models())[0]

    assert model.display_name == "Claude-Sonnet-5-5"
    assert (model.context_window, model.max_tokens) == (200_000, 64_000)


async def test_which_models_see_is_what_the_list_says(fake: FakeProvider, registry: Registry):
    fake.models["anthropic"] = ["claude-haiku-5-5", "claude-blind-5-5"]

    models = await registry.providers["anthropic"].models()

    assert [(m.supports_vision, m.supports_tools) for m in models] == [(True, True), (False, True)]
    assert [m.modified_at for m in models] == [datetime(2026, 10, 1, tzinfo=UTC)] * 2
