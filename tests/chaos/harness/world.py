"""The system that is broken: several processes of each service, each behind lines that may fail."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shared.bus import Bus
from tests.chaos.harness.choices import chooser
from tests.chaos.harness.faults import NATS
from tests.chaos.harness.lines import GOOD, Fate, Line, draw_fate
from tests.chaos.harness.prompts import MODELS
from tests.chaos.harness.provider import ChaosProvider
from tests.support.system import Process, System

DATABASE = "NATTERLOG_CHAOS_DATABASE"
"""A PostgreSQL URL for the store, of a database that is empty; unset: SQLite, and one store."""
SETTINGS = {
    "LLM_DEFAULT_MODEL": MODELS["openai"],
    "OPENAI_API_KEY": "fake",
    "ANTHROPIC_API_KEY": "fake",
    "CLAUDE_CB_THRESHOLD": "1000000",  # no reply is to fail for the sake of another's provider
    "LLM_TIMEOUT": "2",
    "NATTERLOG_FIRST_WORD_TIMEOUT": "6",
    "NATTERLOG_GRACE": "1",
    "NATTERLOG_LEASE": "2",
    "NATTERLOG_SOCKETS_PER_USER": "0",
}


@dataclass
class World:
    """What clients and faults are let loose on."""

    system: System
    provider: ChaosProvider
    bus: Bus
    """An onlooker's own: nothing is done to it."""
    processes: dict[str, Process] = field(default_factory=dict[str, Process])
    """By name: ``gateway-0``, ``llm-worker-1``, …"""
    to_nats: dict[str, Line] = field(default_factory=dict[str, Line])
    """The line from each process to nats-server."""
    to_gateways: list[Line] = field(default_factory=list[Line])
    to_providers: list[Line] = field(default_factory=list[Line])

    @property
    def urls(self) -> list[str]:
        """Where clients find the gateways."""
        return [f"http://127.0.0.1:{line.port}" for line in self.to_gateways]

    @property
    def targets(self) -> list[str]:
        """Everything that a fault may be done to."""
        return [*self.processes, NATS]

    @property
    def lines(self) -> list[Line]:
        return [*self.to_nats.values(), *self.to_gateways, *self.to_providers]

    def calm(self) -> None:
        """From now on every line is good."""
        for line in self.lines:
            line.calm()


def services(database: str) -> dict[str, int]:
    """How many of each: with PostgreSQL two stores decide, with SQLite there is one."""
    return {"store": 2 if database else 1, "llm-worker": 2, "processor": 2, "gateway": 2}


@asynccontextmanager
async def world(
    seed: int, *, bad_lines: bool = True, database: str = "", **environ: str
) -> AsyncIterator[World]:
    """A running world; with ``bad_lines`` what becomes of each connection is drawn by the seed."""
    database = database or os.environ.get(DATABASE, "")
    settings = {**SETTINGS, **({"NATTERLOG_DATABASE_URL": database} if database else {}), **environ}
    async with (
        ChaosProvider() as provider,
        System(settings, services=()) as system,
        Bus(system.nats.url, name="chaos") as bus,
        AsyncExitStack() as stack,
    ):
        made = World(system, provider, bus)
        builder = _Builder(made, stack, _Fates(seed, bad_lines))
        names = [(s, f"{s}-{n}") for s, count in services(database).items() for n in range(count)]
        started = await asyncio.gather(*(builder.start(*name) for name in names))
        made.processes = {name: process for (_, name), process in zip(names, started, strict=True)}
        for name, process in made.processes.items():
            if process.service == "gateway":
                await builder.lead_to(name, process)
        yield made


class _Builder:
    """Starts processes, and draws the lines from them and to them."""

    def __init__(self, made: World, stack: AsyncExitStack, fates: "_Fates") -> None:
        self._made = made
        self._stack = stack
        self._fates = fates

    async def start(self, service: str, name: str) -> Process:
        nats = urlsplit(self._made.system.nats.url)
        line = await self._line(f"{name} to nats", self._made.system.nats.port, bad=False)
        self._made.to_nats[name] = line
        address = f"{nats.username}:{nats.password}@127.0.0.1:{line.port}"
        environ = {"NATTERLOG_NATS_URL": f"nats://{address}"}
        if service == "llm-worker":
            line = await self._line(f"{name} to provider", self._made.provider.port)
            self._made.to_providers.append(line)
            environ |= provider_settings(f"http://127.0.0.1:{line.port}")
        return await self._made.system.start(service, **environ)

    async def lead_to(self, name: str, gateway: Process) -> None:
        """The line by which clients reach a gateway."""
        port = urlsplit(gateway.url).port
        assert port is not None
        self._made.to_gateways.append(await self._line(name, port))

    async def _line(self, name: str, port: int, *, bad: bool = True) -> Line:
        line = Line(name, port, self._fates.of(name) if bad else lambda _: GOOD)
        return await self._stack.enter_async_context(line)


def provider_settings(url: str) -> Mapping[str, str]:
    """All three kinds of provider, at one address."""
    return {"OPENAI_BASE_URL": f"{url}/v1", "ANTHROPIC_BASE_URL": url, "OLLAMA_HOST": url}


@dataclass(frozen=True)
class _Fates:
    seed: int
    bad: bool

    def of(self, line: str) -> Callable[[int], Fate]:
        """What becomes of a line's n-th connection: it depends on nothing else."""
        if not self.bad:
            return lambda _: GOOD
        return lambda n: draw_fate(chooser(self.seed, line, n))


def broken_connections(made: World) -> Counter[str]:
    """What was done to connections so far, over all lines."""
    total: Counter[str] = Counter()
    for line in made.lines:
        total.update(line.broken)
    return total
