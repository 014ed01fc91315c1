"""Does to the processes what the plan of faults says, and starts again what it ended."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from tests.chaos.harness.checker import Finding
from tests.chaos.harness.faults import NATS, Fault
from tests.chaos.harness.world import World
from tests.support.system import Process

STARTS = 5
"""Tries of a start."""


class Trouble:
    """``await Trouble(world).do_all(plan)``; afterwards everything runs again."""

    def __init__(self, world: World) -> None:
        self.done: Counter[str] = Counter()
        """Faults by kind and kind of process, as ``kill llm-worker``."""
        self.findings: list[Finding] = []
        self._world = world
        self._busy: set[str] = set()

    async def do_all(self, plan: Sequence[Fault]) -> None:
        """Each fault at its time; one that finds its target still in trouble is left out."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(start + fault.at - loop.time())
                await self._revive_the_dead()
                if fault.target not in self._busy:
                    self._busy.add(fault.target)
                    self._note(fault)
                    group.create_task(self._do(fault))
        await self._revive_the_dead()

    def _note(self, fault: Fault) -> None:
        kind = fault.target if fault.target == NATS else fault.target.rpartition("-")[0]
        self.done[f"{fault.kind} {kind}"] += 1

    async def _do(self, fault: Fault) -> None:
        try:
            if fault.target == NATS:
                await self._do_to_nats(fault)
            else:
                await self._do_to_process(fault, self._world.processes[fault.target])
        except (AssertionError, TimeoutError) as error:
            self._report(fault.target, f"{fault.kind} went wrong: {error}")
        finally:
            self._busy.discard(fault.target)

    async def _do_to_nats(self, fault: Fault) -> None:
        nats = self._world.system.nats
        if fault.kind == "kill":
            await nats.kill()
            await asyncio.sleep(fault.seconds)
            await nats.start()
        else:
            nats.pause()
            await asyncio.sleep(fault.seconds)
            nats.resume()

    async def _do_to_process(self, fault: Fault, process: Process) -> None:
        line = self._world.to_nats[fault.target]
        match fault.kind:
            case "kill":
                await process.kill()
                await asyncio.sleep(fault.seconds)
                await self._start(fault.target)
            case "stop":
                await process.stop()
                await asyncio.sleep(fault.seconds)
                await self._start(fault.target)
            case "pause":
                process.pause()
                await asyncio.sleep(fault.seconds)
                process.resume()
            case "reset":
                line.reset()
            case "silence":
                await line.silence(fault.seconds)

    async def _start(self, name: str) -> None:
        """Start a process as a supervisor does: again, where nats-server died meanwhile."""
        for _ in range(STARTS):
            try:
                await self._world.processes[name].start()
                return
            except AssertionError:
                self.done["start that failed"] += 1
        self._report(name, f"did not start {STARTS} times in a row")

    async def _revive_the_dead(self) -> None:
        """Start what ended by itself, as a supervisor would; that it did is a finding."""
        for name, process in self._world.processes.items():
            if not process.running and name not in self._busy:
                last = process.log.read_text().splitlines()[-1:]
                self._report(name, f"ended by itself: {' '.join(last)[:1000]}")
                await self._start(name)

    def _report(self, target: str, detail: str) -> None:
        self.findings.append(Finding(rule="process", where=target, detail=detail))
