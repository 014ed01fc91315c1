"""What a gateway and its clients survive: a server that dies, a client that does not read."""

import asyncio
from contextlib import suppress
from typing import Self

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from services.supervisor.embedded_nats import free_port
from shared.commands import CreateSession
from shared.ids import LOCAL_USER, new_id
from tests.support.nats_server import NatsServer
from tests.support.stage import DEADLINE, Stage, frame, frames, stage


def path(session_id: str) -> str:
    return f"/ws/ai-chat/session/{session_id}/"


async def begin(made: Stage, session_id: str, ws: aiohttp.ClientWebSocketResponse) -> str:
    """Start a reply on the socket; answers its run."""
    await ws.send_json({"type": "send_message", "message": "Hi"})
    await frames(ws, 3)
    run_id = await made.store.latest()
    await made.store.claim(run_id)
    await made.store.write(run_id, 0, "before ")
    await frame(ws)
    return run_id


async def test_what_happened_while_the_line_was_cut_is_told_afterwards(
    own_nats_server: NatsServer,
):
    async with Line(own_nats_server) as line, stage(own_nats_server.url, line=line.url) as made:
        session_id = await made.session()
        ws = await made.open(path(session_id))
        run_id = await begin(made, session_id, ws)

        await line.cut()
        await made.store.write(run_id, 7, "during ")
        await made.store.end(run_id, "before during after")
        await line.mend()
        events = await frames(ws, 2)

        assert events[0]["full_content"] == "before during after"
        assert events[1]["type"] == "ai_message_complete"


async def test_deltas_that_were_lost_are_read_again_while_the_reply_runs(
    own_nats_server: NatsServer,
):
    async with Line(own_nats_server) as line, stage(own_nats_server.url, line=line.url) as made:
        session_id = await made.session()
        ws = await made.open(path(session_id))
        run_id = await begin(made, session_id, ws)

        await line.cut()
        await made.store.write(run_id, 7, "during")
        await line.mend()

        assert (await frame(ws))["full_content"] == "before during"


async def test_a_new_session_is_announced_although_the_line_was_cut_when_it_was_made(
    own_nats_server: NatsServer,
):
    async with Line(own_nats_server) as line, stage(own_nats_server.url, line=line.url) as made:
        ws = await made.open("/ws/ai-chat/sessions/")
        await frame(ws)

        await line.cut()
        session_id = new_id()
        await made.store.create_session(CreateSession(user_id=LOCAL_USER, session_id=session_id))
        await line.mend()
        event = await frame(ws)

        assert (event["type"], event["session"]["id"]) == ("session_created", session_id)


async def test_sockets_outlive_a_server_that_is_killed(own_nats_server: NatsServer):
    async with stage(own_nats_server.url) as made:
        session_id = await made.session()
        ws = await made.open(path(session_id))
        run_id = await begin(made, session_id, ws)

        await own_nats_server.kill()
        await ws.send_json({"type": "ping"})
        assert await frame(ws) == {"type": "pong"}
        await own_nats_server.start()
        async with asyncio.timeout(DEADLINE):
            await made.bus.wait_connected()
        await made.store.end(run_id, "before and after")
        events = await frames(ws, 2)

        assert events[0]["full_content"] == "before and after"
        assert events[1]["type"] == "ai_message_complete"


async def test_a_client_that_does_not_read_costs_no_memory_and_loses_nothing(on_stage: Stage):
    session_id = await on_stage.session()
    slow = await on_stage.open(path(session_id), max_msg_size=0)
    fast = await on_stage.open(path(session_id), max_msg_size=0)
    await frame(fast)
    run_id = await begin(on_stage, session_id, slow)
    connection = slow._response.connection  # the client's side of the line
    assert connection is not None
    assert connection.transport is not None
    connection.transport.pause_reading()  # type: ignore[attr-defined]
    piece, pieces = "x" * 2000, 300

    for index in range(pieces):
        await on_stage.store.write(run_id, 7 + index * len(piece), piece)
    whole = "before " + piece * pieces
    event = await frame(fast)
    while event.get("full_content") != whole:
        event = await frame(fast)
    connection.transport.resume_reading()  # type: ignore[attr-defined]
    received = [await frame(slow)]
    while received[-1]["full_content"] != whole:
        received.append(await frame(slow))

    assert "before " + "".join(f["content"] for f in received) == whole
    assert len(received) < pieces


async def test_a_client_that_is_gone_when_its_socket_is_upgraded_is_no_defect(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    session_id = await on_stage.session()
    prepare = web.WebSocketResponse.prepare

    async def prepare_for_nobody(ws: web.WebSocketResponse, request: web.BaseRequest) -> object:
        assert request.transport is not None
        request.transport.abort()  # as if the line broke a moment ago
        return await prepare(ws, request)

    monkeypatch.setattr(web.WebSocketResponse, "prepare", prepare_for_nobody)
    with capture_logs() as lines, pytest.raises(aiohttp.ClientError):
        await on_stage.open(path(session_id))

    assert [line for line in lines if line["log_level"] == "error"] == []


class Line:
    """A line to NATS that can be cut while the server goes on."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._listening: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return self._server.url.replace(f":{self._server.port}", f":{self._port}")

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def mend(self) -> None:
        self._port = self._port or free_port()
        self._listening = await asyncio.start_server(self._connect, "127.0.0.1", self._port)

    async def cut(self) -> None:
        if self._listening is not None:
            self._listening.close()
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(_pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.transport.abort()
