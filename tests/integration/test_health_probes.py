"""What counts as stuck, whoever is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from services.supervisor.health_probes import failing_checks, nats_greets
from tests.support.nats_server import NatsServer
from tests.support.system import free_port

READY = {"status": "ready", "service": "store", "checks": {"bus": "ok"}, "restart_for": []}
WAITING = READY | {"checks": {"bus": "ok", "store": "no store answers"}}
CUT_OFF = READY | {"checks": {"bus": "not connected", "store": "no"}, "restart_for": ["bus"]}


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[int]:
    """A port on which everybody gets this answer; None: nobody gets any."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()


def http(body: object, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n".encode() + (
        body if isinstance(body, bytes) else msgspec.json.encode(body)
    )


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        (http(READY), {}),
        (http(WAITING, "503 Service Unavailable"), {}),
        (http(CUT_OFF, "503 Service Unavailable"), {"bus": "not connected"}),
        (http({"code": "misdirected"}, "421 Misdirected Request"), {}),
        (http(b"<html>"), {}),
        (http(b"", "500 Internal Server Error"), {}),
        (b"", {"health": "the connection was closed without an answer"}),
        (None, {"health": "no answer within 0.2 s"}),
    ],
)
async def test_only_what_a_new_start_may_mend_counts(answer: bytes | None, faults: dict[str, str]):
    async with answering(answer) as port:
        assert await failing_checks("127.0.0.1", port, 0.2) == faults


async def test_whoever_refuses_connections_is_stuck():
    assert "no answer" in (await failing_checks("127.0.0.1", free_port(), 5.0))["health"]


async def test_a_nats_server_is_there_when_it_greets(own_nats_server: NatsServer):
    nobody = f"nats://127.0.0.1:{free_port()}"

    there = await nats_greets(own_nats_server.url, 5.0)
    own_nats_server.pause()
    paused = await nats_greets(own_nats_server.url, 0.2)
    own_nats_server.resume()

    assert (there, paused) == (True, False)
    assert not await nats_greets(nobody, 5.0)


@pytest.mark.parametrize("line", [b"HTTP/1.1 400\r\n\r\n\r\n", b""])
async def test_whoever_greets_otherwise_is_no_nats_server(line: bytes):
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert not await nats_greets(f"nats://127.0.0.1:{port}", 5.0)
