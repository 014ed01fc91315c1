"""One child process that is kept running: started, read from, started again.

A child of ours gets two pipes (``shared/lifecycle.py`` is its side):

- ``NATTERLOG_READY_FD``: it writes one line of JSON there when it is ready,
  ``{"service": …, "health_port": …, "pid": …}``;
- ``NATTERLOG_LIFELINE_FD``: when this reads end-of-file the supervisor is gone,
  and the child stops as if it had got SIGTERM.
"""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import msgspec

from shared.child import die_with_this_process, kill_all_of, open_pipe, start_child
from shared.log import get_logger

log = get_logger()

BAD_SETTING = 2
"""The exit code of a process of ours that will never start as it is configured."""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What a child runs, and how it shows that it is ready."""

    name: str
    command: list[str]
    environ: Mapping[str, str]
    ready_line: str | None = None
    """For a program that is not ours: part of the line that it logs once it is ready."""
    cannot_start: int = BAD_SETTING
    """What it ends with, before it was ever ready, when another try would end the same."""
    where: str = ""
    """What it works on, as said when it does not start."""
    keep_fds: tuple[int, ...] = ()
    hide: tuple[str, ...] = ()
    """Lines with one of these in them are not worth showing."""


class ReadyReport(msgspec.Struct, frozen=True):
    """What a service writes to its readiness pipe."""

    service: str = ""
    pid: int = 0
    health_port: int | None = None
    worker: str | None = None
    """The name under which it claims runs, where it does."""


class EndedProcess(msgspec.Struct, frozen=True):
    """How one of a child's processes ended."""

    pid: int
    code: int
    """Below zero: the number of the signal that killed it."""
    signal: str | None
    worker: str | None
    """The name under which it had claimed runs, if it came to be ready."""


def signal_of(code: int) -> str | None:
    """The name of the signal that an exit code tells of; None where the process ended itself."""
    with suppress(ValueError):
        return signal.Signals(-code).name
    return None


class Backoff(msgspec.Struct, frozen=True):
    """Seconds between a death and the next start."""

    first: float = 0.2
    most: float = 10.0
    forgiven_after: float = 30.0
    """Seconds of health after which earlier deaths are forgotten."""

    def after(self, previous: float, healthy: float) -> float:
        if not previous or healthy >= self.forgiven_after:
            return self.first
        return min(previous * 2, self.most)


class CannotStart(Exception):
    """A child gave up before it was ever ready; ``code`` is what it ended with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class SupervisedChild:
    """A program that is kept running until it is stopped; the only owner of its process."""

    def __init__(
        self,
        program: Program,
        *,
        lifeline: int,
        show: Callable[[str, int, str], None],
        changed: Callable[[], None],
        backoff: Backoff,
    ) -> None:
        self.program = program
        self.pid: int | None = None
        self.health_port: int | None = None
        self.worker: str | None = None
        self.ready = asyncio.Event()
        self.last_lines: deque[str] = deque(maxlen=20)
        self._lifeline = lifeline
        self._show = show
        self._changed = changed
        self._backoff = backoff
        self._alive = False
        self._was_ready = False
        self._ready_at = 0.0
        self._stop = asyncio.Event()
        self.keeper = asyncio.create_task(self._keep_running(), name=self.name)
        """Ends when the child was stopped, or with why it cannot start."""

    @property
    def name(self) -> str:
        return self.program.name

    async def until_ready(self) -> None:
        """Wait until it reports that it is ready.

        Raises:
            CannotStart: it ended for good instead.
        """
        ready = asyncio.create_task(self.ready.wait())
        try:
            await asyncio.wait({ready, self.keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self.keeper.done():
            await self.keeper

    async def stop(self, *, grace: float, forced: asyncio.Event) -> bool:
        """Send SIGTERM, and SIGKILL after ``grace`` or when ``forced`` → whether one was enough."""
        self._stop.set()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        forcing = asyncio.create_task(forced.wait())
        await asyncio.wait(
            {self.keeper, forcing}, timeout=grace, return_when=asyncio.FIRST_COMPLETED
        )
        forcing.cancel()
        ended_itself = self.keeper.done()
        self._kill_all_of_it()
        await asyncio.gather(self.keeper, return_exceptions=True)  # its fault has been told
        return ended_itself

    def kill_stuck(self, faults: Mapping[str, str]) -> None:
        """Kill it, so that it is started again."""
        log.error("supervisor.child_stuck", child=self.name, pid=self.pid, faults=dict(faults))
        self._kill_all_of_it()

    # -- one process after the other ------------------------------------------

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self._stop.is_set():
            self._ready_at = loop.time() + 1e9
            ended = await self._run_once()
            if self._stop.is_set():
                return
            if ended.code == self.program.cannot_start and not self._was_ready:
                raise CannotStart(self.describe_failure(), ended.code)
            pause = self._backoff.after(pause, healthy=loop.time() - self._ready_at)
            log.warning(
                "supervisor.child_ended",
                child=self.name,
                **msgspec.structs.asdict(ended),
                starts_again_in=pause,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _run_once(self) -> "EndedProcess":
        """Run the process from its start to its end, and say how it ended."""
        self._alive = True
        out, err = _Lines(partial(self._on_line, 1)), _Lines(partial(self._on_line, 2))
        try:
            process = await self._spawn(out, err, _Lines(self._on_report))
            self.pid = process.pid
            self._changed()
            if self._stop.is_set():
                self._signal(signal.SIGTERM)
            code = await process.wait()
            self._kill_all_of_it()  # what a dead child leaves behind would hold its work and ports
            await asyncio.wait({out.ended, err.ended}, timeout=1)
            return EndedProcess(process.pid, code, signal_of(code), self.worker)
        finally:
            self._alive = False
            self.pid = self.health_port = self.worker = None
            self.ready.clear()
            self._changed()

    async def _spawn(self, out: "_Lines", err: "_Lines", ready: "_Lines") -> Process:
        stdout, stderr, report = [await lines.writing_end() for lines in (out, err, ready)]
        ours = self.program.ready_line is None
        return await start_child(
            self.program.command,
            environ={**self.program.environ, **(self._contract(report) if ours else {})},
            stdout=stdout,
            stderr=stderr,
            keep=(report, self._lifeline) if ours else self.program.keep_fds,
            hand_over=(stdout, stderr, report),
            before_exec=None if ours else die_with_this_process(),
        )

    def _contract(self, ready: int) -> dict[str, str]:
        return {
            "NATTERLOG_READY_FD": str(ready),
            "NATTERLOG_LIFELINE_FD": str(self._lifeline),
        }

    # -- what it writes -------------------------------------------------------

    def _on_line(self, stream: int, line: str) -> None:
        self.last_lines.append(line)
        if not any(part in line for part in self.program.hide):
            self._show(self.name, stream, line)
        if self.program.ready_line and self.program.ready_line in line:
            self._set_ready(ReadyReport())

    def _on_report(self, line: str) -> None:
        try:
            report = msgspec.json.decode(line, type=ReadyReport)
        except msgspec.DecodeError:
            log.error("supervisor.bad_ready_report", child=self.name)
            return
        self._set_ready(report)

    def _set_ready(self, report: ReadyReport) -> None:
        if not self._alive:  # the report of a process that has died since
            return
        self.health_port, self.worker = report.health_port, report.worker
        log.info("supervisor.child_ready", child=self.name, pid=self.pid, worker=self.worker)
        self._was_ready = True
        self._ready_at = asyncio.get_running_loop().time()
        self.ready.set()
        self._changed()

    def describe_failure(self) -> str:
        sentence = f"{self.name} did not start{self.program.where}"
        if not self.last_lines:
            return f"{sentence}, and said nothing."
        lines = "\n".join(f"  {line}" for line in self.last_lines)
        return f"{sentence}. Its last lines:\n{lines}"

    # -- signals --------------------------------------------------------------

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _kill_all_of_it(self) -> None:
        """End the child and the processes that it started."""
        if self.pid is not None:
            kill_all_of(self.pid)


class _Lines(asyncio.Protocol):
    """The reading end of a pipe, cut into lines until all its writers are gone."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._on_line = on_line
        self._rest = b""

    async def writing_end(self) -> int:
        """Open the pipe; its writing end, to be handed over to a child."""
        _, writing = await open_pipe(self)
        return writing

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))
        if not self.ended.done():
            self.ended.set_result(None)
