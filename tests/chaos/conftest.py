"""A system of its own for every test, because each test breaks it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.running import Running, running_system


@pytest.fixture
async def natterlog() -> AsyncIterator[Running]:
    async with running_system() as running:
        yield running
