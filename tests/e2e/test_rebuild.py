"""The database is a projection: dropped and replayed, the API answers the same bytes."""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.support.native_client import NativeClient, Reply
from tests.support.running import Running, running_system
from tests.support.system import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def natterlog(own_system_of_module: Running) -> Running:
    own_system_of_module.fake.reset()
    return own_system_of_module


async def every_answer(client: NativeClient, sessions: list[str], runs: list[str]) -> list[bytes]:
    """The bytes of every answer that shows what was projected."""
    paths = ["/sessions?limit=100", "/sessions?status=inactive"]
    paths += ["/search?q=tokens", "/search?q=message%201", "/usage", "/usage?group_by=session"]
    for s in sessions:
        paths += [f"/sessions/{s}", f"/messages/{s}", f"/messages/{s}?branches=all"]
        paths += [f"/sessions/{s}/export?format=json", f"/sessions/{s}/events"]
    paths += [f"/runs/{r}" for r in runs]
    answers: list[bytes] = []
    for path in paths:
        async with client.http.get(client.url(path)) as response:
            answers.append(await response.read())
    return answers


async def rebuild(natterlog: Running, **environ: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "rebuild"),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NATTERLOG_DATA_DIR": str(natterlog.system.data_dir)}
        | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def drop_database(data_dir: Path) -> None:
    for path in data_dir.glob("natterlog.db*"):
        path.unlink()


async def lived_in(natterlog: Running) -> tuple[list[str], list[str]]:
    """Sessions with every kind of ending, and their runs."""
    client = natterlog.client
    plain = await client.session(title="plain")
    done = [await client.send(plain, f"message {n} tokens=4") for n in range(3)]
    failed = await client.session(title="failed")
    broken = await client.send(failed, "fail=400")
    stopped = await client.session(title="stopped")
    cancelled = Reply()
    await client.start(cancelled, stopped, "tokens=5000 rate=50")
    await client.follow(cancelled, until=20)
    await client.call("POST", f"/runs/{cancelled.run_id}/cancel")
    await client.follow(cancelled)
    await client.call("PATCH", f"/sessions/{stopped}", json={"title": "renamed"})
    gone = await client.session(title="gone")
    await client.send(gone, "tokens=2")
    await client.call("DELETE", f"/sessions/{gone}")
    branched, fork = await with_branches(client)
    runs = [r.run_id for r in (*done, broken, cancelled)]
    return [plain, failed, stopped, branched, fork], runs


async def with_branches(client: NativeClient) -> tuple[str, str]:
    """A session with an edit, a rating, a file and another branch chosen, and its fork."""
    form = aiohttp.FormData()
    form.add_field("file", b"Some words.", filename="notes.txt")
    _, file = await client.call("POST", "/files", data=form)
    session = await client.session()
    reply = await client.send(session, "first tokens=3", attachments=[file["id"]])
    start = reply.events[0]
    message_id, reply_id = start["user_message"]["id"], start["assistant_message_id"]
    await client.call("POST", f"/messages/{message_id}/edit", json={"content": "edited tokens=3"})
    await client.call("PUT", f"/messages/{reply_id}/feedback", json={"rating": "down"})
    body = {"message_id": reply_id}
    status, fork = await client.call("POST", f"/sessions/{session}/fork", json=body)
    assert status == 201
    await client.call("PUT", f"/sessions/{session}/active", json=body)
    return session, fork["id"]


async def test_a_rebuild_of_the_running_system_changes_no_byte(natterlog: Running):
    sessions, runs = await lived_in(natterlog)
    before = await every_answer(natterlog.client, sessions, runs)

    await rebuild(natterlog, NATTERLOG_NATS_URL=natterlog.system.nats.url)

    assert await every_answer(natterlog.client, sessions, runs) == before


@pytest.mark.parametrize("hot_facts", ["250000", "5"])
async def test_a_deleted_database_is_built_again_from_the_log(hot_facts: str):
    async with running_system(NATTERLOG_HOT_FACTS=hot_facts) as natterlog:
        sessions, runs = await lived_in(natterlog)
        before = await every_answer(natterlog.client, sessions, runs)
        store = natterlog.system.one("store")
        await store.stop()
        drop_database(natterlog.system.data_dir)

        await store.start()

        assert await every_answer(natterlog.client, sessions, runs) == before
