"""A deleted session leaves no byte of its text in the data directory."""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.native_client import Reply
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def natterlog(own_system_of_module: Running) -> Running:
    own_system_of_module.fake.reset()
    return own_system_of_module


SECRET = "the-unmistakable-words-of-a-person"


def files_with(directories: list[Path], secret: str) -> list[Path]:
    return [
        path
        for directory in directories
        for path in directory.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


async def test_a_deleted_session_leaves_no_byte_although_its_reply_was_running(
    natterlog: Running,
):
    directories = [natterlog.system.data_dir, natterlog.system.nats.directory]
    session_id = await natterlog.client.session(system_prompt=SECRET)
    await natterlog.client.send(session_id, f"{SECRET} tokens=5")
    large = SECRET + "x" * 190_000 + "é" * 9_000
    await natterlog.client.send(session_id, f"{large} tokens=5")
    reply = Reply()
    await natterlog.client.start(reply, session_id, f"{SECRET} tokens=5000 rate=50")
    await natterlog.client.follow(reply, until=60)
    tag = reply.text.split("-")[0]
    assert files_with(directories, SECRET)
    assert files_with(directories, f"{tag}-1 ")

    status, _ = await natterlog.client.call("DELETE", f"/sessions/{session_id}")

    assert status == 204
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)
    assert files_with(directories, SECRET) == []
    assert files_with(directories, f"{tag}-1 ") == []
    status, _ = await natterlog.client.call("GET", f"/sessions/{session_id}")
    assert status == 404


async def test_a_deletion_is_taken_up_again_by_a_store_that_was_killed_in_it(natterlog: Running):
    directories = [natterlog.system.data_dir, natterlog.system.nats.directory]
    session_id = await natterlog.client.session()
    await natterlog.client.send(session_id, f"{SECRET} tokens=5")
    store = natterlog.system.one("store")

    deleting = asyncio.create_task(natterlog.client.call("DELETE", f"/sessions/{session_id}"))
    await _deletion_in_the_log(natterlog, session_id)
    await store.kill()
    await store.start()
    deleting.cancel()  # its answer died with the store, for which it would wait half a minute

    async with asyncio.timeout(30):
        while files_with(directories, SECRET):  # noqa: ASYNC110  (a file gives no signal)
            await asyncio.sleep(0.1)


async def _deletion_in_the_log(natterlog: Running, session_id: str) -> None:
    came = asyncio.Event()
    listening = await natterlog.bus.listen_live(
        f"live.evt.*.{session_id}._.session.deleted", lambda _: came.set()
    )
    head = await natterlog.bus.head("EVENTS", f"evt.*.{session_id}._.session.deleted")
    if head is None:
        async with asyncio.timeout(10):
            await came.wait()
    await listening.close()
