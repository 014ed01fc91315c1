"""The configuration that the embedded server and the tests' servers run with."""

import nats
from nats.js.api import RePublish, StreamConfig

from tests.support.nats_server import NatsServer


async def test_only_the_server_publishes_on_live(nats_server: NatsServer):
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    client = await nats.connect(nats_server.url, error_cb=note)
    await client.jetstream().add_stream(
        StreamConfig(
            name="REPUBLISHED",
            subjects=["republished.>"],
            republish=RePublish(src="republished.>", dest="live.republished.>"),
        )
    )
    heard = await client.subscribe("live.republished.>")

    await client.publish("live.republished.forged", b"forged")
    await client.jetstream().publish("republished.real", b"real")
    first = await heard.next_msg(timeout=10)

    await client.jetstream().delete_stream("REPUBLISHED")
    await client.close()
    assert first.data == b"real"
    assert refused == ['nats: permissions violation for publish to "live.republished.forged"']


async def test_what_is_stored_survives_a_kill(own_nats_server: NatsServer):
    client = await nats.connect(own_nats_server.url)
    await client.jetstream().add_stream(StreamConfig(name="KEPT", subjects=["kept"]))
    await client.jetstream().publish("kept", b"1")
    await client.close()

    await own_nats_server.kill()
    await own_nats_server.start()

    client = await nats.connect(own_nats_server.url)
    info = await client.jetstream().stream_info("KEPT")
    await client.close()
    assert info.state.messages == 1
