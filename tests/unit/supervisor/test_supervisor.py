"""The supervisor without its processes: what it starts, when it starts again, what it prints."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.supervisor import supervisor
from services.supervisor.embedded_nats import NatsServerUnusable, check_version
from services.supervisor.supervised_child import Backoff
from shared.settings import Settings, read_settings


def test_services_are_told_what_they_need_and_stop_from_the_edge_inwards():
    settings = read_settings({"NATTERLOG_LOG_FORMAT": "json", "NATTERLOG_PORT": "8123"})
    counts = supervisor.Counts(gateways=2, workers=3)

    environ = {"PATH": "/bin", "NATTERLOG_GRACE": "5", "SECRET_TOKEN": "s"}
    groups = supervisor.services(settings, environ, counts, "nats://there")

    assert [[program.name for program in group] for group in groups] == [
        ["gateway-1", "gateway-2"],
        ["llm_worker-1", "llm_worker-2", "llm_worker-3"],
        ["processor"],
        ["store"],
    ]
    assert groups[1][0].command == [sys.executable, "-m", "services.cli", "llm-worker"]
    assert groups[0][0].environ == {
        "PATH": "/bin",
        "NATTERLOG_GRACE": "5",
        "NATTERLOG_NATS_URL": "nats://there",
        "NATTERLOG_PORT": "8123",
        "NATTERLOG_REUSE_PORT": "1",
        "NATTERLOG_HEALTH_PORT": "0",
        "NATTERLOG_PROVIDERS": "",
        "PYTHONUNBUFFERED": "1",
    }


def test_pauses_between_starts_grow_to_a_bound_and_are_forgiven_after_health():
    backoff = Backoff()
    pauses = [0.0]
    for _ in range(8):
        pauses.append(backoff.after(pauses[-1], healthy=1))

    assert pauses[1:] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.after(10.0, healthy=30) == 0.2


def test_a_server_that_is_too_old_is_refused_with_the_version_it_has(tmp_path: Path):
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho 'nats-server: v2.9.25'\n")
    old.chmod(0o755)

    with pytest.raises(NatsServerUnusable, match=r"needs nats-server 2\.12 or newer.*v2\.9\.25"):
        check_version(old)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_line_that_is_printed_gets_a_first_reply(host: str):
    asked: list[object] = []

    async def create(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"user_id": "nobody", "id": "0192-ab", "title": None}, status=201)

    async def send(request: web.Request) -> web.Response:
        asked.append((dict(request.query), await request.json()))
        return web.Response(text="data: hi")

    app = web.Application()
    app.router.add_post("/api/v1/chat/sessions", create)
    app.router.add_post("/api/v1/chat/messages", send)
    async with TestServer(app) as server:
        text = supervisor.announcement(Settings(host=host, port=server.port or 0))
        (line,) = [line for line in text.splitlines() if "curl" in line]
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", line, stdout=asyncio.subprocess.PIPE
        )
        shown, _ = await shell.communicate()

    assert shown == b"data: hi"
    assert asked == [{}, ({"stream": "true"}, {"session_id": "0192-ab", "content": "Hello"})]
