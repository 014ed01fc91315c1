"""What the tests of the providers share: the fake upstream, and each provider pointed at it."""

from collections.abc import AsyncIterator

import pytest

from services.llm_worker.providers.registry import Registry
from tests.support.fake_provider import FakeProvider
from tests.support.providers import MODELS, settings_for


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
