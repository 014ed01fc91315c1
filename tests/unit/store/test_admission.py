"""Who is next, who waits how long, and who is refused."""

import asyncio
from collections.abc import Sequence

import pytest

from services.store import admission
from services.store.admission import Admission
from shared.errors import Overloaded, RateLimited


class Commands:
    """Commands that end when the test says so; ``begun`` are those whose turn has come."""

    def __init__(self, gate: Admission) -> None:
        self.gate = gate
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """Each is its user's, the first letter."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._begin(name))
            await asyncio.sleep(0)

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await self.tasks[name]
            await asyncio.sleep(0)

    async def _begin(self, name: str) -> None:
        async with self.gate.slot(name[0]):
            self.begun.append(name)
            await self._ends[name].wait()


async def test_a_command_begins_at_once_while_there_are_slots():
    commands = Commands(Admission(slots=2))

    await commands.ask("a1", "a2", "a3")

    assert commands.begun == ["a1", "a2"]
    assert (commands.gate.going, commands.gate.waiting) == (2, 1)
    await commands.end("a1", "a2", "a3")
    assert (commands.gate.going, commands.gate.waiting) == (0, 0)


async def test_a_flood_of_one_is_not_the_wait_of_another():
    commands = Commands(Admission(slots=1))
    await commands.ask("a0", *(f"a{n}" for n in range(1, 9)), "b1", "c1")

    await commands.end("a0", "a1", "b1", "c1")

    assert commands.begun == ["a0", "a1", "b1", "c1", "a2"]
    await commands.end(*(f"a{n}" for n in range(2, 9)))


async def test_who_would_wait_too_long_is_told_at_once_for_how_long(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(admission, "USUAL_RATE", 1.0)
    commands = Commands(Admission(slots=1, longest=2.5))
    await commands.ask("a1", "a2", "a3")

    with pytest.raises(Overloaded) as refused:
        async with commands.gate.slot("a"):
            pass

    assert refused.value.retry_after == 3
    assert "2 messages wait to be accepted, which takes about 3 s" in refused.value.message
    await commands.end("a1", "a2", "a3")


async def test_too_many_of_one_are_refused_only_where_others_wait(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(admission, "MOST_OF_ONE", 2)
    commands = Commands(Admission(slots=1))
    await commands.ask("a0", "a1", "a2", "a3", "b1")

    with pytest.raises(RateLimited):
        async with commands.gate.slot("a"):
            pass

    await commands.end("a0", "a1", "b1", "a2", "a3")
    assert commands.begun == ["a0", "a1", "b1", "a2", "a3"]


@pytest.mark.parametrize("gone", [["a1"], ["a2"], ["a1", "a2"]])
async def test_a_slot_is_never_lost_with_who_gives_up(gone: Sequence[str]):
    commands = Commands(Admission(slots=1))
    await commands.ask("a0", "a1", "a2")

    commands._ends["a0"].set()  # the slot goes to the first in the line as he gives up
    await asyncio.sleep(0)
    for name in gone:
        commands.tasks[name].cancel()
    await asyncio.gather(*(commands.tasks[name] for name in gone), return_exceptions=True)
    await commands.end(*({"a1", "a2"} - set(gone)))

    assert (commands.gate.going, commands.gate.waiting) == (0, 0)


async def test_a_pause_that_is_over_does_not_make_the_wait_longer(
    monkeypatch: pytest.MonkeyPatch,
):
    now = 0.0
    monkeypatch.setattr(admission.time, "monotonic", lambda: now)
    gate = Admission(slots=1)
    for number in range(20):
        async with gate.slot("a"):
            now += 3.0 if number == 10 else 0.01
    commands = Commands(gate)
    await commands.ask("a1", "a2")

    assert gate.expected_wait("b") == pytest.approx(0.02, rel=0.2)
    await commands.end("a1", "a2")
