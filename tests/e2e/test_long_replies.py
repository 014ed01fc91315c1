"""Replies of any length and of any characters: bounded, whole, and nobody else waits for them."""

import asyncio
import time
from collections.abc import Iterable

import pytest
import pytest_asyncio

from shared.events import RunEnded
from shared.subjects import EVENTS, TOKENS
from tests.support.command_line import run_command
from tests.support.fake_script import Script
from tests.support.log_checks import wait_until_ended
from tests.support.memory import MEASURABLE, MEBIBYTE, peak, reset_peak, resident
from tests.support.native_client import Reply
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def natterlog(own_system_of_module: Running) -> Running:
    own_system_of_module.fake.reset()
    return own_system_of_module


MAX_REPLY = 4 * MEBIBYTE
FACT = 256 * 1024


def numbered(character: str, length: int) -> str:
    """So many characters without a blank, no two stretches of which are the same."""
    line = character * 90
    lines = (f"{n:09d}{line}" for n in range(length // 99 + 1))
    return "".join(lines)[:length]


def within_the_bound(text: str) -> str:
    return text.encode()[:MAX_REPLY].decode(errors="ignore")


async def final_of(natterlog: Running, reply: Reply) -> RunEnded:
    return (await wait_until_ended(natterlog.bus, reply.run_id)).final


async def largest(natterlog: Running, stream: str, subject: str) -> int:
    """Bytes of the largest message of a stream."""
    most = after = 0
    while batch := await natterlog.bus.read(stream, subject, after=after, limit=50):
        most = max(most, *(len(message.data) for message in batch))
        after = batch[-1].seq
    return most


def pieces(of: str, length: int) -> Iterable[str]:
    return (of[start : start + length] for start in range(0, len(of), length))


LONG = {
    # one piece is one line of the provider's, which may have eight
    "seven mebibytes in one piece": numbered("x", 7 * MEBIBYTE),
    "ten mebibytes in many pieces": " ".join(pieces(numbered("y", 10 * MEBIBYTE), 300)),
    "control characters in large pieces": " ".join(pieces(numbered("\x01", 5 * MEBIBYTE), 10**6)),
    "control characters in small pieces": " ".join(pieces(numbered("\x02", 5 * MEBIBYTE), 500)),
    "emoji in one piece": numbered("😀", 3 * MEBIBYTE // 2),
    "emoji in many pieces": " ".join(pieces(numbered("😀", 2 * MEBIBYTE), 400)),
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
async def test_a_reply_without_an_end_ends_at_its_bound_and_keeps_nobody_waiting(
    natterlog: Running, text: str
):
    worker = natterlog.system.one("llm-worker")
    # Whatever comes after the text never ends: only the worker can end it.
    natterlog.fake.next.append(Script(reply=f"{text} more", fault=f"stall@{text.count(' ') + 1}"))
    long, short = await natterlog.client.session(), await natterlog.client.session()
    reply = Reply()

    await natterlog.client.start(reply, long, "A very long one, please.")
    following = asyncio.create_task(natterlog.client.follow(reply))
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen)
    began = time.monotonic()
    other = await natterlog.client.send(short, "tokens=5")
    took = time.monotonic() - began
    async with asyncio.timeout(60):
        await following
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[0].closed_at)

    final = await final_of(natterlog, reply)
    reply.check()
    other.check()
    assert reply.text == within_the_bound(text)
    assert (final.status, final.stop_reason, final.text) == ("completed", "max_length", reply.text)
    assert natterlog.fake.seen[0].closed_at is not None
    assert natterlog.fake.seen[0].closed_at - final.at.timestamp() < 1.0
    assert took < 5.0
    assert len(natterlog.fake.seen) == 2
    assert worker.running
    assert await largest(natterlog, TOKENS, "tok.>") <= FACT


@pytest.mark.parametrize("character", ["z", "\x01", "😀"])
async def test_a_long_reply_is_taken_up_again_wherever_it_was_cut(
    natterlog: Running, character: str
):
    text = " ".join(pieces(numbered(character, 600_000), 20_000))
    natterlog.fake.next.append(Script(reply=text, rate=30))
    session = await natterlog.client.session()
    reply = Reply()
    await natterlog.client.start(reply, session, "A long one.")

    for seen in range(50_000, 600_000, 50_000):  # hangs up each time, and comes back
        await natterlog.client.follow(reply, until=seen)
    await natterlog.client.follow(reply)

    reply.check()
    assert (reply.text, reply.resets) == (text, 0)


async def test_who_comes_when_a_long_reply_is_half_told_gets_all_of_it(natterlog: Running):
    text = " ".join(pieces(numbered("\x03", MEBIBYTE), 100_000))
    natterlog.fake.next.append(Script(reply=text, rate=8))
    session = await natterlog.client.session()
    first, late = Reply(), Reply()
    await natterlog.client.start(first, session, "A long one.")
    await natterlog.client.follow(first, until=500_000)

    late.run_id = first.run_id
    await natterlog.client.follow(late)
    await natterlog.client.follow(first)

    for reply in (first, late):
        reply.check()
        assert (reply.text, reply.resets) == (text, 0)


async def test_the_tables_are_made_again_from_long_replies_and_long_messages(natterlog: Running):
    client = natterlog.client
    session = await client.session()
    question = "\x01" * 199_999 + "?"  # six bytes each, where JSON holds them
    text = " ".join(pieces(numbered("\x02", MEBIBYTE), 10_000))
    natterlog.fake.next.append(Script(reply=text))

    reply = await client.send(session, question)
    status, page = await client.call("GET", f"/messages/{session}")
    check = await run_command(natterlog, "rebuild", "--check")

    reply.check()
    assert status == 200
    assert [message["content"] for message in page["items"]] == [question, text]
    assert natterlog.fake.seen[0].message == question
    assert check.code == 0, check.out + check.err
    assert await largest(natterlog, EVENTS, "evt.>") <= FACT


@pytest.mark.skipif(not MEASURABLE, reason="only Linux tells what a process has in memory")
async def test_a_worker_needs_little_memory_for_a_very_long_reply(natterlog: Running):
    worker = natterlog.system.one("llm-worker").pid
    session = await natterlog.client.session()
    before = resident(worker)
    reset_peak(worker)
    # A million pieces: each by itself is larger as an object than as text.
    natterlog.fake.next.append(Script(reply=" ".join(["abc"] * (MAX_REPLY // 4 + 10))))

    reply = await natterlog.client.send(session, "A very long one.")

    reply.check()
    assert len(reply.text) == MAX_REPLY
    assert peak(worker) - before < 120 * MEBIBYTE
