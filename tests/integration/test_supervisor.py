"""``natterlog up``: real processes and a real nats-server; the services are stubs."""

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import stat
from pathlib import Path

import aiohttp
import nats
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.supervisor import run_file, supervisor
from services.supervisor.embedded_nats import NatsServerUnusable, check_version
from services.supervisor.supervised_child import Backoff, Program, SupervisedChild
from shared.settings import Settings, read_settings
from tests.support.system import free_port
from tests.support.up import DEADLINE, running_again, running_on, up

ALL = ("gateway", "llm_worker", "processor", "store")


async def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), DEADLINE)
    finally:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)


async def test_all_become_ready_and_stop_in_order(tmp_path: Path):
    async with up(tmp_path, *ALL) as it:
        await it.line("natterlog is ready: http://127.0.0.1:8000")
        running_now = running_on(tmp_path)
        mode = stat.S_IMODE((tmp_path / "run.json").stat().st_mode)

        it.signal(signal.SIGINT)
        code = await it.ended()

    stopped = [line for line in it.lines if "asked to stop" in line]
    assert code == 0
    assert stopped == [f"{name} | asked to stop" for name in ALL]
    assert set(running_now.children) == {"nats", *ALL}
    assert running_now.children["store"].health_port
    assert mode == 0o600
    assert not (tmp_path / "run.json").exists()


async def test_other_commands_find_the_running_server(tmp_path: Path):
    settings = read_settings({"NATTERLOG_DATA_DIR": str(tmp_path)})
    before = run_file.running_nats_url(settings)
    async with up(tmp_path, "store") as it:
        await it.line("natterlog is ready")
        url = run_file.running_nats_url(settings)
        assert url
        client = await nats.connect(url)
        await client.flush()
        await client.close()

        it.process.kill()
        await it.process.wait()
        left = (tmp_path / "run.json").read_text()

    assert before is None
    assert url in left
    assert run_file.running_nats_url(settings) is None


async def test_a_killed_service_is_started_again_without_what_it_left_behind(tmp_path: Path):
    async with up(tmp_path, "gateway") as it:
        first = await it.line(r"began (\d+) (\d+) (\S+)")
        await it.line("natterlog is ready")

        os.kill(int(first[1]), signal.SIGKILL)
        ended = await it.line(r".*supervisor\.child_ended.*")
        second = await it.line(r"began (\d+) (\d+) (\S+)")
        await gone(int(first[2]))

        it.signal(signal.SIGTERM)
        code = await it.ended()

    assert second[1] != first[1]
    assert second[3] == first[3]
    line = json.loads(ended[0])
    assert {name: line[name] for name in ("child", "pid", "code", "signal", "worker")} == {
        "child": "gateway",
        "pid": int(first[1]),
        "code": -9,
        "signal": "SIGKILL",
        "worker": None,
    }
    assert code == 0


async def test_a_killed_nats_server_comes_back_on_its_port_with_its_streams(tmp_path: Path):
    reconnected = asyncio.Event()

    async def back() -> None:
        reconnected.set()

    async def ignore(_: Exception) -> None: ...

    async with up(tmp_path, "gateway") as it:
        await it.line("natterlog is ready")
        was = running_on(tmp_path)
        client = await nats.connect(
            was.nats_url,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,
            reconnected_cb=back,
            error_cb=ignore,
        )
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"1")

        os.kill(was.children["nats"].pid, signal.SIGKILL)
        await asyncio.wait_for(reconnected.wait(), DEADLINE)

        kept = await client.jetstream().stream_info("KEPT")
        now = await running_again(tmp_path, "nats")
        await client.close()
        it.signal(signal.SIGTERM)
        await it.ended()

    assert kept.state.messages == 1
    assert now.nats_url == was.nats_url
    assert now.children["nats"].pid != was.children["nats"].pid
    assert now.children["gateway"] == was.children["gateway"]


async def test_a_nats_server_that_is_set_is_used_and_none_is_started(tmp_path: Path):
    elsewhere = "nats://elsewhere:4222"
    async with up(tmp_path, "gateway", NATTERLOG_NATS_URL=elsewhere) as it:
        began = await it.line(r"began \d+ \d+ (\S+)")
        await it.line("natterlog is ready")
        now = running_on(tmp_path)
        it.signal(signal.SIGTERM)
        code = await it.ended()

    assert (code, began[1], now.nats_url) == (0, elsewhere, elsewhere)
    assert set(now.children) == {"gateway"}


async def test_two_on_one_data_directory_is_an_error_that_says_so(tmp_path: Path):
    async with up(tmp_path, "gateway") as first:
        await first.line("natterlog is ready")

        async with up(tmp_path, "gateway") as second:
            code = await second.ended()

    assert code == 1
    assert second.lines[-1].endswith(
        f"natterlog runs already on {tmp_path} (process {first.process.pid}). Stop that one first, "
        "with Ctrl-C or SIGTERM, or give this one its own --data-dir and --port."
    )


async def test_nothing_outlives_a_killed_supervisor_and_the_next_one_starts(tmp_path: Path):
    async with up(tmp_path, "gateway") as it:
        began = await it.line(r"began (\d+) (\d+)")
        await it.line("natterlog is ready")
        pids = [child.pid for child in running_on(tmp_path).children.values()]

        it.signal(signal.SIGKILL)
        for pid in (*pids, int(began[2])):
            await gone(pid)

    async with up(tmp_path, "gateway") as it:
        await it.line("natterlog is ready")
        it.signal(signal.SIGTERM)
        assert await it.ended() == 0


async def test_a_reply_does_not_keep_the_worker_of_a_killed_supervisor(tmp_path: Path):
    async with up(tmp_path, "up", "--port=0", module="services.cli", ANTHROPIC_API_KEY="") as it:
        url = (await it.line(r"natterlog is ready: (\S+)"))[1]
        worker = running_on(tmp_path).children["llm_worker"].pid
        async with aiohttp.ClientSession(f"{url}/api/v1/chat/") as http:
            async with http.post("sessions", json={}) as answer:
                session = (await answer.json())["id"]
            message = {"session_id": session, "content": "demo: words=5000 rate=10"}
            async with http.post("messages?stream=true", json=message) as reply:
                await reply.content.readuntil(b'"chunk"')

                it.signal(signal.SIGKILL)
                await gone(worker)


async def test_a_second_signal_ends_what_does_not_want_to_end(tmp_path: Path):
    async with up(tmp_path, "gateway:stubborn", "store") as it:
        await it.line("natterlog is ready")

        it.signal(signal.SIGINT)
        await it.line(r"gateway \| asked to stop")
        it.signal(signal.SIGINT)
        code = await it.ended()

    assert code == 1


async def test_a_signal_while_starting_stops_cleanly(tmp_path: Path):
    async with up(tmp_path, "gateway:never-ready") as it:
        await it.line(r"gateway \| began")

        it.signal(signal.SIGINT)
        code = await it.ended()

    assert code == 0
    assert not any("natterlog is ready" in line for line in it.lines)


async def test_a_service_that_refuses_its_settings_stops_the_start_and_says_why(tmp_path: Path):
    async with up(tmp_path, "gateway:refuses", "store") as it:
        code = await it.ended()

    last_line = it.lines[it.lines.index("natterlog: gateway did not start. Its last lines:") + 1]
    assert code == 2
    assert last_line == "  natterlog: NATTERLOG_PORT is 'x': expected a port"


async def test_a_child_that_gave_up_before_it_is_stopped_leaves_asyncio_nothing_to_report():
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(context["message"])
    )
    lifeline, other_end = os.pipe()
    refusing = Program(name="store", command=["sh", "-c", "exit 2"], environ={})
    child = SupervisedChild(
        refusing,
        lifeline=lifeline,
        show=lambda *_: None,
        changed=lambda: None,
        backoff=Backoff(),
    )

    await asyncio.wait({child.keeper})
    await child.stop(grace=DEADLINE, forced=asyncio.Event())

    del child
    gc.collect()
    os.close(lifeline)
    os.close(other_end)
    assert reported == []


@pytest.mark.parametrize("name", ['dät€ "1" \\ $HOME #%?', "two\nlines\x01"])
async def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str):
    async with up(tmp_path / name, *ALL) as it:
        await it.line("natterlog is ready")

        it.signal(signal.SIGINT)
        code = await it.ended()

    assert code == 0
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name / "nats" / "jetstream").is_dir()


async def test_a_nats_server_that_cannot_have_its_files_is_started_once_and_named(tmp_path: Path):
    (tmp_path / "nats").touch()

    async with up(tmp_path, *ALL) as it:
        code = await it.ended()

    assert code == 1
    sentence = f"natterlog: nats did not start in {tmp_path} (NATTERLOG_DATA_DIR). Its last lines:"
    assert sentence in it.lines
    assert "storage directory is not a directory" in it.lines[-1]
    assert not any("starts_again_in" in line for line in it.lines)


async def test_a_service_that_is_never_ready_is_named_with_its_last_lines(tmp_path: Path):
    async with up(tmp_path, "gateway", "processor:never-ready", READY_WITHIN="3") as it:
        code = await it.ended()

    last_line = it.lines[it.lines.index("natterlog: processor did not start. Its last lines:") + 1]
    assert code == 1
    assert last_line == "  still thinking"


async def test_a_service_that_stays_stuck_is_killed_and_started_again(tmp_path: Path):
    async with up(tmp_path, "processor:stuck", "store:waiting", STUCK_FOR="0.5") as it:
        first = await it.line(r"processor \| began (\d+)")
        store = await it.line(r"store \| began (\d+)")
        await it.line("natterlog is ready")

        why = await it.line(r".*child_stuck.*")
        second = await it.line(r"processor \| began (\d+)")
        third = await it.line(r"processor \| began (\d+)")
        now = running_on(tmp_path)
        it.signal(signal.SIGTERM)
        code = await it.ended()

    assert "asleep" in why[0]
    assert len({first[1], second[1], third[1]}) == 3
    assert now.children["store"].pid == int(store[1])  # it waits for another part: let it
    assert code == 0


@pytest.mark.parametrize("stopped", ["gateway", "nats"])
async def test_what_stands_still_is_killed_and_started_again(tmp_path: Path, stopped: str):
    async with up(tmp_path, "gateway", STUCK_FOR="0.5") as it:
        await it.line("natterlog is ready")
        before = running_on(tmp_path)

        os.kill(before.children[stopped].pid, signal.SIGSTOP)
        await it.line(r".*child_stuck.*")
        await gone(before.children[stopped].pid)
        after = await changed(tmp_path, stopped, before.children[stopped].pid)
        it.signal(signal.SIGTERM)
        code = await it.ended()

    others = set(before.children) - {stopped}
    assert {name: after.children[name] for name in others} == {
        name: before.children[name] for name in others
    }
    assert code == 0


async def changed(data_dir: Path, name: str, pid: int) -> run_file.RunningSystem:
    """What runs once the child has another process."""
    async with asyncio.timeout(DEADLINE):
        while True:
            now = run_file.read(data_dir)
            if now and name in now.children and now.children[name].pid != pid:
                return now
            await asyncio.sleep(0.01)


async def test_who_is_cut_off_is_started_again_only_while_nats_is_there(tmp_path: Path):
    async with up(tmp_path, "gateway:cut-off", STUCK_FOR="2") as it:
        first = await it.line(r"gateway \| began (\d+)")
        await it.line("natterlog is ready")
        nats_pid = running_on(tmp_path).children["nats"].pid

        os.kill(nats_pid, signal.SIGSTOP)
        failing_checks = await it.line(r".*child_stuck.*")
        second = await it.line(r"gateway \| began (\d+)")
        it.signal(signal.SIGTERM)
        code = await it.ended()

    lines = [line for line in it.lines if "child_stuck" in line]
    assert f'"child": "nats", "pid": {nats_pid}' in failing_checks[0]
    assert '"faults": {"bus": "not connected"}' in lines[1]
    assert second[1] != first[1]
    assert code == 0


async def test_a_gateway_beside_others_on_one_port_that_stands_still_is_started_again(
    tmp_path: Path,
):
    async with up(
        tmp_path, "real", GATEWAYS="2", STUCK_FOR="2", NATTERLOG_PORT=str(free_port())
    ) as it:
        url = (await it.line(r"natterlog is ready: (\S+)"))[1]
        before = running_on(tmp_path).children
        ports = {name: child.health_port for name, child in before.items()}

        os.kill(before["gateway-2"].pid, signal.SIGSTOP)
        await it.line(r".*child_stuck.*")
        now = await changed(tmp_path, "gateway-2", before["gateway-2"].pid)
        answers = await ready(url)
        it.signal(signal.SIGTERM)
        code = await it.ended()

    assert len({ports["gateway-1"], ports["gateway-2"], int(url.rpartition(":")[2])}) == 3
    assert {name for name in before if now.children.get(name) != before[name]} == {"gateway-2"}
    assert answers == {"bus": "ok", "store": "ok", "llm_worker": "ok", "processor": "ok"}
    assert code == 0


async def test_services_that_nats_turned_out_end_and_come_back_once_it_lets_them_in(
    tmp_path: Path,
):
    async with up(tmp_path, "real", STUCK_FOR="20", NATTERLOG_PORT=str(free_port())) as it:
        url = (await it.line(r"natterlog is ready: (\S+)"))[1]
        before = running_on(tmp_path).children
        config = tmp_path / "nats.conf"
        password = config.read_text()

        config.write_text(re.sub(r'password: ".*"', 'password: "another"', password))
        os.kill(before["nats"].pid, signal.SIGHUP)
        ends = [await it.line(r".*child_ended.*") for _ in range(4)]
        config.write_text(password)
        os.kill(before["nats"].pid, signal.SIGHUP)
        answers = await ready(url)
        after = running_on(tmp_path).children
        it.signal(signal.SIGTERM)
        code = await it.ended()

    closed = [line for line in it.lines if '"reason": "nats: authorization failed"' in line]
    assert {line.split('"service": "')[1].split('"')[0] for line in closed} == set(ALL)
    assert all('"code": 1,' in end[0] for end in ends)
    assert answers == {"bus": "ok", "store": "ok", "llm_worker": "ok", "processor": "ok"}
    assert after["nats"] == before["nats"]
    assert not {child.pid for child in after.values()} & {before[name].pid for name in ALL}
    assert code == 0


async def ready(url: str) -> dict[str, str]:
    """The checks of a gateway, once all are well."""
    async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return (await answer.json())["checks"]
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def test_a_data_directory_that_cannot_be_used_is_named(tmp_path: Path):
    not_a_directory = tmp_path / "data"
    not_a_directory.touch()

    with (
        pytest.raises(run_file.DataDirUnusable, match=re.escape(str(not_a_directory))),
        run_file.hold(not_a_directory),
    ):
        pass


def test_a_server_that_is_too_old_is_refused_with_the_version_it_has(tmp_path: Path):
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho 'nats-server: v2.9.25'\n")
    old.chmod(0o755)

    with pytest.raises(NatsServerUnusable, match=r"needs nats-server 2\.12 or newer.*v2\.9\.25"):
        check_version(old)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_line_that_is_printed_gets_a_first_reply(host: str):
    requests: list[object] = []

    async def create(request: web.Request) -> web.Response:
        requests.append(await request.json())
        return web.json_response({"user_id": "nobody", "id": "0192-ab", "title": None}, status=201)

    async def send(request: web.Request) -> web.Response:
        requests.append((dict(request.query), await request.json()))
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
    assert requests == [{}, ({"stream": "true"}, {"session_id": "0192-ab", "content": "Hello"})]
