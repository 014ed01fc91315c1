"""The bus over an in-memory server: for tests that need no process and no clock.

The twin begins where the wire would be.  A :class:`MemoryBus` is the real
:class:`shared.bus.Bus` over a client that hands its frames to a
:class:`MemoryNats`, so what the bus adds to NATS is the code that runs in
production, and only the server is written a second time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, NamedTuple

import pytest
from nats.aio.msg import Msg
from nats.nuid import NUID

from shared.bus import Bus, Incoming, NoAnswer
from tests.support.memory_nats import MemoryNats, Subscription, header_bytes

__all__ = ["Connect", "MemoryBus", "MemoryNats", "connector"]

Connect = Callable[[], Bus]
"""Makes one more connection to a test's server."""
Callback = Callable[[Msg], Awaitable[None]]
_sids = count(1)


class MemoryBus(Bus):
    """A bus whose line can be cut; two of them on one server see each other."""

    def __init__(self, server: MemoryNats | None = None, *, name: str = "test") -> None:
        super().__init__("memory://", name=name)
        self.server = server or MemoryNats()
        self._client: Any = _Client(self.server, self._lost)

    async def disconnect(self) -> None:
        """Cut the line: nothing is heard any more, and what is posted waits."""
        self._client.up = False
        await self._client.callbacks["disconnected_cb"]()

    async def reconnect(self) -> None:
        """Mend the line; what was posted meanwhile is sent."""
        self._client.up = True
        self._client.resend()
        await self._client.callbacks["reconnected_cb"]()

    def _lost(self, reply: str) -> None:
        pending = self._pending.pop(reply.rpartition(".")[2], None)
        if pending is not None:
            pending.answer(None)


def connector(request: pytest.FixtureRequest) -> Connect:
    """For a fixture with the params "twin" and "server": the suites that both must pass."""
    if request.param == "twin":
        twin = MemoryNats()
        return lambda: MemoryBus(twin)
    server = request.getfixturevalue("nats_server")
    return lambda: Bus(server.url, name="test")


class _Version(NamedTuple):
    major: int = 2
    minor: int = 15


class _Interest:
    """What nats-py's ``subscribe`` answers."""

    def __init__(self, client: "_Client", sid: int) -> None:
        self._id = sid
        self._client = client

    async def unsubscribe(self) -> None:
        self._client.leave(self._id)

    drain = unsubscribe


class _Client:
    """What :mod:`shared.connection`, and nats-py's micro services, ask of a client."""

    connected_server_version = _Version()
    max_payload = 8 * 1024 * 1024
    is_connected = True
    gave_up: str | None = None

    def __init__(self, server: MemoryNats, lost: Callable[[str], None]) -> None:
        self._lost = lost
        self.up = True
        self.is_closed = False
        self.shortcuts: dict[int, Callable[[Incoming], None]] = {}
        self.callbacks: dict[str, Any] = {}
        self._server = server
        self._slow: dict[int, Callback] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self._unsent: list[tuple[str, bytes, str, bytes]] = []
        self._nuid = NUID()

    async def connect(self, _: str, **options: Any) -> None:
        self.callbacks = options

    async def close(self) -> None:
        self.is_closed = True
        await asyncio.sleep(0)  # what was posted gets out
        for sid in list(self._slow):
            self.leave(sid)

    async def flush(self) -> None: ...

    def lost(self, reply: str) -> None:
        self._lost(reply)

    def post(self, subject: str, data: bytes, reply: str, headers: bytes) -> None:
        if self.is_closed:
            raise NoAnswer("the bus is not connected")
        if not self.up:
            return self._unsent.append((subject, data, reply, headers))
        later = asyncio.get_running_loop().call_soon
        later(self._server.receive, self, subject, data, reply, headers)
        return None

    def resend(self) -> None:
        unsent, self._unsent = self._unsent, []
        for frame in unsent:
            self.post(*frame)

    async def publish(
        self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.post(subject, data, "", header_bytes("", headers or {}))

    async def subscribe(self, subject: str, queue: str = "", *, cb: Callback) -> _Interest:
        sid = next(_sids)
        self._slow[sid] = cb
        self._server.subscriptions.append(Subscription(self, sid, subject, queue))
        return _Interest(self, sid)

    def leave(self, sid: int) -> None:
        self._slow.pop(sid, None)
        kept = [s for s in self._server.subscriptions if s.sid != sid]
        self._server.subscriptions[:] = kept

    def hand_over(self, sid: int, message: Incoming) -> None:
        # Once the server is done with what it is at, as over a socket.
        asyncio.get_running_loop().call_soon(self._take, sid, message)

    def _take(self, sid: int, message: Incoming) -> None:
        if sid in self.shortcuts:
            self.shortcuts[sid](message)
        elif sid in self._slow:
            of_nats_py = Msg(self, message.subject, message.reply, message.data)  # type: ignore[arg-type]
            task = asyncio.ensure_future(self._slow[sid](of_nats_py))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
