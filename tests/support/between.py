"""What stands between a store and its askers: answers are held back there, or lost."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from shared.commands import Request
from shared.subjects import store_command

DEADLINE = 10.0
Endpoint = Callable[[bytes], Awaitable[bytes]]


class Held:
    """Requests of one kind, which are not answered before they are let go."""

    def __init__(self) -> None:
        self._came = asyncio.Event()
        self._gone = asyncio.Event()

    async def came(self) -> None:
        """Wait until somebody has asked."""
        async with asyncio.timeout(DEADLINE):
            await self._came.wait()

    def let_go(self) -> None:
        self._gone.set()

    async def pass_through(self) -> None:
        self._came.set()
        await self._gone.wait()


class Between:
    """The store's endpoints, as a test wants them."""

    def __init__(self) -> None:
        self.requests = Counter[type[Request]]()
        self._held: dict[type[Request], Held] = {}
        self._lost = Counter[type[Request]]()
        self._over = asyncio.Event()
        self._came = asyncio.Event()

    def hold(self, kind: type[Request]) -> Held:
        """Hold back whatever of this kind is asked from now on."""
        held = self._held[kind] = Held()
        return held

    async def came(self, kind: type[Request], count: int = 1) -> None:
        """Wait until so many of a kind were asked."""
        async with asyncio.timeout(DEADLINE):
            while self.requests[kind] < count:
                self._came.clear()
                await self._came.wait()

    def lose(self, kind: type[Request], count: int = 1) -> None:
        """Let the store do what it is asked, and lose its answers."""
        self._lost[kind] = count

    def end(self) -> None:
        self._over.set()
        for held in self._held.values():
            held.let_go()

    def around(self, endpoints: dict[str, Endpoint]) -> dict[str, Endpoint]:
        kinds = {store_command(kind.name): kind for kind in _kinds(Request)}
        return {subject: self._endpoint(kinds.get(subject), e) for subject, e in endpoints.items()}

    def _endpoint(self, kind: type[Request] | None, endpoint: Endpoint) -> Endpoint:
        if kind is None:
            return endpoint

        async def answer(data: bytes) -> bytes:
            self.requests[kind] += 1
            self._came.set()
            if held := self._held.get(kind):
                await held.pass_through()
            found = await endpoint(data)
            if self._lost[kind]:
                self._lost[kind] -= 1
                await self._over.wait()  # by then nobody waits for it any more
            return found

        return answer


def _kinds(kind: type[Any]) -> list[type[Any]]:
    below = [one for it in kind.__subclasses__() for one in (it, *_kinds(it))]
    return [one for one in below if "name" in vars(one)]
