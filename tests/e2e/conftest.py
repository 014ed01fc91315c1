"""One system for all tests of a module: each uses sessions of its own."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.running import Running, running_system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system_of_module() -> AsyncIterator[Running]:
    async with running_system() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def natterlog(system_of_module: Running) -> Running:
    """The module's system, whose provider has forgotten the tests before."""
    system_of_module.fake.reset()
    return system_of_module
