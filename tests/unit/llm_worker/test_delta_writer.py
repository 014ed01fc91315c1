"""How an attempt's text gets into the log, over the in-memory server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from services.llm_worker import delta_writer
from services.llm_worker.delta_writer import DeltaWriter
from services.llm_worker.pacer import Pacer
from shared.bus import NoAnswer
from shared.deltas import AttemptText, read_attempt
from shared.events import Delta, decode_token_event, encode
from shared.ids import new_id, now
from shared.streams import ensure_streams
from shared.subjects import TOKENS, Address
from tests.support.memory_bus import MemoryBus

RUN = Address(new_id(), new_id(), new_id())
ATTEMPT = 7


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        yield bus


class Owner:
    """Whoever holds the run: whether it is still theirs, and whether they were told of its loss."""

    def __init__(self) -> None:
        self.mine = True
        self.away = 0
        self.losses = 0

    async def still_mine(self) -> bool:
        if self.away:
            self.away -= 1
            raise NoAnswer("away")
        return self.mine

    def lost(self) -> None:
        self.losses += 1


def a_writer(bus: MemoryBus, owner: Owner | None = None, **how: Any) -> DeltaWriter:
    owner = owner or Owner()
    given: dict[str, Any] = {"head": 0, "still_mine": owner.still_mine, "lost": owner.lost} | how
    return DeltaWriter(bus, RUN, ATTEMPT, Pacer(1_000_000), **given)


async def deltas(bus: MemoryBus) -> list[Delta]:
    """What was published, whenever that was."""
    found = [decode_token_event(m.data) for m in await bus.read(TOKENS, RUN.tokens)]
    return [msgspec.structs.replace(d, ms=0) for d in found if isinstance(d, Delta)]


async def quiet(writer: DeltaWriter) -> None:
    """Wait until nothing is in flight and nothing is being mended."""
    async with asyncio.timeout(10.0):
        while writer._busy and not writer._closed:  # noqa: ASYNC110  (it tells nobody)
            await asyncio.sleep(0)


async def test_each_piece_leaves_at_once_when_none_is_in_flight(bus: MemoryBus):
    writer = a_writer(bus)

    for piece in ("Good ", "day", "!"):
        writer.add(piece)
        await quiet(writer)

    assert await deltas(bus) == [
        Delta(ATTEMPT, 0, "Good "),
        Delta(ATTEMPT, 5, "day"),
        Delta(ATTEMPT, 8, "!"),
    ]
    assert [length for _, length in writer.timeline] == [5, 8, 9]
    assert writer.first_delta_ms == writer.timeline[0][0]


async def test_one_delta_is_in_flight_and_what_comes_meanwhile_goes_with_the_next(bus: MemoryBus):
    writer = a_writer(bus)
    bus.server.hold_answers()

    for piece in ("1", "2", "3", "4"):
        writer.add(piece)
    await asyncio.sleep(0)
    in_flight = [decode_token_event(m.data) for m in bus.server.streams[TOKENS].find(RUN.tokens)]
    bus.server.release_answers()
    await quiet(writer)

    assert in_flight == [Delta(ATTEMPT, 0, "1")]
    assert await deltas(bus) == [Delta(ATTEMPT, 0, "1"), Delta(ATTEMPT, 1, "234")]


async def test_an_attempt_after_another_begins_with_nothing(bus: MemoryBus):
    before = await bus.append(RUN.tokens, encode(Delta(3, 0, "Old")), expected=0)
    writer = a_writer(bus, head=before)

    writer.begin()
    writer.add("New")
    await quiet(writer)

    assert await deltas(bus) == [
        Delta(3, 0, "Old"),
        Delta(ATTEMPT, 0, ""),
        Delta(ATTEMPT, 0, "New"),
    ]


async def test_whoever_was_at_the_head_before_is_chained_to_even_if_it_moved(bus: MemoryBus):
    writer = a_writer(bus, head=0)
    await bus.append(RUN.tokens, encode(Delta(3, 0, "Late news of an older attempt")), expected=0)

    writer.add("Mine")
    await quiet(writer)

    assert (await deltas(bus))[1:] == [Delta(ATTEMPT, 0, "Mine")]


async def test_a_newer_attempt_in_the_log_ends_this_one(bus: MemoryBus):
    owner = Owner()
    writer = a_writer(bus, owner)
    await bus.append(RUN.tokens, encode(Delta(ATTEMPT + 1, 0, "")), expected=0)

    writer.add("Stale")
    await quiet(writer)
    writer.add("words")

    assert (owner.losses, await deltas(bus)) == (1, [Delta(ATTEMPT + 1, 0, "")])
    assert writer.text == "Stalewords"


async def test_a_run_that_went_to_another_worker_ends_this_attempt(bus: MemoryBus):
    owner = Owner()
    owner.mine = False
    writer = a_writer(bus, owner, head=99)

    writer.add("Stale")
    await quiet(writer)

    assert (owner.losses, await deltas(bus)) == (1, [])


async def test_a_conflict_is_looked_into_until_it_can_be(bus: MemoryBus, monkeypatch: Any):
    sleep = asyncio.sleep
    monkeypatch.setattr(delta_writer.asyncio, "sleep", lambda _: sleep(0))
    owner = Owner()
    owner.away = 3
    writer = a_writer(bus, owner, head=99)

    writer.add("Mine")
    await quiet(writer)

    assert (owner.away, owner.losses, await deltas(bus)) == (0, 0, [Delta(ATTEMPT, 0, "Mine")])


async def test_a_lost_answer_doubles_no_text(bus: MemoryBus):
    writer = a_writer(bus)
    writer.add("One ")
    await quiet(writer)
    bus.server.lose_answers(1)

    writer.add("two ")
    await quiet(writer)
    writer.add("three")
    await quiet(writer)

    assert "".join(delta.text for delta in await deltas(bus)) == "One two three"
    assert (await read_attempt(bus, RUN)).text == "One two three"
    assert bus.server.streams[TOKENS].last == 3


async def test_a_refused_delta_is_sent_again_with_what_came_since(bus: MemoryBus):
    writer = a_writer(bus)
    writer.add("One ")
    await quiet(writer)
    bus.server.refuse(1)

    writer.add("two ")
    writer.add("three")
    await quiet(writer)

    assert await deltas(bus) == [Delta(ATTEMPT, 0, "One "), Delta(ATTEMPT, 4, "two three")]
    assert writer.timeline[-1][1] == len(writer.text)


async def test_a_log_that_forgot_is_told_the_whole_text_again(bus: MemoryBus):
    writer = a_writer(bus)
    for piece in ("One ", "two "):
        writer.add(piece)
        await quiet(writer)
    bus.server.forget(TOKENS)

    writer.add("three")
    await quiet(writer)

    assert await deltas(bus) == [Delta(ATTEMPT, 0, "One two three")]


async def test_a_log_that_forgot_its_end_is_told_that_end_again(bus: MemoryBus):
    writer = a_writer(bus)
    for piece in ("One ", "two ", "three "):
        writer.add(piece)
        await quiet(writer)
    del bus.server.streams[TOKENS].messages[3]
    bus.server.streams[TOKENS].last = 2

    writer.recheck()
    writer.add("four")
    await quiet(writer)

    assert (await read_attempt(bus, RUN)).text == "One two three four"


async def test_what_was_said_while_the_line_was_cut_arrives_once(bus: MemoryBus):
    writer = a_writer(bus)
    bus.on_reconnect(writer.recheck)
    writer.add("One ")
    await quiet(writer)

    await bus.disconnect()
    writer.add("two ")
    writer.add("three ")
    await bus.reconnect()
    writer.add("four")
    await quiet(writer)

    shown = AttemptText(ATTEMPT)
    for delta in await deltas(bus):
        shown.merge(delta)
    assert shown.text == (await read_attempt(bus, RUN)).text == "One two three four"


async def test_a_line_that_takes_nothing_does_not_stop_the_writer_for_good(bus: MemoryBus):
    writer = a_writer(bus)
    append_soon = bus.append_soon
    refusals = 2

    def full(*args: Any, **how: Any) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise NoAnswer("too much is waiting")
        append_soon(*args, **how)

    vars(bus)["append_soon"] = full

    writer.add("Said")
    await quiet(writer)

    assert await deltas(bus) == [Delta(ATTEMPT, 0, "Said")]


async def test_now_and_then_the_whole_text_is_said_again(bus: MemoryBus):
    writer = a_writer(bus)
    piece = "x" * 10_000

    for _ in range(8):
        writer.add(piece)
        await quiet(writer)

    published = await deltas(bus)
    assert [(delta.offset, len(delta.text)) for delta in published] == [
        *((n * 10_000, 10_000) for n in range(6)),
        (0, 43_000),
        (43_000, 27_000),
        (70_000, 10_000),
    ]
    assert [length for _, length in writer.timeline] == [
        *range(10_000, 60_001, 10_000),
        70_000,
        80_000,
    ]
    assert (await read_attempt(bus, RUN)).text == writer.text


async def test_a_long_text_is_said_again_as_often_as_it_doubles(bus: MemoryBus):
    writer = a_writer(bus)

    for _ in range(100):
        writer.add("y" * 10_000)
        await quiet(writer)

    published = await deltas(bus)
    from_the_start = [n for n, delta in enumerate(published) if delta.offset == 0]
    assert len(from_the_start) == 5  # the first, and at 70, 150, 310 and 630 thousand
    assert sum(len(delta.text) for delta in published) < 3 * 1_000_000
    assert (await read_attempt(bus, RUN)).text == writer.text


@pytest.mark.parametrize("character", ["z", "\x01", "😀"])
async def test_a_piece_of_any_size_leaves_in_deltas_of_256_kib_at_most(
    bus: MemoryBus, character: str
):
    writer = a_writer(bus)
    text = character * 1_000_000

    writer.add("First. ")
    await quiet(writer)
    writer.add(text)
    writer.add(" Last.")
    await quiet(writer)

    stored = await bus.read(TOKENS, RUN.tokens)
    assert max(len(message.data) for message in stored) <= 256 * 1024
    written = await read_attempt(bus, RUN)
    assert written.text == writer.text == f"First. {text} Last."
    assert [length for _, length in written.timeline] == [length for _, length in writer.timeline]
    assert writer.size == len(writer.text.encode())


async def test_text_that_comes_between_the_pieces_of_a_long_one_follows_them(bus: MemoryBus):
    writer = a_writer(bus)
    bus.server.hold_answers()
    writer.add("1" * 100_000)
    await asyncio.sleep(0)
    writer.add("2" * 100)

    bus.server.release_answers()
    await quiet(writer)

    published = await deltas(bus)
    assert [(delta.offset, len(delta.text)) for delta in published] == [
        (0, 43_000),
        (43_000, 43_000),
        (86_000, 14_000),
        (100_000, 100),
    ]


@pytest.mark.parametrize("lost", range(1, 5))
async def test_an_answer_that_is_lost_within_a_text_said_again_loses_nothing(
    bus: MemoryBus, lost: int
):
    writer = a_writer(bus)
    writer.add("a" * 60_000)
    await quiet(writer)
    answers = 0
    append_soon = bus.append_soon

    def lossy(*args: Any, **how: Any) -> None:
        nonlocal answers
        answers += 1
        if answers == lost:
            bus.server.lose_answers(1)
        append_soon(*args, **how)

    vars(bus)["append_soon"] = lossy
    writer.add("b" * 90_000)
    await quiet(writer)
    writer.add("c")
    await quiet(writer)

    assert (await read_attempt(bus, RUN)).text == writer.text
    assert [length for _, length in writer.timeline][-1] == 150_001


async def test_what_the_server_would_hang_up_on_is_left_to_the_final(bus: MemoryBus):
    writer = a_writer(bus)
    writer.add("Said. ")
    await quiet(writer)

    bus._client.max_payload = 100
    writer.add("Not said, because of a server that takes very short messages only. " * 2)
    bus._client.max_payload = 10_000
    await quiet(writer)

    assert await deltas(bus) == [Delta(ATTEMPT, 0, "Said. ")]
    assert writer.text.startswith("Said. Not said, ")


async def test_an_empty_piece_is_no_delta(bus: MemoryBus):
    writer = a_writer(bus)

    writer.add("")
    await quiet(writer)

    assert (await deltas(bus), writer.timeline) == ([], [])


async def test_a_slow_reply_is_said_again_after_two_minutes(bus: MemoryBus, monkeypatch: Any):
    now = 1000.0
    monkeypatch.setattr(delta_writer.time, "monotonic", lambda: now)
    writer = a_writer(bus)
    writer.add("One ")
    await quiet(writer)

    now += 121.0
    writer.add("two")
    await quiet(writer)

    assert await deltas(bus) == [Delta(ATTEMPT, 0, "One "), Delta(ATTEMPT, 0, "One two")]
    assert writer.timeline == [(0, 4), (121_000, 7)]


async def test_nothing_is_published_after_the_close(bus: MemoryBus):
    writer = a_writer(bus)
    bus.server.hold_answers()
    writer.add("Out")
    writer.add(" with the final")
    await asyncio.sleep(0)

    writer.close()
    bus.server.release_answers()
    writer.add(", too")
    writer.recheck()
    for _ in range(10):
        await asyncio.sleep(0)

    assert await deltas(bus) == [Delta(ATTEMPT, 0, "Out")]
    assert writer.text == "Out with the final, too"


async def test_a_reply_that_goes_on_is_written_whole(bus: MemoryBus):
    writer = a_writer(bus)

    writer.open_with("Once upon a")
    await quiet(writer)
    opened = (writer.grew, writer.first_delta_ms)
    writer.add(" midnight")
    await quiet(writer)

    assert await deltas(bus) == [
        Delta(ATTEMPT, 0, "Once upon a"),
        Delta(ATTEMPT, 11, " midnight"),
    ]
    assert opened == (False, None)
    assert (writer.text, writer.grew) == ("Once upon a midnight", True)
    assert writer.first_delta_ms == writer.timeline[1][0]


async def test_times_are_told_since_the_claim_and_not_since_its_append(bus: MemoryBus):
    writer = a_writer(bus, claimed_at=now() - timedelta(seconds=5))

    writer.add("late")
    await quiet(writer)

    ((ms, length),) = writer.timeline
    assert 5000 <= ms < 15_000
    assert length == 4
