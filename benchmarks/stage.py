"""The processes that are measured: the provider, the relay and all of natterlog."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.provider import MODEL
from shared.child import die_with_this_process
from tests.support.system import System, start_by_command

ROOT = Path(__file__).parents[1]
SERVICES = ("store", "llm-worker", "processor", "gateway")


class Target(NamedTuple):
    """Where one way begins, and the processes that serve it."""

    port: int
    pids: dict[str, int]


@asynccontextmanager
async def stage(ways: Sequence[str], workers: int) -> AsyncGenerator[dict[str, Target]]:
    """What ``ways`` need, ready; it ends with the block."""
    async with AsyncExitStack() as running:
        direct = await running.enter_async_context(_process("provider"))
        targets = {"direct": direct}
        if "relay" in ways:
            relay = await running.enter_async_context(
                _process("relay", f"http://127.0.0.1:{direct.port}/v1")
            )
            targets["relay"] = Target(relay.port, relay.pids | direct.pids)
        if "natterlog" in ways:
            system = await running.enter_async_context(_natterlog(direct.port))
            for _ in range(workers - 1):
                await system.start("llm-worker")
            targets["natterlog"] = Target(_port(system), _pids(system) | direct.pids)
        yield targets


@asynccontextmanager
async def _process(module: str, *arguments: str) -> AsyncGenerator[Target]:
    """A module of ours that prints its port and then serves."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"benchmarks.{module}", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_this_process(),
    )
    try:
        assert process.stdout is not None
        yield Target(int(await process.stdout.readline()), {module: process.pid})
    finally:
        process.terminate()
        await process.wait()


def _natterlog(provider: int) -> System:
    """As it comes, but without the limits that one user would meet."""
    environ = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{provider}/v1",
        "OPENAI_API_KEY": "none",
        "LLM_DEFAULT_MODEL": MODEL,
        "NATTERLOG_MESSAGES_PER_MINUTE": "0",
        "NATTERLOG_SOCKETS_PER_USER": "0",
    }
    return System(environ, services=SERVICES, start=start_by_command)


def _port(system: System) -> int:
    port = urlsplit(system.url).port
    assert port is not None
    return port


def _pids(system: System) -> dict[str, int]:
    pids = {"nats": system.nats.pid}
    for process in system.processes:
        name = process.service.replace("-", "_")
        number = sum(known.startswith(name) for known in pids)
        pids[name if not number else f"{name}_{number + 1}"] = process.pid
    return pids
