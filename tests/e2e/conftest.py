"""One system for all tests of a module: each uses sessions of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.support.running import Running, running_system


@pytest.fixture
async def natterlog() -> AsyncIterator[Running]:
    async with running_system() as running:
        yield running
