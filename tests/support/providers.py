"""The three providers that talk HTTP, pointed at the fake upstream, and what they answer."""

from collections.abc import Sequence

from services.llm_worker.providers.base import (
    Ended,
    Prompt,
    PromptFile,
    PromptMessage,
    Provider,
    ProviderError,
)
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


def prompt_for(
    provider: str, message: str, files: Sequence[PromptFile] = (), **more: object
) -> Prompt:
    """``message`` to the provider's model at the fake."""
    return Prompt(
        model=MODELS[provider],
        messages=[PromptMessage("user", message, list(files))],
        **more,  # pyright: ignore[reportArgumentType]
    )


async def reply_of(provider: Provider, prompt: Prompt) -> tuple[str, Ended]:
    """The whole text, every piece of it checked, and the end."""
    pieces: list[str] = []

    def write(piece: str) -> None:
        assert piece, "an empty piece"
        assert piece.encode(), "no valid Unicode"
        pieces.append(piece)

    ended = await provider.stream(prompt, write)
    return "".join(pieces), ended


async def fault_of(provider: Provider, prompt: Prompt) -> tuple[str, ProviderError]:
    """The text until a fault ended the reply, and the fault."""
    pieces: list[str] = []
    try:
        await provider.stream(prompt, pieces.append)
    except ProviderError as fault:
        return "".join(pieces), fault
    raise AssertionError("it has ended well")


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Empty:
    """Breakers of which nothing is kept."""

    async def get(self, key: str) -> tuple[bytes | None, int]:
        del key
        return None, 0

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        raise AssertionError

    async def every_value(self) -> list[bytes]:
        return []
