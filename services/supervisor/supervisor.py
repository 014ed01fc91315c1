"""``natterlog up``: a nats-server and one of each service, kept running until Ctrl-C.

hold the data directory → nats-server accepts → all services at once → each
reports that it is ready → announce → start again what dies or is stuck, until Ctrl-C →
stop in order: gateways, llm_workers, processors, store, nats-server
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any

import msgspec

from services.supervisor import embedded_nats, run_file
from services.supervisor.health_watch import HealthTiming, HealthWatch
from services.supervisor.supervised_child import Backoff, CannotStart, Program, SupervisedChild
from shared.child import machine_environ
from shared.log import configure, get_logger
from shared.settings import Settings, variables_of

log = get_logger()

NATS_GRACE = 10.0
"""Seconds for nats-server to close its files; it loses nothing when they do not suffice."""

MARGIN = 5.0
"""Seconds beyond a service's own grace before it is killed."""

COLOURS = {"gateway": 36, "llm_worker": 35, "processor": 33, "store": 32, "nats": 34}

Plan = Callable[[str], list[list[Program]]]
"""NATS URL → what to run, in groups, in the order in which they are stopped."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each service; there is exactly one store."""

    gateways: int = 1
    workers: int = 1
    processors: int = 1


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long the supervisor waits for what; tests have less of it."""

    ready_within: float = 60.0
    """Seconds that nats-server, and then all services together, have to become ready."""
    backoff: Backoff = Backoff()
    health: HealthTiming = HealthTiming()


class CannotListen(Exception):
    """The gateway's address is taken, or not this machine's."""


class NotReady(Exception):
    """Something did not become ready in time; the message has its last lines."""


def up(settings: Settings, environ: Mapping[str, str], counts: Counts) -> int:
    """Run all of natterlog until a signal stops it → the exit code.

    Raises:
        CannotListen: the gateway's address cannot be had.
        DataDirUnusable: it cannot be written, or is in use.
        NatsServerUnusable: there is no nats-server, or only an old one.
    """
    if settings.port == 0:
        settings = msgspec.structs.replace(settings, port=embedded_nats.free_port())
    _try_to_listen(settings)
    return supervise(settings, lambda nats_url: services(settings, environ, counts, nats_url))


def services(
    settings: Settings, environ: Mapping[str, str], counts: Counts, nats_url: str
) -> list[list[Program]]:
    """The services' programs, in the order in which they are stopped."""
    given = {
        "NATTERLOG_NATS_URL": nats_url,
        "NATTERLOG_PORT": str(settings.port),
        "NATTERLOG_REUSE_PORT": "1" if counts.gateways > 1 else "0",
        "NATTERLOG_HEALTH_PORT": "0",  # one number cannot serve them all: run.json has theirs
        "NATTERLOG_PROVIDERS": ",".join(settings.configured_providers),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.log_format == "auto" and sys.stderr.isatty():
        given["NATTERLOG_LOG_FORMAT"] = "console"  # they see a pipe, a person reads it

    def programs(service: str, count: int) -> list[Program]:
        own = {**machine_environ(environ), **variables_of(service, environ), **given}
        command = [sys.executable, "-m", "services.cli", service.replace("_", "-")]
        names = [service] if count == 1 else [f"{service}-{n}" for n in range(1, count + 1)]
        return [Program(name=name, command=command, environ=own) for name in names]

    return [
        programs("gateway", counts.gateways),
        programs("llm_worker", counts.workers),
        programs("processor", counts.processors),
        programs("store", 1),
    ]


def supervise(settings: Settings, plan: Plan, timing: Timing | None = None) -> int:
    """Run what ``plan`` says, below an embedded nats-server if none is set → the exit code."""
    configure(settings, service="supervisor")
    with run_file.hold(settings.data_dir), _nats(settings) as (nats_url, nats):
        family = partial(Family, settings, nats_url, timing or Timing())
        return asyncio.run(_run(settings, family, nats, plan(nats_url)))


async def _run(
    settings: Settings,
    new_family: "Callable[[], Family]",
    nats: Program | None,
    groups: list[list[Program]],
) -> int:
    """Start all, announce it, and stop all once that is asked for or one cannot start."""
    stop = StopSignals()
    family = new_family()
    try:
        if await _unless(stop.requested, family.start(nats, groups)):
            await _announce(settings)
            await _unless(stop.requested, family.until_one_gives_up())
        code = 0
    except (CannotStart, NotReady) as error:
        sys.stderr.write(f"natterlog: {error}\n")
        code = error.code if isinstance(error, CannotStart) else 1
    finally:
        clean = await family.stop(stop.forced)
    return code or int(not clean)


class StopSignals:
    """The first Ctrl-C or SIGTERM asks for an orderly stop, the second forces it."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self.requested.is_set():
            self.forced.set()
            return
        log.info("supervisor.stopping", again="stops at once")
        self.requested.set()


class Family:
    """All children of this ``up``; owns their lifeline and ``run.json``."""

    def __init__(self, settings: Settings, nats_url: str, timing: Timing) -> None:
        self._settings = settings
        self._nats_url = nats_url
        self._timing = timing
        self._lifeline, self._our_end = os.pipe()
        self._nats: list[SupervisedChild] = []
        self._groups: list[list[SupervisedChild]] = []
        self._watches: list[asyncio.Task[None]] = []

    async def start(self, nats: Program | None, groups: list[list[Program]]) -> None:
        """Start nats-server, then everything else at once, and wait until all are ready.

        Raises:
            CannotStart, NotReady: which one is not, with its last lines.
        """
        self._nats = [self._child(program) for program in (nats,) if program]
        await self._all_ready(self._nats)
        self._groups = [[self._child(program) for program in group] for group in groups]
        await self._all_ready([child for group in self._groups for child in group])

    async def until_one_gives_up(self) -> None:
        """Watch; each child is started again by itself, so this ends with a defect only."""
        timing, host = self._timing.health, _host(self._settings)
        watches = [HealthWatch(child, host, self._nats_url, timing) for child in self._children]
        self._watches = [asyncio.create_task(watch.run()) for watch in watches]
        done, _ = await asyncio.wait(
            [child.keeper for child in self._children], return_when=asyncio.FIRST_COMPLETED
        )
        for keeper in done:
            keeper.result()

    async def stop(self, forced: asyncio.Event) -> bool:
        """Stop one group after the other → whether all ended without being killed."""
        for watch in self._watches:
            watch.cancel()
        clean = True
        for children, grace in (
            *((group, self._settings.grace + MARGIN) for group in self._groups),
            (self._nats, NATS_GRACE),
        ):
            stopped = [child.stop(grace=grace, forced=forced) for child in children]
            clean &= all(await asyncio.gather(*stopped))
        os.close(self._our_end)
        os.close(self._lifeline)
        return clean

    async def _all_ready(self, children: list[SupervisedChild]) -> None:
        try:
            async with asyncio.timeout(self._timing.ready_within):
                await asyncio.gather(*(child.until_ready() for child in children))
        except TimeoutError:
            failures = [child.describe_failure() for child in children if not child.ready.is_set()]
            raise NotReady("\n".join(failures)) from None

    @property
    def _children(self) -> list[SupervisedChild]:
        return [*self._nats, *(child for group in self._groups for child in group)]

    def _child(self, program: Program) -> SupervisedChild:
        return SupervisedChild(
            program,
            lifeline=self._lifeline,
            show=_show,
            changed=self._write_run_file,
            backoff=self._timing.backoff,
        )

    def _write_run_file(self) -> None:
        """Write ``run.json``, by which other commands find the running system."""
        alive = {
            child.name: run_file.RunningChild(
                pid=child.pid, health_port=child.health_port, worker=child.worker
            )
            for child in self._children
            if child.pid is not None
        }
        now = run_file.RunningSystem(pid=os.getpid(), nats_url=self._nats_url, children=alive)
        try:
            run_file.write(self._settings.data_dir, now)
        except OSError as error:  # a full disk must not end the services that may free it
            log.warning("supervisor.run_file_not_written", error=str(error))


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do ``work`` to its end, or until ``event`` → whether it was done."""
    event_set = asyncio.create_task(event.wait())
    working = asyncio.create_task(work)
    await asyncio.wait({event_set, working}, return_when=asyncio.FIRST_COMPLETED)
    done = working.done()
    for task in (event_set, working):
        task.cancel()
    with suppress(asyncio.CancelledError):
        await working
    return done


@contextmanager
def _nats(settings: Settings) -> Generator[tuple[str, Program | None]]:
    """The URL of the server that is set, or of one of our own, and then its program."""
    if settings.nats_url:
        yield settings.nats_url, None
        return
    with run_file.nats_lock(settings.data_dir) as lock:
        server = embedded_nats.prepare(settings.data_dir)
        quiet = () if settings.log_level == "debug" else ("[INF]", "Plaintext passwords")
        yield (
            server.url,
            Program(
                name="nats",
                command=server.command,
                environ=machine_environ(os.environ),
                ready_line=embedded_nats.READY,
                cannot_start=embedded_nats.CANNOT_START,
                where=f" in {server.directory} (NATTERLOG_DATA_DIR)",
                keep_fds=(lock,),
                hide=quiet,
            ),
        )


def _try_to_listen(settings: Settings) -> None:
    """Find out before anything starts whether the gateway's address can be had."""
    try:
        info = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = info[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        number = error.errno or 0  # below zero: the name is not known, and strerror says so
        why = os.strerror(number) if number > 0 else error.strerror
        raise CannotListen(
            f"Cannot listen on {settings.host}:{settings.port}: {why}. "
            "Choose another address with --port and --host (make run ARGS='--port …')."
        ) from error


def _show(name: str, stream: int, line: str) -> None:
    """Pass a child's line on; a line of JSON names its service itself."""
    target = sys.stdout if stream == 1 else sys.stderr
    if target.isatty():
        colour = COLOURS.get(name.partition("-")[0], 37)
        line = f"\033[{colour}m{name:>12}\033[0m │ {line}"
    elif not line.startswith("{"):
        line = f"{name} | {line}"
    with suppress(OSError):  # nobody reads us any more
        target.write(f"{line}\n")
        target.flush()


async def _announce(settings: Settings) -> None:
    text = announcement(settings, needs_token=await asyncio.to_thread(_needs_token, settings))
    sys.stdout.write(text)
    sys.stdout.flush()


def _needs_token(settings: Settings) -> bool:
    """Whether the gateway turns away who has none."""
    gateway = HTTPConnection(_host(settings), settings.port, timeout=5)
    try:
        gateway.request("GET", "/api/v1/chat/sessions?limit=1")
        return gateway.getresponse().status == HTTPStatus.UNAUTHORIZED
    except (OSError, HTTPException) as error:
        log.info("supervisor.gateway_silent", error=str(error))
        return False
    finally:
        gateway.close()


def _host(settings: Settings) -> str:
    """Where a client on this machine finds the gateway."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  (compared only)


def announcement(settings: Settings, *, needs_token: bool = False) -> str:
    """Where natterlog is, and a line for the shell that gets a first reply."""
    host = _host(settings)
    url = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    chat = f"{url}/api/v1/chat"
    json = "-H 'Content-Type: application/json'"
    hint = ""
    if needs_token:
        json = f'{json} -H "Authorization: Bearer $TOKEN"'
        hint = ", with a token of yours in TOKEN; `natterlog token create NAME` makes one"
    return f"""
natterlog is ready: {url}

Its API, to read and to try: {url}/docs

Try it (one line{hint}):

  id=$(curl -s {chat}/sessions {json} -d '{{}}' | sed 's/.*"id": *"\\([^"]*\\)".*/\\1/') && \
curl -sN '{chat}/messages?stream=true' {json} \
-d "{{\\"session_id\\": \\"$id\\", \\"content\\": \\"Hello\\"}}"

Ctrl-C stops it.

"""
