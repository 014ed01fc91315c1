"""Kill a child that runs and does not do its work, so that it is started again.

Only checks that a new process may pass count, and only of a child that was ready: a store
that catches up does its work, and while nats-server is away no other child is at fault.
"""

import asyncio
import time

import msgspec

from services.supervisor.health_probes import failing_checks, nats_greets
from services.supervisor.supervised_child import SupervisedChild
from shared.log import get_logger

log = get_logger()


class HealthTiming(msgspec.Struct, frozen=True, kw_only=True):
    """How closely children are watched; all in seconds."""

    stuck_for: float = 30.0
    """A child is killed when it has been stuck for so long."""
    every: float = 3.0
    timeout: float = 5.0
    """A probe that takes longer has failed."""


class HealthWatch:
    """Probes one child for as long as the supervisor runs."""

    def __init__(
        self, child: SupervisedChild, host: str, nats_url: str, timing: HealthTiming
    ) -> None:
        self._child = child
        self._host = host
        self._nats_url = nats_url
        self._timing = timing

    async def run(self) -> None:
        """Probe it every few seconds until cancelled."""
        pid, since = None, 0.0
        while True:
            await asyncio.sleep(self._timing.every)
            if self._child.pid != pid:
                pid, since = self._child.pid, 0.0
            try:
                faults = await self._faults() if self._child.ready.is_set() else {}
            except Exception:  # a defect of the watch is no reason to end what it watches over
                log.exception("supervisor.watch_failed", child=self._child.name)
                continue
            now = time.monotonic()
            if not faults or self._child.pid != pid:
                since = 0.0
            elif not since:
                since = now
            elif now - since >= self._timing.stuck_for:
                self._child.kill_stuck(faults)

    async def _faults(self) -> dict[str, str]:
        if self._child.program.ready_line is not None:  # nats-server
            there = await nats_greets(self._nats_url, self._timing.timeout)
            return {} if there else {"nats": "it does not greet who connects"}
        if not self._child.health_port:
            return {}
        faults = await failing_checks(self._host, self._child.health_port, self._timing.timeout)
        if "bus" in faults and not await nats_greets(self._nats_url, self._timing.timeout):
            del faults["bus"]
        return faults
