"""A process whose connection to NATS is closed for good says why, and ends."""

import asyncio
import re
import sys

import pytest

from shared.bus import Bus, BusClosed, NoAnswer, Unsendable
from shared.connection import MIN_PAYLOAD
from tests.support.fake_script import Script
from tests.support.log_checks import wait_until_ended
from tests.support.native_client import Reply
from tests.support.nats_server import NatsServer
from tests.support.running import running_system
from tests.support.system import ROOT

DEADLINE = 20.0
MOST = 8 * 1024 * 1024


def change(server: NatsServer, pattern: str, instead: str, *, reload: bool = True) -> None:
    """Change the server's configuration, and have it read that at once."""
    file = server.directory / "nats.conf"
    changed, count = re.subn(pattern, instead, file.read_text())
    assert count == 1
    file.write_text(changed)
    if reload:
        server.reload()


def other_password(server: NatsServer, *, reload: bool = True) -> None:
    change(server, r'password: ".*"', 'password: "another"', reload=reload)


async def closed(bus: Bus) -> str:
    async with asyncio.timeout(DEADLINE):
        await bus.wait_closed()
    assert not bus.connected
    assert bus.closed_because is not None
    return bus.closed_because


async def round_trip(bus: Bus) -> None:
    await bus.api("INFO")


# -- the connection itself ------------------------------------------------------------


async def test_a_server_that_hangs_up_for_good_is_noticed(own_nats_server: NatsServer):
    async with Bus(own_nats_server.url, name="test") as bus:
        # Beside the guard, as only a defect would: natterlog itself sends no such thing.
        bus._client.post("sig.test", bytes(MOST + 1), "", b"")

        assert await closed(bus) == "nats: maximum payload violation"
        with pytest.raises(NoAnswer):
            bus.post("sig.test", b"too late")


async def test_a_user_that_is_turned_out_is_noticed(own_nats_server: NatsServer):
    async with Bus(own_nats_server.url, name="test") as bus:
        other_password(own_nats_server)

        assert await closed(bus) == "nats: authorization failed"


async def test_a_user_that_is_not_let_in_again_is_noticed(own_nats_server: NatsServer):
    async with Bus(own_nats_server.url, name="test") as bus:
        await own_nats_server.kill()
        other_password(own_nats_server, reload=False)
        await own_nats_server.start()

        assert (await closed(bus)).startswith("nats-server refuses our user")


async def test_a_user_that_is_not_let_in_at_all_is_told_at_once(own_nats_server: NatsServer):
    url = own_nats_server.url.replace("natterlog:", "somebody:")

    async with asyncio.timeout(DEADLINE):
        with pytest.raises(BusClosed, match="refuses our user"):
            await Bus(url, name="test").__aenter__()


async def test_a_server_that_takes_short_messages_only_is_none_for_us(
    own_nats_server: NatsServer,
):
    async with Bus(own_nats_server.url, name="test") as bus:
        await own_nats_server.kill()
        change(own_nats_server, "8MB", str(MIN_PAYLOAD - 1), reload=False)
        await own_nats_server.start()

        assert str(MIN_PAYLOAD) in await closed(bus)


async def test_a_reader_that_stopped_is_no_connection_and_is_mended(own_nats_server: NatsServer):
    async with Bus(own_nats_server.url, name="test") as bus:
        mended = asyncio.Event()
        bus.on_reconnect(mended.set)

        parser = bus._client._ps
        parse = parser.parse

        async def breaks_once(data: bytes = b"") -> None:
            del data
            parser.parse = parse
            raise ValueError("not foreseen")

        parser.parse = breaks_once
        with pytest.raises(NoAnswer):
            await bus.call("$JS.API.INFO", timeout=1.0)
        async with asyncio.timeout(DEADLINE):
            await mended.wait()

        await round_trip(bus)
        assert bus.closed_because is None


async def test_a_reconnecting_that_broke_is_noticed(own_nats_server: NatsServer):
    async with Bus(own_nats_server.url, name="test") as bus:

        async def breaks() -> None:
            raise ValueError("not foreseen")

        client, bus._client._disconnected_cb = bus._client, breaks
        await own_nats_server.kill()

        assert await closed(bus) == "nats-py stopped reconnecting"
        client._disconnected_cb = None  # nats-py calls it again when it is closed
        await own_nats_server.start()


@pytest.mark.parametrize(
    ("subject", "size"),
    [
        ("sig.test", MOST + 1),
        ("sig.two words", 1),
        ("sig.line\r\nPUB", 1),
        ("", 1),
        ("sig." + "x" * 4_000, 1),
        ("sig." + "😀" * 1_000, 1),
    ],
)
async def test_what_the_server_would_hang_up_on_is_not_sent(
    nats_server: NatsServer, subject: str, size: int
):
    async with Bus(nats_server.url, name="test") as bus:
        with pytest.raises(Unsendable):
            bus.post(subject, bytes(size))
        with pytest.raises(Unsendable):
            await bus.call(subject, bytes(size))

        await round_trip(bus)
        assert bus.connected


@pytest.mark.parametrize(
    ("subject", "size"), [("sig.test", MOST), ("sig." + "x" * 3_900, 1), ("sig." + "é" * 900, 1)]
)
async def test_what_the_server_just_takes_is_sent(nats_server: NatsServer, subject: str, size: int):
    async with Bus(nats_server.url, name="test") as bus:
        heard = asyncio.Event()
        await bus.listen("sig.>", lambda _: heard.set())
        await round_trip(bus)

        bus.post(subject, bytes(size))

        async with asyncio.timeout(DEADLINE):
            await heard.wait()


HANGS = """
import asyncio, sys
from shared import lifecycle
from shared.settings import Settings

async def main():
    async with lifecycle.running(Settings(nats_url=sys.argv[1]), "test") as life:
        print("ready", flush=True)
        while True:
            await asyncio.sleep(1000)

lifecycle.CLOSING = 0.2
asyncio.run(main())
"""


async def test_a_process_that_hangs_when_it_should_end_is_ended(own_nats_server: NatsServer):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HANGS, own_nats_server.url),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    await process.stdout.readuntil(b"ready")

    other_password(own_nats_server)
    async with asyncio.timeout(DEADLINE):
        output = await process.stdout.read()
        code = await process.wait()

    assert code == 1
    assert b"bus.closed" in output


# -- every service ---------------------------------------------------------------------


async def test_every_service_whose_connection_is_closed_ends_and_says_why():
    async with running_system() as natterlog:
        services = natterlog.system.processes
        session = await natterlog.client.session()
        reply = Reply()
        await natterlog.client.start(reply, session, "tokens=5000 rate=20")

        other_password(natterlog.system.nats)
        codes = await asyncio.gather(*(process.ended() for process in services))

        assert codes == [1, 1, 1, 1]
        for process in services:
            assert '"reason": "nats: authorization failed"' in process.log.read_text()
            assert "natterlog: the connection to NATS is closed for good" in process.log.read_text()


async def test_a_worker_that_the_server_hung_up_on_ends_and_the_next_one_goes_on():
    async with running_system(NATTERLOG_LEASE="2") as natterlog:
        worker = natterlog.system.one("llm-worker")
        session = await natterlog.client.session()
        natterlog.fake.next.append(Script(reply=f"First {'x' * 300_000} last", rate=1))
        reply = Reply()
        await natterlog.client.start(reply, session, "A reply with a long middle.")
        await natterlog.client.follow(reply, until=1)

        # No client is told of a new bound: so the worker still believes the old one.
        change(natterlog.system.nats, "8MB", "20KB")
        code = await worker.ended()
        change(natterlog.system.nats, "20KB", "8MB")
        await worker.start()
        await natterlog.client.follow(reply)

        run = await wait_until_ended(natterlog.bus, reply.run_id)
        reply.check()
        assert code == 1
        assert '"reason": "nats: maximum payload violation"' in worker.log.read_text()
        assert run.previous(1).text.startswith("First ")
        assert run.final.status == "completed"
