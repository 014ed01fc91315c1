"""Durable consumers of one kind of job, one a priority: the highest that waits goes first.

On a free slot each level is asked, 9 first, for what waits there.  Where nothing
does, a pull is parked on every level, and of what arrives together the highest is
kept; what finds no free slot is handed back at once.  A pull is never taken back,
because its message would wait out its lease: it expires within a second.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from shared.bus import Bus, BusError, Incoming
from shared.consumer import LEASE, Handler
from shared.log import get_logger
from shared.pulling import Pulling
from shared.subjects import EVENTS, PRIORITIES

log = get_logger()

PARKED = 1.0
"""Seconds after which a pull that found nothing expires."""
_SILENCE = 3.0
"""Seconds after which a pull that should have been answered is given up."""


class _Pull(NamedTuple):
    """What a level was asked for and still owes."""

    number: int
    owed: int
    at: float


class PriorityConsumer(Pulling):
    """Pulls jobs from the durable consumers ``<name>-0`` to ``<name>-9``."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        filter_of: Callable[[int], str],
        handler: Handler,
        *,
        slots: int,
        lease: float = LEASE,
    ) -> None:
        durables = {f"{name}-{level}": [filter_of(level)] for level in PRIORITIES}
        super().__init__(bus, name, durables, handler, slots=slots, lease=lease)
        self._numbers = itertools.count(1)
        self._pulls: dict[int, _Pull] = {}  # by level, one at most
        self._arrived: list[tuple[int, Incoming]] = []
        self._begun = 0
        self._wake = asyncio.Event()
        self._broken = False

    # -- pulling ----------------------------------------------------------------

    async def _tend(self) -> None:
        while True:
            await self._bus.wait_connected()
            try:
                if self._broken:
                    await self._make_anew()
                await self._fill()
            except BusError as error:
                log.warning("consumer.missing", consumer=self._name, error=str(error))
                self._broken = True
                await asyncio.sleep(0.2)

    async def _fill(self) -> None:
        """Take what waits, the highest first; then park, and wait until something happens."""
        while self._pulling and self._work.free > 0 and not self._broken:
            if not await self._pull_highest():
                break
        while self._pulling and self._work.free > 0 and not self._broken:
            for level in PRIORITIES:
                if level not in self._pulls:
                    self._post(level, {"batch": 1, "expires": int(PARKED * 1e9)})
            await self._something()
        if not self._broken:  # all slots are taken, or it is over
            await self._something()

    async def _pull_highest(self) -> bool:
        """Ask each level until one has something; False when none has."""
        for level in reversed(PRIORITIES):
            if level in self._pulls:  # parked there: what comes, comes
                continue
            begun = self._begun
            self._post(level, {"batch": self._work.free, "no_wait": True})
            while level in self._pulls and not self._broken:
                await self._something()
            if self._begun > begun or self._work.free <= 0 or self._broken:
                return True
        return False

    def _post(self, level: int, query: dict[str, object]) -> None:
        number = next(self._numbers)
        owed = query["batch"]
        assert isinstance(owed, int)  # noqa: S101  (it is ours)
        self._bus.post(
            f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{self._name}-{level}",
            msgspec.json.encode(query),
            reply=f"{self._inbox}.{level}.{number}",
        )
        self._pulls[level] = _Pull(number, owed, time.monotonic())

    async def _something(self) -> None:
        """Wait until a pull was answered or a slot became free; notice a silent server."""
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(PARKED):
                await self._wake.wait()
        oldest = min((pull.at for pull in self._pulls.values()), default=time.monotonic())
        if self._bus.connected and time.monotonic() - oldest > _SILENCE:
            log.warning("consumer.silent", consumer=self._name)
            self._broken = True

    def _freed(self) -> None:
        self._wake.set()

    def _mend(self) -> None:
        self._broken = True
        self._wake.set()

    async def _make_anew(self) -> None:
        await self._ensure()
        await self._start()
        self._broken = False

    async def _start(self) -> None:
        await self._listen_anew()
        self._pulls.clear()

    # -- what arrives -------------------------------------------------------------

    def _on_message(self, message: Incoming) -> None:
        if message.status == 0 and message.reply:
            level = self._level_of(message.reply)
            self._less(level)
            if not self._arrived:  # what came together is chosen from together
                asyncio.get_running_loop().call_soon(self._choose)
            self._arrived.append((level, message))
        elif message.status in (404, 408):  # nothing is there, or nothing came
            level, number = map(int, message.subject.rsplit(".", 2)[1:])
            pull = self._pulls.get(level)
            if pull is not None and pull.number == number:
                del self._pulls[level]
            self._wake.set()
        elif message.status != 100:  # 409 and 503: a consumer or its leader is gone
            self._mend()

    def _less(self, level: int) -> None:
        pull = self._pulls.get(level)
        if pull is None:
            return
        if pull.owed > 1:
            self._pulls[level] = pull._replace(owed=pull.owed - 1)
        else:
            del self._pulls[level]

    def _choose(self) -> None:
        arrived, self._arrived = self._arrived, []
        for _, message in sorted(arrived, key=lambda item: item[0], reverse=True):
            self._begun += self._accept(message)
        self._wake.set()

    def _level_of(self, ack: str) -> int:
        """The level whose consumer an ack's subject names."""
        tokens = ack.split(".")
        return int(tokens[3 if len(tokens) == 9 else 5].rpartition("-")[2])
