"""Kill any process at any moment: no text is lost, doubled or spliced, and nothing hangs.

Each test has several replies under way and kills one kind of process again and
again.  The fake provider never gives the same answer twice, so a reply put
together from two attempts cannot pass for one.
"""

import asyncio
import signal

import pytest

from shared.subjects import EVENTS
from tests.support.fake_script import Script
from tests.support.log_checks import check_run, read_runs, wait_until_all_ended
from tests.support.native_client import NativeClient, Reply
from tests.support.running import Running, running_system, short_lease
from tests.support.system import Process

CLIENTS = 6
PROMPT = "tokens=150 rate=60"
ENOUGH = 120
"""Characters after which a reply counts as being in its middle."""


async def replies_under_way(client: NativeClient) -> list[Reply]:
    """So many replies, each past its beginning."""
    sessions = [await client.session() for _ in range(CLIENTS)]
    replies = [Reply() for _ in sessions]
    async with asyncio.TaskGroup() as group:
        for reply, session_id in zip(replies, sessions, strict=True):
            group.create_task(client.start(reply, session_id, PROMPT))
    async with asyncio.TaskGroup() as group:
        for reply in replies:
            group.create_task(client.follow(reply, until=ENOUGH))
    return replies


async def follow_to_the_end(natterlog: Running, replies: list[Reply]) -> None:
    """Read every reply to its end and hold it against the log."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for reply in replies:
            group.create_task(natterlog.client.follow(reply))
    runs = await wait_until_all_ended(natterlog.bus)
    for run in runs.values():
        check_run(run)
    for reply in replies:
        reply.check()
        assert reply.text == runs[reply.run_id].final.text
        assert runs[reply.run_id].final.status == "completed"


async def kill_and_restart(natterlog: Running, process: Process) -> None:
    await process.kill()
    await process.start()


@short_lease
@pytest.mark.parametrize("service", ["llm-worker", "gateway", "store"])
async def test_a_killed_service_costs_no_character(natterlog: Running, service: str):
    for _ in range(3):
        replies = await replies_under_way(natterlog.client)

        await kill_and_restart(natterlog, natterlog.system.one(service))

        await follow_to_the_end(natterlog, replies)


async def test_a_killed_nats_server_costs_no_character(natterlog: Running):
    for _ in range(3):
        replies = await replies_under_way(natterlog.client)

        await natterlog.system.nats.kill()
        await natterlog.system.nats.start()

        await follow_to_the_end(natterlog, replies)


@short_lease
async def test_everything_killed_at_once_ends_every_run(natterlog: Running):
    replies = await replies_under_way(natterlog.client)

    processes = natterlog.system.processes
    await asyncio.gather(natterlog.system.nats.kill(), *(p.kill() for p in processes))
    await natterlog.system.nats.start()
    await asyncio.gather(*(p.start() for p in processes))

    await follow_to_the_end(natterlog, replies)


@short_lease
async def test_a_killed_worker_is_told_as_a_reset_and_its_text_is_kept_in_the_next_claim(
    natterlog: Running,
):
    session_id = await natterlog.client.session()
    reply = Reply()
    await natterlog.client.start(reply, session_id, PROMPT)
    await natterlog.client.follow(reply, until=ENOUGH)
    seen = reply.text

    await kill_and_restart(natterlog, natterlog.system.one("llm-worker"))

    await follow_to_the_end(natterlog, [reply])
    runs = await wait_until_all_ended(natterlog.bus)
    first, second = runs[reply.run_id].claims
    previous = runs[reply.run_id].previous(1)
    assert reply.resets == 1
    assert previous.attempt == first.seq
    assert previous.text.startswith(seen)
    assert runs[reply.run_id].final.attempt == second.seq


@short_lease
async def test_a_worker_killed_in_a_very_long_reply_is_told_as_a_reset_and_its_text_is_kept(
    natterlog: Running,
):
    text = " ".join(f"{n:04d}" + "\x01" * 99_996 for n in range(30))  # 3 MB, 18 MB as JSON
    natterlog.fake.default = Script(reply=text, rate=40, fault="stall@27x1")
    session_id = await natterlog.client.session()
    reply = Reply()
    await natterlog.client.start(reply, session_id, "A very long one.")
    await natterlog.client.follow(reply, until=2_500_000)
    seen = reply.text

    await kill_and_restart(natterlog, natterlog.system.one("llm-worker"))
    async with asyncio.timeout(60):
        await natterlog.client.follow(reply)

    run = (await wait_until_all_ended(natterlog.bus))[reply.run_id]
    first, _ = run.claims
    previous = run.previous(1)
    stored = await natterlog.bus.facts_after(EVENTS, f"evt.*.*.{reply.run_id}.>", 0)
    reply.check()
    assert (reply.text, reply.resets) == (text, 1)
    assert previous.attempt == first.seq
    assert text.startswith(previous.text)
    assert len(previous.text) >= len(seen)
    assert max(len(fact.data) for fact in stored) <= 256 * 1024


async def test_a_second_gateway_goes_on_where_the_first_was_killed():
    async with running_system(services=("store", "llm-worker", "gateway")) as natterlog:
        other = await natterlog.system.start("gateway")
        natterlog.client.urls.append(other.url)
        replies = await replies_under_way(natterlog.client)

        await natterlog.system.one("gateway").kill()

        await follow_to_the_end(natterlog, replies)
        assert all(reply.resets == 0 for reply in replies)


@pytest.mark.settings(NATTERLOG_GRACE="0.5")
async def test_a_stopped_worker_hands_its_replies_on_when_its_grace_is_over(natterlog: Running):
    replies = await replies_under_way(natterlog.client)
    await natterlog.system.start("llm-worker")

    code = await natterlog.system.of("llm-worker")[0].stop()

    assert code == 0
    await follow_to_the_end(natterlog, replies)


async def test_a_stopped_worker_finishes_its_replies_within_its_grace(natterlog: Running):
    replies = await replies_under_way(natterlog.client)

    code = await natterlog.system.one("llm-worker").stop()

    assert code == 0
    await follow_to_the_end(natterlog, replies)
    assert all(reply.resets == 0 for reply in replies)


@short_lease
async def test_nothing_of_a_worker_that_slept_past_its_lease_is_accepted(natterlog: Running):
    replies = await replies_under_way(natterlog.client)
    sleeper = natterlog.system.one("llm-worker")

    sleeper.pause()
    await natterlog.system.start("llm-worker")
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for reply in replies:
            group.create_task(_follow_until_reset(natterlog.client, reply))
    sleeper.resume()

    await follow_to_the_end(natterlog, replies)
    runs = await wait_until_all_ended(natterlog.bus)
    for reply in replies:
        run = runs[reply.run_id]
        assert len(run.claims) == 2
        assert run.final.attempt == run.claims[-1].seq


async def _follow_until_reset(client: NativeClient, reply: Reply) -> None:
    length = len(reply.text)
    while not reply.resets:
        await client.follow(reply, until=length + 1)
        length = len(reply.text)


@short_lease
async def test_a_pause_of_the_server_takes_no_reply_from_a_healthy_worker(natterlog: Running):
    await natterlog.system.start("llm-worker")
    sessions = [await natterlog.client.session() for _ in range(CLIENTS)]
    replies = [Reply() for _ in sessions]
    async with asyncio.TaskGroup() as group:
        for reply, session_id in zip(replies, sessions, strict=True):
            group.create_task(natterlog.client.start(reply, session_id, "tokens=150 rate=30"))

    natterlog.system.nats.pause()
    await asyncio.sleep(3)  # the pause is the point: it outlasts the lease of 2 s
    natterlog.system.nats.resume()

    await follow_to_the_end(natterlog, replies)
    runs = await wait_until_all_ended(natterlog.bus)
    assert [len(runs[reply.run_id].claims) for reply in replies] == [1] * CLIENTS


async def test_no_attempt_is_numbered_twice_when_acks_are_lost(natterlog: Running):
    numbers: set[int] = set()
    for _ in range(5):
        session_id = await natterlog.client.session()
        reply = await natterlog.client.send(session_id, "tokens=3")
        reply.check()

        await natterlog.system.nats.kill()
        await natterlog.system.nats.start()

        other = await natterlog.client.session()
        again = await natterlog.client.send(other, "tokens=3")
        again.check()
        runs = await wait_until_all_ended(natterlog.bus)
        numbers |= {runs[reply.run_id].final.attempt, runs[again.run_id].final.attempt}
    runs = await read_runs(natterlog.bus)
    claims = [claim.seq for run in runs.values() for claim in run.claims]
    assert len(claims) == len(set(claims))
    assert len(numbers) == 10
    for run in runs.values():
        check_run(run)


@short_lease
@pytest.mark.settings(NATTERLOG_SILENT_DEATHS="2")
async def test_a_worker_may_be_killed_many_times_in_one_reply_until_its_bound(natterlog: Running):
    session_id = await natterlog.client.session()
    reply = Reply()
    await natterlog.client.start(reply, session_id, "tokens=2000 rate=60")
    for death in range(2):
        await natterlog.client.follow(reply, until=len(reply.text) + 50)
        worker = natterlog.system.one("llm-worker")
        worker.send(signal.SIGKILL)
        await worker.ended()
        await worker.start()
        if death == 0:
            await _follow_until_reset(natterlog.client, reply)

    async with asyncio.timeout(60):
        await natterlog.client.follow(reply)

    assert reply.end is not None
    assert reply.end["type"] == "error"
    runs = await wait_until_all_ended(natterlog.bus)
    final = runs[reply.run_id].final
    assert final.status == "failed"
    assert final.text
