"""How a service lives: settings, log, bus, health, and a stop in two stages.

    async def main(settings: Settings) -> None:
        async with running(settings, "store") as life:
            ...                     # build what the service is made of
            life.ready()            # tell the supervisor, and /readyz
            await life.stopping.wait()
            ...                     # finish what runs, within life.grace

SIGTERM, SIGINT and the end of the supervisor set ``stopping``.  So does a connection to
NATS that is closed for good: without one a process is of no use, so it ends with an
error and whoever watches over it starts another.
"""

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
import prometheus_client
from aiohttp import web

from shared.bus import Bus, BusClosed
from shared.log import configure, get_logger
from shared.settings import Settings
from shared.streams import ensure_streams

log = get_logger()

CLOSING = 10.0
"""Seconds that a process has to end in order once its connection to NATS is closed."""


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
    restart_for: list[str] = []
    """Failing checks of what is wrong with this process alone: a new one may do better."""


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
        self._checks: dict[str, Check] = {}
        self._own: set[str] = set()
        self._measures: list[Callable[[], Awaitable[None]]] = []
        self.add_check("bus", self._bus_connected, own=True)

    def ready(self, **known: str) -> None:
        """The service does its work from now on; ``known`` is for the log."""
        self._ready = True
        log.info("service.ready", health_port=self.health_port, pid=os.getpid(), **known)
        descriptor = os.environ.get("NATTERLOG_READY_FD")
        if descriptor:
            note = {"service": self.service, "health_port": self.health_port, "pid": os.getpid()}
            note |= known
            os.write(int(descriptor), json.dumps(note).encode() + b"\n")

    def add_check(self, name: str, check: Check, *, own: bool = False) -> None:
        """Let /readyz depend on ``check``.

        ``own``: where it fails for long, this process is stuck, and is to be started
        anew; not where another part is away, or there is much to do.
        """
        self._checks[name] = check
        if own:
            self._own.add(name)

    def measure(self, measure: Callable[[], Awaitable[None]]) -> None:
        """Let ``measure`` set its gauges whenever somebody looks at /metrics."""
        self._measures.append(measure)

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
        names = list(self._checks)
        faults = await asyncio.gather(*(_fault(self._checks[name]) for name in names))
        checks = dict(zip(names, faults, strict=True))
        if not self._ready:
            checks["service"] = "still starting"
        if self.stopping.is_set():
            checks["service"] = "stopping"
        ready = not any(checks.values())
        readiness = Readiness(
            status="ready" if ready else "not ready",
            service=self.service,
            checks={name: fault or "ok" for name, fault in checks.items()},
            restart_for=[name for name in names if name in self._own and checks[name]],
        )
        return _json(readiness, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        """Show the numbers, for Prometheus; one that cannot be measured stays as it was."""
        for measure in self._measures:
            try:
                await measure()
            except Exception:  # the other numbers are true all the same
                log.exception("service.not_measured")
        return web.Response(
            body=prometheus_client.generate_latest(),
            headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
        )


async def _fault(check: Check) -> str | None:
    try:
        return await check()
    except Exception:  # whoever asks must get an answer
        log.exception("service.check_failed")
        return "this could not be checked; the log says why"


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
        BusClosed: the connection to NATS was closed for good.
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
        watching = asyncio.create_task(_watch_bus(life), name="bus-watch")
        runner = await serve_health(life, settings) if own_health else None
        try:
            yield life
        finally:
            watching.cancel()
            if runner is not None:
                await runner.cleanup()
    if bus.closed_because is not None:
        raise BusClosed(bus.closed_because)


async def _watch_bus(life: Life) -> None:
    """Stop once the connection is closed for good, at the latest after a few seconds."""
    await life.bus.wait_closed()
    last = threading.Timer(CLOSING, os._exit, (1,))  # whatever hangs, hangs no longer than that
    last.daemon = True
    last.start()
    life.grace = 0.0
    life.stopping.set()
    try:
        await asyncio.Event().wait()
    finally:  # it has ended in order
        last.cancel()


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


async def serve_health(life: Life, settings: Settings) -> web.AppRunner:
    """Answer health checks on a port of their own."""
    app = web.Application()
    app.add_routes(life.health_routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.health_port)
    await site.start()
    life.health_port = runner.addresses[0][1]
    return runner
