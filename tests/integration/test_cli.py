"""The command line: what it asks for, what it refuses, what it imports."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.command_table import SERVICES
from services.cli.commands.models import table
from services.cli.commands.service import run_service
from services.cli.commands.up import with_options
from services.cli.main import main
from shared.offers import OpenCircuit
from shared.settings import Settings
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


@pytest.mark.parametrize("command", ["up", *SERVICES, "rebuild", "models"])
def test_a_bad_setting_names_its_variable_and_ends_with_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("NATTERLOG_SLOTS", "many")

    code = main([command])

    assert code == 2
    assert capsys.readouterr().err.startswith("natterlog: NATTERLOG_SLOTS is 'many': ")


def test_it_runs_as_a_module_and_tells_its_version():
    result = natterlog("version")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("natterlog 0.")


def test_without_a_command_it_shows_how_to_use_it():
    result = natterlog()

    assert result.returncode == 2
    assert result.stderr.startswith("usage: natterlog [-h] COMMAND")


def test_the_command_line_alone_imports_no_service():
    found = subprocess.run(
        [sys.executable, "-c", "import services.cli.main, sys; print(*sys.modules)"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    heavy = {"anthropic", "aiohttp", "nats", "sqlalchemy", "services.supervisor", "shared.bus"}
    services = {f"services.{name.replace('-', '_')}" for name in SERVICES}
    assert not (heavy | services) & set(found)


def test_a_service_runs_on_uvloop_with_its_settings():
    seen: list[object] = []

    async def service(settings: Settings) -> None:
        seen.extend((type(asyncio.get_running_loop()).__module__, settings))

    settings = Settings()
    run_service(service, settings)

    assert seen == ["uvloop", settings]


def test_options_go_before_the_environment():
    environ = {"NATTERLOG_PORT": "1", "NATTERLOG_HOST": "::1", "OTHER": "kept"}

    changed = with_options(environ, port="2", host=None, data_dir="/there")

    assert changed == {
        "NATTERLOG_PORT": "2",
        "NATTERLOG_HOST": "::1",
        "NATTERLOG_DATA_DIR": "/there",
        "OTHER": "kept",
    }


@pytest.mark.parametrize("count", ["0", "-1", "many", "1000"])
def test_up_with_what_is_no_count_is_refused(count: str):
    result = natterlog("up", f"--workers={count}")

    assert result.returncode == 2
    assert f"argument --workers: expected a number, 1 to 999, and not '{count}'" in result.stderr


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = natterlog("up", "--port", port, "--data-dir", str(tmp_path / "data"))

    assert result.returncode == 1
    assert result.stderr == (
        f"natterlog: Cannot listen on 127.0.0.1:{port}: Address already in use. "
        "Choose another address with --port and --host (make run ARGS='--port …').\n"
    )
    assert not (tmp_path / "data").exists()


def test_a_command_that_is_almost_right_is_named():
    result = natterlog("run", "ls")

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "natterlog: There is no command 'run'. Did you mean runs? `natterlog --help` lists them.\n"
    )


def test_a_setting_that_is_misspelled_is_told_at_the_start(tmp_path: Path):
    result = natterlog(
        "up",
        NATTERLOG_LEASES="5",
        NATTERLOG_XYZ="5",
        NATTERLOG_URL="http://an.example",
        NATTERLOG_PORT="no port",
        NATTERLOG_DATA_DIR=str(tmp_path),
    )

    assert result.stderr.splitlines()[:2] == [
        "natterlog: NATTERLOG_LEASES is no setting, and changes nothing. "
        "Did you mean NATTERLOG_LEASE?",
        "natterlog: NATTERLOG_XYZ is no setting, and changes nothing.",
    ]


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


def test_a_model_that_is_left_alone_is_listed_with_why_and_for_how_long():
    models = [a_model("a/b"), a_model("a/c"), a_model("b/d"), a_model("b/e")]
    circuits = [
        OpenCircuit(
            provider="a",
            model="b",
            state="open",
            retry_after=25,
            last_run="01a21645-bd32-7679-97b7-11daf62003e4",
        ),
        OpenCircuit(provider="a", model="c", state="half_open", retry_after=5),
        OpenCircuit(provider="b", model=None, state="open", retry_after=60),
    ]

    lines = table(models, circuits).splitlines()

    assert [line.split(maxsplit=1) for line in lines[1:]] == [
        ["a/b", "kept failing, see run 01a21645-bd32-7679; left alone for 25 s more"],
        ["a/c", "kept failing; one call tries it now"],
        ["b/d", "its provider cannot be reached; left alone for 60 s more"],
        ["b/e", "its provider cannot be reached; left alone for 60 s more"],
    ]


def test_models_of_a_system_that_does_not_run_are_not_listed(tmp_path: Path):
    result = natterlog("models", NATTERLOG_DATA_DIR=str(tmp_path), NATTERLOG_NATS_URL="")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "natterlog models: nothing is running here; start it with `natterlog up`.\n"
    )
