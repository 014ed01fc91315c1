"""A cancel works in every state of a run, and reaches the provider."""

import asyncio
from typing import Any

import pytest

from tests.support.log_checks import check_run, wait_until_all_ended
from tests.support.native_client import Reply
from tests.support.running import Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def cancel(natterlog: Running, run_id: str) -> dict[str, Any]:
    status, run = await natterlog.client.call("POST", f"/runs/{run_id}/cancel")
    assert status == 200, run
    return run


async def test_a_streaming_reply_keeps_its_partial_text_and_its_provider_is_hung_up_on(
    natterlog: Running,
):
    reply = Reply()
    session_id = await natterlog.client.session()
    await natterlog.client.start(reply, session_id, "tokens=5000 rate=50")
    await natterlog.client.follow(reply, until=60)

    await cancel(natterlog, reply.run_id)

    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)
    await natterlog.client.follow(reply)
    reply.check()
    assert reply.end is not None
    assert reply.end["message"]["status"] == "cancelled"
    assert len(reply.text) >= 60


async def test_a_reply_before_its_first_token(natterlog: Running):
    reply = Reply()
    session_id = await natterlog.client.session()
    await natterlog.client.start(reply, session_id, "delay=60")
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen)

    await cancel(natterlog, reply.run_id)

    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)
    await natterlog.client.follow(reply)
    assert reply.end is not None
    assert (reply.end["message"]["status"], reply.text) == ("cancelled", "")


async def test_a_reply_whose_provider_is_being_tried_again(natterlog: Running):
    reply = Reply()
    session_id = await natterlog.client.session()
    await natterlog.client.start(reply, session_id, "fail=529x9 retry_after=30")
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen)

    await cancel(natterlog, reply.run_id)

    async with asyncio.timeout(10):
        await natterlog.client.follow(reply)
    assert reply.end is not None
    assert reply.end["message"]["status"] == "cancelled"


async def test_a_waiting_message_never_starts(natterlog: Running):
    first, second = Reply(), Reply()
    session_id = await natterlog.client.session(on_busy="queue")
    await natterlog.client.start(first, session_id, "tokens=60 rate=60")
    await natterlog.client.start(second, session_id, "the second")

    await cancel(natterlog, second.run_id)

    await natterlog.client.follow(second)
    assert second.end is not None
    assert second.end["message"]["status"] == "cancelled"
    await natterlog.client.follow(first)
    first.check()
    assert len(natterlog.fake.seen) == 1


async def test_a_run_that_no_worker_has_picked_up():
    async with running_system(services=("store", "gateway")) as natterlog:
        reply = Reply()
        session_id = await natterlog.client.session()
        await natterlog.client.start(reply, session_id, "tokens=5")

        await cancel(natterlog, reply.run_id)
        await natterlog.client.follow(reply)
        await natterlog.system.start("llm-worker")
        after = await natterlog.client.send(session_id, "tokens=6")

        assert reply.end is not None
        assert reply.end["message"]["status"] == "cancelled"
        after.check()
        assert len(natterlog.fake.seen) == 1


async def test_a_run_whose_worker_is_dead_keeps_what_it_had_written(natterlog: Running):
    reply = Reply()
    session_id = await natterlog.client.session()
    await natterlog.client.start(reply, session_id, "tokens=5000 rate=50")
    await natterlog.client.follow(reply, until=60)
    worker = natterlog.system.one("llm-worker")
    await worker.kill()

    await cancel(natterlog, reply.run_id)

    async with asyncio.timeout(20):
        await natterlog.client.follow(reply)
    await worker.start()
    reply.check()
    assert reply.end is not None
    assert reply.end["message"]["status"] == "cancelled"
    assert len(reply.text) >= 60
    runs = await wait_until_all_ended(natterlog.bus)
    check_run(runs[reply.run_id])


async def test_a_second_cancel_changes_nothing(natterlog: Running):
    reply = Reply()
    session_id = await natterlog.client.session()
    await natterlog.client.start(reply, session_id, "tokens=5000 rate=50")
    await natterlog.client.follow(reply, until=10)

    await cancel(natterlog, reply.run_id)
    await natterlog.client.follow(reply)
    again = await cancel(natterlog, reply.run_id)

    assert again["status"] == "cancelled"
    runs = await wait_until_all_ended(natterlog.bus)
    check_run(runs[reply.run_id])


async def test_a_completed_run_stays_completed(natterlog: Running):
    session_id = await natterlog.client.session()
    reply = await natterlog.client.send(session_id, "tokens=3")

    run = await cancel(natterlog, reply.run_id)

    assert run["status"] == "completed"
