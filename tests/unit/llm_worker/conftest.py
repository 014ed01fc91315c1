"""What the tests of the providers share: the fake upstream, and each provider pointed at it."""

from collections.abc import AsyncIterator, Sequence

import pytest

from services.llm_worker.providers.base import (
    Ended,
    Prompt,
    PromptFile,
    PromptMessage,
    Provider,
    ProviderError,
)
from services.llm_worker.providers.registry import Registry
from shared.settings import Settings
from tests.support.fake_provider import FakeProvider

MODELS = {"openai": "fake-gpt", "ollama": "fake-llama", "anthropic": "claude-haiku-5-5"}


def settings_for(fake: FakeProvider, **more: object) -> Settings:
    """All three providers at the fake."""
    return Settings(
        openai_base_url=fake.openai_url,
        openai_api_key="openai-key",
        ollama_host=fake.url,
        anthropic_api_key="anthropic-key",
        anthropic_base_url=fake.url,
        demo_rate=0,
        **more,  # pyright: ignore[reportArgumentType]
    )


def asking(provider: str, message: str, files: Sequence[PromptFile] = (), **more: object) -> Prompt:
    """``message`` to the provider's model at the fake."""
    return Prompt(
        model=MODELS[provider],
        messages=[PromptMessage("user", message, list(files))],
        **more,  # pyright: ignore[reportArgumentType]
    )


async def reply_of(provider: Provider, prompt: Prompt) -> tuple[str, Ended]:
    """The whole text, every piece of it checked, and the end."""
    pieces: list[str] = []
    async for piece in provider.stream(prompt):
        if isinstance(piece, Ended):
            return "".join(pieces), piece
        assert piece, "an empty piece"
        assert piece.encode(), "no valid Unicode"
        pieces.append(piece)
    raise AssertionError("no end")


async def fault_of(provider: Provider, prompt: Prompt) -> tuple[str, ProviderError]:
    """The text until a fault ended the reply, and the fault."""
    text = ""
    try:
        async for piece in provider.stream(prompt):
            assert isinstance(piece, str), "it has ended well"
            text += piece
    except ProviderError as fault:
        return text, fault
    raise AssertionError("no end")


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
async def registry(fake: FakeProvider) -> AsyncIterator[Registry]:
    registry = Registry(settings_for(fake))
    yield registry
    await registry.aclose()


@pytest.fixture
async def impatient(fake: FakeProvider) -> AsyncIterator[Registry]:
    """As ``registry``, but a silence of 0.3 s is too long, and 1 s before the first word."""
    registry = Registry(settings_for(fake, llm_timeout=0.3, first_word_timeout=1.0))
    await registry.preload()  # the import would count as silence
    yield registry
    await registry.aclose()


@pytest.fixture(params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    """Each provider that talks HTTP."""
    return request.param
