"""What must be true of any log, whatever was killed while it was written."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from shared.bus import Bus
from shared.events import PreviousAttempt, RunClaimed, RunEnded, RunWaiting, TodoChat, decode_fact
from shared.log_entry import LogEntry
from shared.objects import unpack
from shared.subjects import EVENTS, EVERY_FACT, NONE, parse
from tests.support.fake_provider import check_unspliced


@dataclass
class RunLog:
    """One run's facts, in order."""

    run_id: str
    links: list[LogEntry]

    @property
    def claims(self) -> list[LogEntry]:
        return [link for link in self.links if isinstance(link.fact, RunClaimed)]

    def previous(self, claim: int) -> PreviousAttempt:
        """What the claim with this number tells of the attempt before."""
        fact = self.claims[claim].fact
        assert isinstance(fact, RunClaimed)
        assert fact.previous is not None, f"run {self.run_id} has nothing before that attempt"
        return fact.previous

    @property
    def finals(self) -> list[RunEnded]:
        return [link.fact for link in self.links if isinstance(link.fact, RunEnded)]

    @property
    def opening(self) -> int:
        """Code points that its text had before it began, because a reply went on."""
        turns = (k.fact.turn for k in self.links if isinstance(k.fact, TodoChat | RunWaiting))
        return next((turn.continues.length for turn in turns if turn.continues), 0)

    @property
    def final(self) -> RunEnded:
        assert len(self.finals) == 1, f"run {self.run_id} has {len(self.finals)} finals"
        return self.finals[0]


async def read_runs(bus: Bus) -> dict[str, RunLog]:
    """Every run of the hot log."""
    runs: dict[str, RunLog] = {}
    after = 0
    while batch := await bus.read(EVENTS, EVERY_FACT, after=after):
        after = batch[-1].seq
        for stored in batch:
            run_id = parse(stored.subject).run
            if run_id != NONE:
                fact = decode_fact(await unpack(bus, stored.data))
                link = LogEntry.of(stored.seq, stored.subject, fact)
                runs.setdefault(run_id, RunLog(run_id, [])).links.append(link)
    return runs


async def wait_until_all_ended(bus: Bus, seconds: float = 30.0) -> dict[str, RunLog]:
    """Wait until no run is open any more, which must come true within 30 s."""
    return await _wait_for(bus, lambda runs: all(r.finals for r in runs.values()), seconds)


async def wait_until_ended(bus: Bus, run_id: str, seconds: float = 30.0) -> RunLog:
    """Wait until this run has its final."""
    runs = await _wait_for(bus, lambda runs: run_id in runs and runs[run_id].finals, seconds)
    return runs[run_id]


async def _wait_for(
    bus: Bus, true: Callable[[dict[str, RunLog]], object], seconds: float
) -> dict[str, RunLog]:
    async with asyncio.timeout(seconds):
        while True:
            runs = await read_runs(bus)
            if true(runs):
                return runs
            await _next_fact(bus)


def check_run(run: RunLog) -> None:
    """One final, at the end; a true digest; one attempt's text; an unbroken chain."""
    final = run.final
    assert run.links[-1].fact is final, f"run {run.run_id} went on after its final"
    assert final.length == len(final.text)
    assert final.sha256 == hashlib.sha256(final.text.encode()).hexdigest()
    if text := final.text[run.opening :]:
        check_unspliced(text)
    assert final.attempt in [0, *(claim.seq for claim in run.claims)]
    for before, after in zip(run.links, run.links[1:], strict=False):
        # A todo extends its whole session's chain, so others' facts may come between.
        prev = max(after.fact.prev, before.seq) if _is_todo(after) else after.fact.prev
        expected = after.fact.prev if _is_todo(after) else before.seq
        assert prev == expected, f"run {run.run_id} has a fork at {after.seq}"


def _is_todo(link: LogEntry) -> bool:
    return isinstance(link.fact, TodoChat)


async def _next_fact(bus: Bus) -> None:
    """Until something is added to the log, or a second has passed."""
    came = asyncio.Event()
    listening = await bus.listen_live("live.evt.>", lambda _: came.set())
    try:
        async with asyncio.timeout(1.0):
            await came.wait()
    except TimeoutError:
        pass
    finally:
        await listening.close()
