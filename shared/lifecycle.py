"""How a service lives: settings, log, bus, health, and a stop in two stages.

    async def main(settings: Settings) -> None:
        async with running(settings, "store") as life:
            ...                     # build what the service is made of
            life.ready()            # tell the supervisor, and /readyz
            await life.stopping.wait()
            ...                     # finish what runs, within life.grace

SIGTERM, SIGINT and the end of the supervisor set ``stopping``.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
import prometheus_client
from aiohttp import web

from shared.bus import Bus
from shared.log import configure, get_logger
from shared.settings import Settings
from shared.streams import ensure_streams

log = get_logger()


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["alive"] = "alive"
    service: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the service does its work, and what keeps it from it."""

    status: Literal["ready", "not ready"]
    service: str
    checks: dict[str, str]
    """Part → `ok`, or a sentence."""


Check = Callable[[], Awaitable[str | None]]
"""Answers None when all is well, else a sentence."""


class Life:
    """A running service: its bus, its health, and whether it is to stop."""

    def __init__(self, service: str, bus: Bus, *, grace: float) -> None:
        self.service = service
        self.grace = grace
        """Seconds to finish what runs once it is to stop; 0 when the supervisor was lost, and
        its nats-server with it: whoever follows does that work anew."""
        self.bus = bus
        self.epoch = ""
        """The log's incarnation: it changes when EVENTS was made anew."""
        self.stopping = asyncio.Event()
        self.health_port = 0
        self._ready = False
        self._checks: dict[str, Check] = {"bus": self._bus_connected}

    def ready(self, **known: str) -> None:
        """The service does its work from now on; ``known`` is for the log."""
        self._ready = True
        log.info("service.ready", health_port=self.health_port, pid=os.getpid(), **known)
        descriptor = os.environ.get("NATTERLOG_READY_FD")
        if descriptor:
            note = {"service": self.service, "health_port": self.health_port, "pid": os.getpid()}
            os.write(int(descriptor), json.dumps(note).encode() + b"\n")

    def add_check(self, name: str, check: Check) -> None:
        """Let /readyz depend on ``check``."""
        self._checks[name] = check

    def health_routes(self) -> list[web.RouteDef]:
        """The routes /livez, /readyz and /metrics; none needs a token."""
        return [
            web.get("/livez", self._livez),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._metrics),
        ]

    async def _bus_connected(self) -> str | None:
        return None if self.bus.connected else "not connected to NATS"

    async def _livez(self, _: web.Request) -> web.Response:
        """Tell that the process answers."""
        return _json(Alive(service=self.service))

    async def _readyz(self, _: web.Request) -> web.Response:
        """Tell whether the service does its work; 503 while it does not."""
        checks = {name: await check() for name, check in self._checks.items()}
        if not self._ready:
            checks["service"] = "still starting"
        if self.stopping.is_set():
            checks["service"] = "stopping"
        ready = not any(checks.values())
        told = Readiness(
            status="ready" if ready else "not ready",
            service=self.service,
            checks={name: fault or "ok" for name, fault in checks.items()},
        )
        return _json(told, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        """Show the numbers, for Prometheus."""
        return web.Response(
            body=prometheus_client.generate_latest(),
            headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
        )


def _json(body: msgspec.Struct, *, status: int = 200) -> web.Response:
    data = msgspec.json.encode(body)
    return web.Response(body=data, status=status, content_type="application/json")


@asynccontextmanager
async def running(
    settings: Settings, service: str, *, own_health: bool = True
) -> AsyncGenerator[Life]:
    """Connect, make sure of the streams, answer health checks; undo it all at the end.

    ``own_health`` False leaves the health routes to the service's own web application.

    Raises:
        BusError: NATS is too old, or JetStream refuses.
    """
    configure(settings, service=service)
    if settings.nats_url is None:
        raise SystemExit("NATTERLOG_NATS_URL is not set; `natterlog up` starts a server itself.")
    async with Bus(settings.nats_url, name=service) as bus:
        life = Life(service, bus, grace=settings.grace)
        life.epoch = await ensure_streams(bus)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, life.stopping.set)
        _watch_supervisor(loop, life)
        runner = await _serve_health(life, settings) if own_health else None
        try:
            yield life
        finally:
            if runner is not None:
                await runner.cleanup()


def _watch_supervisor(loop: asyncio.AbstractEventLoop, life: Life) -> None:
    """Stop when the supervisor is gone: the pipe that it held for us has ended."""
    descriptor = os.environ.get("NATTERLOG_LIFELINE_FD")
    if descriptor is None:
        return

    def ended() -> None:
        loop.remove_reader(int(descriptor))
        life.grace = 0.0
        life.stopping.set()

    loop.add_reader(int(descriptor), ended)


async def _serve_health(life: Life, settings: Settings) -> web.AppRunner:
    app = web.Application()
    app.add_routes(life.health_routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.health_port)
    await site.start()
    life.health_port = runner.addresses[0][1]
    return runner
