"""A system of its own for every test, because each test breaks it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.running import Running, running_system, settings_of


@pytest.fixture
async def natterlog(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """With what ``@pytest.mark.settings`` says."""
    async with running_system(**settings_of(request)) as running:
        yield running
