"""Durable consumers: pulled, mended after each outage, and stopped in two stages.

:class:`Pulling` is the life of whatever pulls: this module's :class:`Consumer`
facts of one kind, :mod:`shared.priorities` the highest of several levels.  What
becomes of what was pulled is :class:`shared.consumer.Work`'s.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from shared.bus import Bus, BusError, Incoming, Listening
from shared.consumer import LEASE, Handler, Work
from shared.ids import new_id
from shared.log import get_logger
from shared.subjects import EVENTS

log = get_logger()

_EXPIRES = 30.0
_HEARTBEAT = 2.0
_SILENCE = 5.0

Durables = dict[str, list[str]]
"""The filters of each durable consumer, by its name."""


class Pulling(ABC):
    """Pulls facts for one handler from durable consumers: the life of it, however it pulls.

    Use it as a context manager: inside, it pulls; :meth:`stop` ends it in two
    stages, and leaving ends it at once.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        durables: Durables,
        handler: Handler,
        *,
        slots: int,
        lease: float,
    ) -> None:
        self._bus = bus
        self._name = name
        self._durables = durables
        self._lease = lease
        self._work = Work(bus, name, handler, slots=slots, lease=lease, freed=self._freed)
        self._inbox = ""
        self._listening: Listening | None = None
        self._pulling = False
        self._tending: asyncio.Task[None] | None = None

    @abstractmethod
    def _freed(self) -> None:
        """A slot is free again."""

    @abstractmethod
    def _mend(self) -> None:
        """The server was restarted: it has forgotten what it was asked for."""

    @abstractmethod
    async def _start(self) -> None:
        """Begin, in a new inbox."""

    @abstractmethod
    async def _tend(self) -> None:
        """See to it that pulls go on, for ever."""

    @abstractmethod
    def _on_message(self, message: Incoming) -> None:
        """A fact that was asked for, or the server's word about a pull."""

    async def __aenter__(self) -> Self:
        await self._ensure()
        self._bus.on_reconnect(self._mend)
        self._pulling = True
        await self._work.__aenter__()
        await self._start()
        self._tending = asyncio.create_task(self._tend(), name=f"{self._name}-tend")
        return self

    async def check(self) -> str | None:
        """Why nothing is pulled any more, if that is so."""
        stopped = self._tending is not None and self._tending.done()
        return f"{self._name} todos are not asked for any more" if stopped else None

    async def stop(self, grace: float) -> None:
        """Stop pulling, let what runs finish within ``grace`` seconds, hand back the rest."""
        self._pulling = False
        await self._work.drain(grace)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pulling = False
        await self._work.__aexit__(kind, error, trace)
        if self._tending is not None:
            self._tending.cancel()
        if self._listening is not None:
            await self._listening.close()

    async def _ensure(self) -> None:
        for durable, filters in self._durables.items():
            await ensure_durable(self._bus, durable, filters, self._lease)

    async def _listen_anew(self) -> None:
        """A new inbox: where nobody listens any more, the server drops what it owed."""
        old, self._inbox = self._listening, f"_INBOX.pull.{new_id()}"
        self._listening = await self._bus.listen(f"{self._inbox}.>", self._on_message)
        if old is not None:
            await old.close()

    def _accept(self, message: Incoming) -> bool:
        """Work on it if there is a free slot, or let another worker have it."""
        if self._pulling and self._work.free > 0:
            self._work.begin(message)
            return True
        self._work.nak_now(message)
        return False


class Consumer(Pulling):
    """Pulls facts of one kind, as many at a time as there are slots."""

    def __init__(
        self,
        bus: Bus,
        name: str,
        filters: Sequence[str],
        handler: Handler,
        *,
        slots: int,
        lease: float = LEASE,
    ) -> None:
        super().__init__(bus, name, {name: list(filters)}, handler, slots=slots, lease=lease)
        self._owed = 0  # messages that the server still owes us
        self._heard = time.monotonic()
        self._mending: asyncio.Task[None] | None = None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if self._mending is not None:
            self._mending.cancel()

    def _freed(self) -> None:
        self._pull()

    def _pull(self) -> None:
        """Ask for as many facts as there are free slots that nobody was asked to fill."""
        free = self._work.free - self._owed
        if not self._pulling or free <= 0 or not self._bus.connected:
            return
        query = {
            "batch": free,
            "expires": int(_EXPIRES * 1e9),
            "idle_heartbeat": int(_HEARTBEAT * 1e9),
        }
        self._owed += free
        with suppress(BusError):  # then nothing is heard, and the watch asks again
            self._bus.post(
                f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{self._name}",
                msgspec.json.encode(query),
                reply=f"{self._inbox}.1",
            )

    def _on_message(self, message: Incoming) -> None:
        self._heard = time.monotonic()
        status = message.status
        if status == 0 and message.reply:
            self._owed = max(0, self._owed - 1)
            self._accept(message)
        elif status == 100:  # an idle heartbeat
            return
        elif status in (404, 408):  # the pull expired; this much of it was never sent
            self._owed -= int(message.header(b"Nats-Pending-Messages") or self._owed)
            self._owed = max(0, self._owed)
            self._pull()
        else:  # 409 and 503: the consumer or its leader is gone
            self._mend()

    # A pull that a restarted server has forgotten would wait for ever (nats-py
    # does), so pulls are asked for anew after each reconnect and after any silence.

    async def _start(self) -> None:
        await self._listen_anew()
        self._heard = time.monotonic()
        self._owed = 0
        self._pull()

    def _mend(self) -> None:
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(self._make_anew(), name=f"{self._name}-mend")

    async def _make_anew(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            await self._bus.wait_connected()
            try:
                await self._ensure()
            except BusError as error:
                log.warning("consumer.missing", consumer=self._name, error=str(error))
            else:
                return await self._start()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT)
            if self._bus.connected and self._owed and time.monotonic() - self._heard > _SILENCE:
                log.warning("consumer.silent", consumer=self._name)
                self._mend()


async def ensure_durable(bus: Bus, name: str, filters: Sequence[str], lease: float) -> None:
    """Make sure that the durable consumer ``name`` of EVENTS is there.

    Raises:
        BusError: it is not known to be there.
    """
    config = {
        "durable_name": name,
        "filter_subjects": list(filters),
        "ack_policy": "explicit",
        "ack_wait": int(lease * 1e9),
        "deliver_policy": "all",
        "max_deliver": -1,
        "max_ack_pending": 20_000,
    }
    await bus.api(
        f"CONSUMER.DURABLE.CREATE.{EVENTS}.{name}", {"stream_name": EVENTS, "config": config}
    )
