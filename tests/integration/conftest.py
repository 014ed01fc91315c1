"""What integration tests may ask for."""

import pytest

from tests.support.nats_server import NatsServer, forget_everything


@pytest.fixture
async def nats_server(nats_server: NatsServer) -> NatsServer:
    """The server of all tests, empty: a store would first apply what others have left."""
    await forget_everything(nats_server)
    return nats_server
