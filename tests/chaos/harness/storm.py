"""The storm: clients of all dialects, while everything between them and the provider breaks."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable

import msgspec

from tests.chaos.harness.checker import Finding, check
from tests.chaos.harness.collecting import collect
from tests.chaos.harness.crew import Crew
from tests.chaos.harness.evidence import Call, Evidence
from tests.chaos.harness.faults import plan_faults
from tests.chaos.harness.trouble import Trouble
from tests.chaos.harness.world import World, broken_connections, world

SETTLE = 90.0
"""Seconds after the last fault by which everything must have ended, on a machine that is busy."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One storm: what was done, and what came of it."""

    seed: int
    seconds: float
    """Of faults."""
    took: dict[str, float]
    """Seconds of each of its parts: start, faults, settle, check."""
    replies: dict[str, int]
    """Runs by how they ended."""
    shown: dict[str, int]
    """What clients were shown, by dialect."""
    resets: int
    cuts: int
    """Connections that clients lost."""
    faults: dict[str, int]
    connections: dict[str, int]
    """Connections that were broken or slowed down, by how."""
    answers: dict[str, int]
    """Calls of the provider: whole, broken off, refused, odd."""
    findings: list[Finding]


async def storm(
    seed: int, *, seconds: float, load: int = 1, every: float = 1.0, database: str = ""
) -> tuple[Round, Evidence]:
    """One storm of so many seconds, in a world of its own."""
    laps = _Laps()
    async with world(seed, database=database) as made:
        laps.end("start")
        crew, trouble = Crew(made, seed, load=load), Trouble(made)
        plan = plan_faults(seed, seconds=seconds, targets=made.targets, every=every)
        async with asyncio.TaskGroup() as group:
            group.create_task(crew.work(SETTLE))
            await asyncio.gather(trouble.do_all(plan), asyncio.sleep(seconds))
            crew.over.set()
            made.calm()
            laps.end("faults")
        laps.end("settle")
        evidence = await collect(made, crew.errands, settle=SETTLE)
        findings = [*trouble.findings, *crew.findings, *_defects(made), *check(evidence)]
        connections, answers = broken_connections(made), _answers(evidence)
        laps.end("check")
    return Round(
        seed=seed,
        seconds=seconds,
        took=laps.took,
        replies=_counted(run.final.status if run.final else "stuck" for run in evidence.runs),
        shown=_counted(shown.dialect for shown in evidence.shown),
        resets=sum(shown.resets for shown in evidence.shown),
        cuts=sum(shown.cuts for shown in evidence.shown),
        faults=_counted(trouble.done.elements()),
        connections=_counted(connections.elements()),
        answers=answers,
        findings=findings,
    ), evidence


class _Laps:
    """How long each part took."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}
        self._begun = time.monotonic()

    def end(self, part: str) -> None:
        now = time.monotonic()
        self.took[part], self._begun = round(now - self._begun, 1), now


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _answers(evidence: Evidence) -> dict[str, int]:
    """Calls of the provider, by what came of them there."""

    def name_of(call: Call) -> str:
        if call.case:
            return "odd"
        return "whole" if call.whole else "refused or broken off"

    return _counted(name_of(call) for call in evidence.calls)


def _defects(made: World) -> list[Finding]:
    """Tracebacks in the logs: a service met what nobody thought of.

    One that is no log line is the end of its process, which is looked at by itself.
    """
    lines = made.system.logs().splitlines()
    return [
        Finding(rule="defect", where="logs", detail=f"{line[:500]} … {line[-1500:]}")
        for line in lines
        if line.startswith("{") and "Traceback" in line
    ]
