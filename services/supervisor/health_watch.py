"""Ends a child that lives and does not do its work, so that it is started anew.

Only a child that was ready counts, and only what a new start may mend: a store that catches
up is at work, and while nats-server is away nobody else is to blame.
"""

import asyncio
import time

import msgspec

from services.supervisor.health_probes import greets, stuck
from services.supervisor.supervised_child import Child
from shared.log import get_logger

log = get_logger()


class Watchfulness(msgspec.Struct, frozen=True, kw_only=True):
    """How closely children are watched; all in seconds."""

    stuck_for: float = 30.0
    """So long a child may be stuck."""
    every: float = 3.0
    timeout: float = 5.0
    """So long it may take to answer."""


class Watch:
    """Asks one child after its health, as long as it runs."""

    def __init__(self, child: Child, host: str, nats_url: str, how: Watchfulness) -> None:
        self._child = child
        self._host = host
        self._nats_url = nats_url
        self._how = how

    async def run(self) -> None:
        """Look now and then, for ever."""
        pid, since = None, 0.0
        while True:
            await asyncio.sleep(self._how.every)
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
            elif now - since >= self._how.stuck_for:
                self._child.end_stuck(faults)

    async def _faults(self) -> dict[str, str]:
        if self._child.program.ready_line is not None:  # nats-server
            there = await greets(self._nats_url, self._how.timeout)
            return {} if there else {"nats": "it does not greet who connects"}
        if not self._child.health_port:
            return {}
        faults = await stuck(self._host, self._child.health_port, self._how.timeout)
        if "bus" in faults and not await greets(self._nats_url, self._how.timeout):
            del faults["bus"]
        return faults
