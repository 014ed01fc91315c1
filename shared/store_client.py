"""The client of the store: whichever answers first."""

import asyncio
from typing import Any

import msgspec

from shared import commands as c
from shared.bus import Bus
from shared.ids import new_id
from shared.requests import Answer
from shared.subjects import store_command

_LONG: dict[type[c.Request[Any]], float] = {
    c.DeleteSession: 30.0,
    c.Rebuild: 3600.0,
}
"""Seconds for what takes long, and must not be done twice."""
TIMEOUT = 12.0
"""Seconds for everything else: longer than the store lets anybody wait for his turn."""
_COPYING = 20.0
"""Seconds for what copies a whole conversation."""
_LOOK = 2.0
"""Seconds of silence after which one looks whether the store that got the request is there."""
_LATE = 8.0
"""Seconds after which an answer must have been lost: no store lets anybody wait so long."""


class StoreClient:
    """Sends requests to the store, and never sees less than it saw before.

    A client that has seen a reply's end must find the reply when it lists the
    messages, and must not be refused because the session is still busy: requests
    wait for the latest fact that this process has shown to anybody.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen = 0
        self._stores = frozenset[str]()
        """The stores that were there when somebody looked last."""

    def heard(self, seq: int) -> None:
        """Note that a fact of this sequence was shown to a client."""
        self._seen = max(self._seen, seq)

    async def ask(self, request: c.Request[Answer]) -> Answer:
        """Carry out a command or answer a query.

        Raises:
            NatterlogError: the store's own answer.
            Unavailable: no store answers.
        """
        if isinstance(request, c.StartsRun):
            raise TypeError(f"{request.name} begins a run: it is counted first, then start_run()")
        return await self._ask(request)

    async def start_run(self, request: c.StartsRun[c.Started]) -> c.Started:
        """Begin a run; a gateway does so at one place only, where users' messages are counted.

        Its id is made here, so that a store that gets it twice knows its own run again.

        Raises:
            NatterlogError, Unavailable: as for :meth:`ask`.
        """
        if not request.run_id:
            request = msgspec.structs.replace(request, run_id=new_id())
        return await self._ask(request)

    async def _ask(self, request: c.Request[Answer]) -> Answer:
        if request.min_seq < self._seen:
            request = msgspec.structs.replace(request, min_seq=self._seen)
        subject, data = store_command(request.name), msgspec.json.encode(request)
        if timeout := _LONG.get(type(request)):
            answer = await self._bus.ask(subject, data, timeout=timeout)
        else:
            answer = await self._ask_once(subject, data, _timeout(request))
        return request.decode_answer(answer)

    async def _ask_once(self, subject: str, data: bytes, timeout: float) -> bytes:
        """The store's answer; asked again only where the store may have died with the request.

        A store that is only slow is not given the same work twice.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        requests = [asyncio.create_task(self._bus.ask(subject, data, timeout=timeout))]
        try:
            while True:
                done, _ = await asyncio.wait(
                    requests, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return await done.pop()
                waited = loop.time() - began
                is_lost = waited >= _LATE and len(requests) == 1
                if is_lost or await self._another_store():
                    again = self._bus.ask(subject, data, timeout=max(timeout - waited, _LOOK))
                    requests.append(asyncio.create_task(again))
        finally:
            for task in requests:
                if task.done() and not task.cancelled():
                    task.exception()  # nobody waits for it any more
                task.cancel()

    async def _another_store(self) -> bool:
        """Whether a store has come or gone since the last look; one that stands still is there."""
        there = frozenset(await self._bus.instances("store"))
        changed = bool(there) and there != self._stores
        self._stores = there or self._stores
        return changed


def _timeout(request: c.Request[Any]) -> float:
    match request:
        case c.ForkSession() | c.ExportSession():
            return _COPYING
        case c.CreateSession(history_file=str()):
            return _COPYING
        case _:
            return TIMEOUT
