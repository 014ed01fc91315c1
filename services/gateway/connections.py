"""Every open stream and socket of a gateway: their heartbeat, and their end."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

STALLED = 60.0
"""Seconds for which one write may wait for its client."""
_ROUND = 1.0


class Connection(Protocol):
    """What the timer of all connections needs of a stream or socket."""

    def beat(self, now: float) -> None:
        """Ping, send a comment, or drop a client that is gone; called about once a second."""
        ...

    def stop(self) -> None:
        """End soon, because the gateway stops, and let the client come back elsewhere."""
        ...


class Connections:
    """The open ones, with one timer for all: one for each would cost more than their frames."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._pulse: asyncio.Task[None] | None = None
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._pulse = asyncio.create_task(self._beat(), name="connections-pulse")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pulse is not None:
            self._pulse.cancel()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def registered(self, connection: Connection) -> Generator[None]:
        self._open.add(connection)
        if self._stopping:
            connection.stop()
        try:
            yield
        finally:
            self._open.discard(connection)

    def stop(self) -> None:
        """Ask all of them to end, and whoever comes later at once."""
        self._stopping = True
        for connection in list(self._open):
            connection.stop()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_ROUND)
            now = loop.time()
            for connection in list(self._open):
                connection.beat(now)
