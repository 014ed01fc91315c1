"""What contract tests may ask for."""

from collections.abc import AsyncIterator

import pytest

from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, stage


@pytest.fixture
async def on_stage(nats_server: NatsServer) -> AsyncIterator[Stage]:
    """A gateway with the default settings."""
    async with stage(nats_server.url) as made:
        yield made
