"""One system for all tests of a process; each uses sessions of its own, and mends what it breaks.

All end-to-end tests run in the loop of the session, because that system lives in it.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.log_checks import wait_until_all_ended
from tests.support.running import Running, running_system, settings_of


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_system() -> AsyncIterator[Running]:
    async with running_system() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module(shared_system: Running) -> Running:
    """What a module's tests share: a module that needs other settings has its own in its place."""
    return shared_system


@pytest_asyncio.fixture(loop_scope="session")
async def natterlog(system_of_module: Running) -> Running:
    """The module's system, where no run is open and the provider has forgotten the tests before."""
    await wait_until_all_ended(system_of_module.bus)
    system_of_module.fake.reset()
    return system_of_module


@pytest_asyncio.fixture(loop_scope="session")
async def own_natterlog(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """A system of the test's own, with what ``@pytest.mark.settings`` says."""
    async with running_system(**settings_of(request)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_system_of_module() -> AsyncIterator[Running]:
    """For modules that fill the log, or read all of it."""
    async with running_system() as running:
        yield running
