"""Many clients at once, each on one errand after the other until it is over."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.chaos.harness import native, pages
from tests.chaos.harness.checker import Finding
from tests.chaos.harness.choices import chooser
from tests.chaos.harness.errand import Errand
from tests.chaos.harness.world import World

KINDS: dict[str, tuple[int, Callable[[Errand], Awaitable[None]]]] = {
    "native": (5, native.converse),
    "channels": (3, pages.chat),
    "documents": (2, pages.ask_about_a_file),
    "content": (1, pages.make_a_post),
    "interview": (2, pages.interview),
}
"""Who they are, how many of them for each unit of load, and what they do."""


class Crew:
    """``await crew.work(60)`` ends some time after ``crew.over`` was set."""

    def __init__(self, world: World, seed: int, *, load: int = 1) -> None:
        self.errands: list[Errand] = []
        self.findings: list[Finding] = []
        self.over = asyncio.Event()
        self._world = world
        self._seed = seed
        self._load = load

    async def work(self, settle: float) -> None:
        """All clients; when it is over each has ``settle`` seconds to end what it is at."""
        tasks = {
            f"{kind}{number}": asyncio.create_task(self._client(f"{kind}{number}", errand))
            for kind, (count, errand) in KINDS.items()
            for number in range(count * self._load)
        }
        await self.over.wait()
        await asyncio.wait(tasks.values(), timeout=settle)
        for name, task in tasks.items():
            if not task.done():
                task.cancel()
                self._report(name, f"still waits {settle:g} s after the last fault")
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _client(self, name: str, do: Callable[[Errand], Awaitable[None]]) -> None:
        number = 0
        while not self.over.is_set():
            rng = chooser(self._seed, name, number)
            urls = list(self._world.urls)
            rng.shuffle(urls)
            errand = Errand(name, number, rng, urls)
            self.errands.append(errand)
            try:
                await do(errand)
            except (AssertionError, TimeoutError, ExceptionGroup) as error:
                self._report(f"{name}.{number}", f"{type(error).__name__}: {error}")
            number += 1

    def _report(self, where: str, detail: str) -> None:
        self.findings.append(Finding(rule="client", where=where, detail=detail))
