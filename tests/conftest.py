"""What tests of every kind may ask for."""

import logging
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
import pytest_asyncio

from tests.support.nats_server import NatsServer

# An example may take as long as it likes: what a busy machine takes is no fault of the code.
hypothesis.settings.register_profile("natterlog", deadline=None)
# `make unit` draws a fifth of the examples, all tests together draw them all.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=20)
hypothesis.settings.load_profile("natterlog")


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A test that sets up logging, as commands do, leaves its closed stream to no other."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server() -> AsyncIterator[NatsServer]:
    """One server for all tests: use a user of your own, and leave it running."""
    async with NatsServer() as server:
        yield server


@pytest.fixture
async def own_nats_server() -> AsyncIterator[NatsServer]:
    """A server of the test's own, to be killed, paused and started again."""
    async with NatsServer() as server:
        yield server
