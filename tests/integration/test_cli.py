"""The command line: what it asks for, what it refuses, what it imports."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services import cli, supervisor
from services.child import Backoff
from services.embedded_nats import NatsServerUnusable, check_version
from services.models import table
from shared.settings import Settings, read_settings
from tests.support.fake_models import a_model


def natterlog(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env={**os.environ, **environ},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("command", ["up", *cli.SERVICES, "rebuild", "models"])
def test_a_bad_setting_names_its_variable_and_ends_with_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("NATTERLOG_SLOTS", "many")

    code = cli.main([command])

    assert code == 2
    assert capsys.readouterr().err.startswith("natterlog: NATTERLOG_SLOTS is 'many': ")


def test_it_runs_as_a_module_and_tells_its_version():
    told = natterlog("version")

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("natterlog 0.")


def test_without_a_command_it_shows_how_to_use_it():
    told = natterlog()

    assert told.returncode == 2
    assert told.stderr.startswith("usage: natterlog [-h] COMMAND")


def test_the_command_line_alone_imports_no_service():
    found = subprocess.run(
        [sys.executable, "-c", "import services.cli, sys; print(*sys.modules)"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    heavy = {"anthropic", "aiohttp", "nats", "sqlalchemy", "services.supervisor"}
    services = {f"services.{name.replace('-', '_')}" for name in cli.SERVICES}
    assert not (heavy | services) & set(found)


def test_a_service_runs_on_uvloop_with_its_settings():
    seen: list[object] = []

    async def service(settings: Settings) -> None:
        seen.extend((type(asyncio.get_running_loop()).__module__, settings))

    settings = Settings()
    cli.run_service(service, settings)

    assert seen == ["uvloop", settings]


def test_options_go_before_the_environment():
    environ = {"NATTERLOG_PORT": "1", "NATTERLOG_HOST": "::1", "OTHER": "kept"}

    changed = cli.with_options(environ, port="2", host=None, data_dir="/there")

    assert changed == {
        "NATTERLOG_PORT": "2",
        "NATTERLOG_HOST": "::1",
        "NATTERLOG_DATA_DIR": "/there",
        "OTHER": "kept",
    }


@pytest.mark.parametrize("count", ["0", "-1", "many", "1000"])
def test_up_with_what_is_no_count_is_refused(count: str):
    told = natterlog("up", f"--workers={count}")

    assert told.returncode == 2
    assert f"argument --workers: expected a number, 1 to 999, and not '{count}'" in told.stderr


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = natterlog("up", "--port", port, "--data-dir", str(tmp_path / "data"))

    assert told.returncode == 1
    assert told.stderr == (
        f"natterlog: Cannot listen on 127.0.0.1:{port}: Address already in use. "
        "Choose another address with --port and --host.\n"
    )
    assert not (tmp_path / "data").exists()


def test_services_are_told_what_they_need_and_stop_from_the_edge_inwards():
    settings = read_settings({"NATTERLOG_LOG_FORMAT": "json", "NATTERLOG_PORT": "8123"})
    counts = supervisor.Counts(gateways=2, workers=3)

    groups = supervisor.services(settings, {"KEPT": "1"}, counts, "nats://there")

    assert [[program.name for program in group] for group in groups] == [
        ["gateway-1", "gateway-2"],
        ["llm_worker-1", "llm_worker-2", "llm_worker-3"],
        ["processor"],
        ["store"],
    ]
    assert groups[1][0].command == [sys.executable, "-m", "services.cli", "llm-worker"]
    assert groups[0][0].environ == {
        "KEPT": "1",
        "NATTERLOG_NATS_URL": "nats://there",
        "NATTERLOG_PORT": "8123",
        "NATTERLOG_REUSE_PORT": "1",
        "NATTERLOG_HEALTH_PORT": "0",
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


def test_models_are_listed_in_aligned_columns():
    models = [
        a_model("a/b", context_window=8_192, supports_vision=True),
        a_model("long/name", is_available=False, is_default=True),
    ]

    assert table(models) == (
        "MODEL      DEFAULT  CONTEXT  TOOLS  VISION  STATE\n"
        "a/b                 8,192           yes\n"
        "long/name  yes                              no longer on offer\n"
    )


def test_models_of_a_system_that_does_not_run_are_not_listed(tmp_path: Path):
    told = natterlog("models", NATTERLOG_DATA_DIR=str(tmp_path), NATTERLOG_NATS_URL="")

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == (
        "natterlog models: nothing is running here; start it with `natterlog up`.\n"
    )
