"""What a socket at rest costs its server in memory: how RSS grows over many of them."""

from collections.abc import Awaitable, Callable

import msgspec

from benchmarks import procfs
from benchmarks.stage import Target
from benchmarks.ways import CHAT, new_session, open_socket, watch
from benchmarks.wire import WebSocket

WARM_UP = 50
"""Sockets that are there before, so that what the first ones cost once is not counted."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of a server for each of so many sockets."""

    what: str
    sockets: int
    kib: float


async def measure_memory(targets: dict[str, Target], count: int) -> list[Memory]:
    """The relay's sockets, and the gateway's: idle, and each watching a session of its own."""
    found: list[Memory] = []
    if "relay" in targets:
        port, pids = targets["relay"]
        found.append(await _grow("relay", pids["relay"], lambda: _idle(port, "/ws"), count))
    if "natterlog" in targets:
        port, pids = targets["natterlog"]
        path, gateway = f"{CHAT}/ws", pids["gateway"]
        found.append(await _grow("gateway, idle", gateway, lambda: _idle(port, path), count))
        found.append(await _grow("gateway, watching", gateway, lambda: _watching(port), count))
    return found


async def _grow(
    what: str, pid: int, open_one: Callable[[], Awaitable[WebSocket]], count: int
) -> Memory:
    sockets = [await open_one() for _ in range(WARM_UP)]
    before = procfs.resident_bytes(pid)
    sockets += [await open_one() for _ in range(count)]
    grown = procfs.resident_bytes(pid) - before
    for socket in sockets:
        socket.close()
    return Memory(what=what, sockets=count, kib=round(grown / count / 1024, 1))


async def _idle(port: int, path: str) -> WebSocket:
    return await open_socket(port, path, lambda _at, _frame: None)


async def _watching(port: int) -> WebSocket:
    return await watch(port, await new_session(port), lambda _at, _frame: None)
