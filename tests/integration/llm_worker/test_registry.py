"""Which provider a model's name means."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.llm_worker.providers.base import ProviderError
from services.llm_worker.providers.registry import FRESH, RECENT, Registry
from shared.settings import Settings
from tests.support.fake_provider import FakeProvider
from tests.support.providers import Clock, settings_for

Make = Callable[..., Registry]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(clock: Clock) -> AsyncIterator[Make]:
    """Makes registries that are closed at the end of the test."""
    async with AsyncExitStack() as stack:

        def make(settings: Settings) -> Registry:
            registry = Registry(settings, clock=clock)
            stack.push_async_callback(registry.aclose)
            return registry

        yield make


async def meaning(registry: Registry, model: str | None) -> str:
    provider, name = await registry.resolve(model)
    return f"{provider.name} {name}"


async def test_without_any_settings_the_demo_answers(make: Make):
    registry = make(Settings())

    assert list(registry.providers) == ["demo"]
    assert await meaning(registry, None) == "demo demo"
    assert await meaning(registry, "demo") == "demo demo"
    assert await meaning(registry, "demo/demo") == "demo demo"


async def test_without_any_settings_another_name_is_unknown(make: Make):
    with pytest.raises(ProviderError) as raised:
        await make(Settings()).resolve("gpt-9")

    assert (raised.value.code, raised.value.transient) == ("model_not_found", False)
    assert raised.value.message == "There is no model 'gpt-9'. There are: demo/demo."


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (Settings(anthropic_api_key="k"), ["anthropic", "demo"]),
        (Settings(ollama_host="http://localhost:11434"), ["ollama", "demo"]),
        (Settings(openai_api_key="k"), ["openai", "demo"]),
        (Settings(openai_base_url="http://localhost/v1"), ["openai", "demo"]),
    ],
)
async def test_a_provider_exists_when_its_settings_do(
    make: Make, settings: Settings, names: list[str]
):
    assert list(make(settings).providers) == names


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("openai/fake-gpt", "openai fake-gpt"),
        ("openai/not-listed", "openai not-listed"),
        ("ollama/hf.co/some/thing:q4", "ollama hf.co/some/thing:q4"),
        ("fake-gpt", "openai fake-gpt"),
        ("fake-qwen:1b", "ollama fake-qwen:1b"),
        ("fake-llama", "ollama fake-llama"),
        ("claude-from-the-future", "anthropic claude-from-the-future"),
        ("demo", "demo demo"),
        (None, "anthropic claude-sonnet-5-5"),
        ("", "anthropic claude-sonnet-5-5"),
    ],
)
async def test_a_name_means_the_provider_that_has_it(
    fake: FakeProvider, make: Make, model: str | None, meant: str
):
    assert await meaning(make(settings_for(fake)), model) == meant


async def test_a_slash_may_be_part_of_a_bare_name(fake: FakeProvider, make: Make):
    fake.models["openai"] = ["meta-llama/llama-4"]

    assert (
        await meaning(make(settings_for(fake)), "meta-llama/llama-4") == "openai meta-llama/llama-4"
    )


async def test_a_name_that_two_offer_is_told_to_be_ambiguous(fake: FakeProvider, make: Make):
    fake.models["openai"] = fake.models["ollama"] = ["twin"]

    with pytest.raises(ProviderError) as raised:
        await make(settings_for(fake)).resolve("twin")

    assert (raised.value.code, raised.value.transient) == ("model_not_found", False)
    assert raised.value.message == "2 providers offer 'twin': say ollama/twin or openai/twin."


async def test_a_name_that_none_offers_is_told_with_those_there_are(fake: FakeProvider, make: Make):
    fake.models |= {"openai": ["a"], "ollama": ["b"], "anthropic": ["c"]}

    with pytest.raises(ProviderError) as raised:
        await make(settings_for(fake)).resolve("d")

    assert (
        raised.value.message
        == "There is no model 'd'. There are: anthropic/c, ollama/b, openai/a, demo/demo."
    )


async def test_the_only_provider_is_given_names_that_nobody_knows(fake: FakeProvider, make: Make):
    registry = make(Settings(ollama_host=fake.url))

    assert await meaning(registry, "new-model") == "ollama new-model"


async def test_a_provider_that_is_down_does_not_hide_the_others_names(
    fake: FakeProvider, make: Make
):
    registry = make(Settings(ollama_host="http://127.0.0.1:9", openai_base_url=fake.openai_url))

    assert await meaning(registry, "fake-gpt") == "openai fake-gpt"
    with pytest.raises(ProviderError) as raised:
        await registry.resolve("perhaps-its-own")
    assert (raised.value.code, raised.value.transient) == ("provider_unavailable", True)


async def test_names_stay_known_when_their_provider_goes_down(
    fake: FakeProvider, make: Make, clock: Clock
):
    async with FakeProvider() as other:
        registry = make(Settings(ollama_host=other.url, openai_base_url=fake.openai_url))
        await registry.models()

    clock.now += FRESH + 1

    assert await meaning(registry, "fake-llama") == "ollama fake-llama"


async def test_a_model_that_was_added_is_found_after_a_moment(
    fake: FakeProvider, make: Make, clock: Clock
):
    registry = make(settings_for(fake))
    await registry.models()
    fake.models["ollama"].append("pulled:latest")

    clock.now += RECENT + 1

    assert await meaning(registry, "pulled") == "ollama pulled"


async def test_the_default_is_what_the_settings_say(fake: FakeProvider, make: Make):
    assert (
        await meaning(make(settings_for(fake, default_model="fake-qwen:1b")), None)
        == "ollama fake-qwen:1b"
    )
    assert (
        await meaning(make(settings_for(fake, claude_model="claude-opus-5-5")), None)
        == "anthropic claude-opus-5-5"
    )


async def test_the_default_is_else_the_first_model_on_offer(fake: FakeProvider, make: Make):
    registry = make(Settings(ollama_host=fake.url, openai_base_url=fake.openai_url))

    assert await meaning(registry, None) == "ollama fake-llama:latest"


async def test_the_default_skips_a_provider_that_is_down_or_has_none(
    fake: FakeProvider, make: Make
):
    down = make(Settings(ollama_host="http://127.0.0.1:9", openai_base_url=fake.openai_url))
    assert await meaning(down, None) == "openai fake-gpt"

    fake.models["ollama"] = []
    empty = make(Settings(ollama_host=fake.url))
    assert await meaning(empty, None) == "demo demo"


async def test_the_demo_does_not_stand_in_for_a_provider_that_is_down(make: Make):
    registry = make(Settings(ollama_host="http://127.0.0.1:9"))

    with pytest.raises(ProviderError) as raised:
        await registry.resolve(None)

    assert (raised.value.code, raised.value.transient) == ("provider_unavailable", True)


async def test_the_catalogue_has_every_model_and_who_could_not_be_asked(
    fake: FakeProvider, make: Make
):
    registry = make(Settings(ollama_host="http://127.0.0.1:9", openai_base_url=fake.openai_url))

    catalogue = await registry.models()

    assert [(provider, info.name) for provider, info in catalogue.models] == [
        ("openai", "fake-gpt"),
        ("openai", "fake-gpt-mini"),
        ("demo", "demo"),
    ]
    assert [(name, fault.code) for name, fault in catalogue.unavailable] == [
        ("ollama", "provider_unavailable")
    ]


async def test_what_a_provider_that_is_down_is_reached_by_stays_here(make: Make):
    registry = make(
        Settings(
            openai_base_url="http://user:secret-password@127.0.0.1:9/v1",
            ollama_host="http://127.0.0.1:9",
            anthropic_api_key="k",
            anthropic_base_url="http://127.0.0.1:9",
        )
    )

    catalogue = await registry.models()
    with pytest.raises(ProviderError) as raised:
        await registry.find(None)

    messages = [fault.message for _, fault in catalogue.unavailable]
    assert len(messages) == 3
    assert all("cannot be reached: " in message for message in [*messages, str(raised.value)])
    assert not [m for m in [*messages, str(raised.value)] if "127.0.0.1" in m or "secret" in m]
    assert registry.urls == {
        "openai": "http://127.0.0.1:9/v1",
        "ollama": "http://127.0.0.1:9",
        "anthropic": "http://127.0.0.1:9",
    }


async def test_certificates_that_are_not_there_stop_no_worker(make: Make):
    registry = make(Settings(anthropic_api_key="k", ssl_cert_file=Path("/nowhere/ca.pem")))

    with capture_logs() as logs:
        await registry.preload()

    assert [(line["event"], "SSL_CERT_FILE" in line["error"]) for line in logs] == [
        ("provider.unprepared", True)
    ]


async def test_preloading_is_enough_for_a_first_reply_without_an_import(
    fake: FakeProvider, make: Make
):
    registry = make(settings_for(fake))

    await registry.preload()

    assert [info.name for info in await registry.providers["anthropic"].models()]


async def test_a_list_is_asked_for_anew_before_a_name_is_refused(
    fake: FakeProvider, make: Make, clock: Clock
):
    registry = make(Settings(openai_base_url=fake.openai_url))
    await registry.models()
    fake.models["openai"] = ["brand-new"]

    with pytest.raises(ProviderError, match="There is no model 'brand-new'"):
        await registry.find("brand-new")
    clock.now += RECENT + 1

    assert await registry.find("brand-new") == "openai/brand-new"


async def test_whether_a_name_is_on_a_list_that_cannot_be_had_any_more_is_not_known(
    fake: FakeProvider, make: Make, clock: Clock
):
    registry = make(Settings(openai_base_url=fake.openai_url))
    await registry.models()
    await fake.stop()
    clock.now += RECENT + 1

    with pytest.raises(ProviderError) as raised:
        await registry.find("perhaps-new")

    assert (raised.value.code, raised.value.transient) == ("provider_unavailable", True)
    assert await registry.find("fake-gpt") == "openai/fake-gpt"


async def test_a_routers_name_may_begin_like_its_providers(fake: FakeProvider, make: Make):
    fake.models["openai"] = ["openai/gpt-9", "gpt-8"]
    registry = make(Settings(openai_base_url=fake.openai_url))
    await registry.models()

    assert await meaning(registry, "openai/gpt-9") == "openai openai/gpt-9"
    assert await meaning(registry, "openai/gpt-8") == "openai gpt-8"
    assert await meaning(registry, "openai/gpt-7") == "openai gpt-7"
