"""The whole system as real processes, each of which a test may kill, pause and start again."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from shared.child import die_with_this_process
from tests.support.fork_server import ROOT, start_forked
from tests.support.nats_server import NatsServer

DEADLINE = 60.0


class ServiceProcess(Protocol):
    """What tests use of :class:`asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def send_signal(self, signal: signal.Signals, /) -> None: ...
    async def wait(self) -> int: ...


class StartService(Protocol):
    """How services are started: as an operator does, or forked, which takes a sixth of the CPU."""

    async def __call__(
        self, service: str, environ: Mapping[str, str], *, log: int, ready: int
    ) -> ServiceProcess: ...


async def start_by_command(
    service: str, environ: Mapping[str, str], *, log: int, ready: int
) -> ServiceProcess:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", service),
        env={**environ, "NATTERLOG_READY_FD": str(ready)},
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[ready],
        process_group=0,
        preexec_fn=die_with_this_process(),
    )


async def start_by_fork(
    service: str, environ: Mapping[str, str], *, log: int, ready: int
) -> ServiceProcess:
    return await start_forked([service], environ, stdout=log, stderr=log, ready=ready)


class Process:
    """One service's process; ``log`` is the file with everything that it said."""

    def __init__(
        self, service: str, environ: Mapping[str, str], log: Path, start: StartService
    ) -> None:
        self.service = service
        self.url = ""
        """Where a gateway listens."""
        self.health_port = 0
        self.log = log
        self._environ = {**os.environ, **environ}
        self._start = start
        self._process: ServiceProcess | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        read, write = os.pipe()
        with self.log.open("ab") as log:
            self._process = await self._start(
                self.service, self._environ, log=log.fileno(), ready=write
            )
        os.close(write)
        try:
            async with asyncio.timeout(DEADLINE):
                line = await _read_line(read)
        except TimeoutError:
            line = b""
        finally:
            os.close(read)
        assert line, f"{self.service} did not become ready:\n{self.log.read_text()[-4000:]}"
        self.health_port = json.loads(line).get("health_port") or 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to say goodbye."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, and wait until it has ended; answers its exit code."""
        return await self._end(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: none of its threads does anything more from when this returns."""
        self.send(signal.SIGSTOP)
        while any(_state(thread) != "T" for thread in Path(f"/proc/{self.pid}/task").iterdir()):
            pass

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    async def ended(self) -> int:
        """Wait until it has ended by itself."""
        assert self._process is not None
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()


class System:
    """``async with System(environ={…}) as system``: a nats-server and one of each service.

    Leave services out with ``services=()`` and start them by hand with :meth:`start`.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        services: tuple[str, ...] = ("store", "llm-worker", "processor", "gateway"),
        start: StartService = start_by_fork,
    ) -> None:
        self.nats = NatsServer()
        self._temporary = tempfile.TemporaryDirectory(prefix="natterlog-system-")
        self.directory = Path(self._temporary.name)
        self.data_dir = self.directory / "data"
        self.data_dir.mkdir()
        self._environ = dict(environ or {})
        self._wanted = services
        self._start = start
        self.processes: list[Process] = []

    async def __aenter__(self) -> Self:
        await self.nats.__aenter__()
        await asyncio.gather(*(self.start(service) for service in self._wanted))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(p.kill() for p in self.processes if p.running))
        await self.nats.__aexit__(kind, error, trace)
        if error is not None:
            self._show_logs()
        self._temporary.cleanup()

    async def start(self, service: str, **environ: str) -> Process:
        """Start another process of a service; a gateway gets a port of its own."""
        number = sum(p.service == service for p in self.processes)
        settings = {
            "NATTERLOG_NATS_URL": self.nats.url,
            "NATTERLOG_DATA_DIR": str(self.data_dir),
            "NATTERLOG_LOG_FORMAT": "json",
            "NATTERLOG_PORT": str(free_port()),
            "NATTERLOG_MESSAGES_PER_MINUTE": "0",  # tests that count say so
            **self._environ,
            **environ,
        }
        log = self.directory / f"{service}-{number}.log"
        process = Process(service, settings, log, self._start)
        process.url = f"http://127.0.0.1:{settings['NATTERLOG_PORT']}"
        self.processes.append(process)
        await process.start()
        return process

    def of(self, service: str) -> list[Process]:
        """The service's running processes, oldest first."""
        return [p for p in self.processes if p.service == service and p.running]

    def one(self, service: str) -> Process:
        return self.of(service)[0]

    @property
    def url(self) -> str:
        """The first gateway's address."""
        return self.one("gateway").url

    def logs(self) -> str:
        """Everything that every process said."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    def _show_logs(self) -> None:
        for path in sorted(self.directory.glob("*.log")):
            sys.stderr.write(f"--- {path.name}\n{path.read_text()[-6000:]}\n")


def _state(thread: Path) -> str:
    """One letter: T for one that was stopped."""
    return (thread / "stat").read_text().rpartition(") ")[2][0]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _read_line(descriptor: int) -> bytes:
    """The first line from a pipe, or nothing when its other end was closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(descriptor), "rb")
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
