"""A real nats-server for tests, with the embedded server's configuration.

It belongs to no event loop, so one server may serve tests that each have their
own loop.
"""

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from services.supervisor import embedded_nats
from shared.bus import ApiError, Bus
from shared.child import die_with_this_process
from shared.streams import STREAMS

DEADLINE = 20.0


class NatsServer:
    """``async with NatsServer() as server: await nats.connect(server.url)``.

    The port, the password and what was stored stay the same from start to start.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="natterlog-nats-")
        self.directory = Path(self._temporary.name)
        self._server = embedded_nats.prepare(self.directory)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.log: list[str] = []
        """What the server said, over all its starts."""

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def pid(self) -> int:
        return self._running.pid

    async def start(self) -> None:
        """Start it, for the first time or again, and wait until it takes connections."""
        assert self._process is None, "the server runs already"
        # Started from this thread, never from a pool, although it blocks for a moment:
        # the death signal is tied to the thread.
        self._process = subprocess.Popen(  # noqa: ASYNC220
            self._server.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is for pytest
            preexec_fn=die_with_this_process(),
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, ready), daemon=True)
        self._reader.start()
        await asyncio.to_thread(ready.wait, DEADLINE)
        assert self._process.poll() is None, "nats-server died:\n" + "".join(self.log[-20:])

    async def stop(self) -> None:
        """Let it close its files; nothing happens when it does not run."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL, as a power cut would do it."""
        await self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered, from when this returns."""
        self._running.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def reload(self) -> None:
        """Have it read its configuration anew, without a restart."""
        self._running.send_signal(signal.SIGHUP)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._temporary.cleanup()

    @property
    def _running(self) -> "subprocess.Popen[str]":
        assert self._process, "the server does not run"
        return self._process

    async def _end(self, how: signal.Signals) -> None:
        process, reader = self._running, self._reader
        process.send_signal(how)
        await asyncio.to_thread(process.wait, DEADLINE)
        if reader:
            await asyncio.to_thread(reader.join, DEADLINE)
        self._process = self._reader = None

    def _read(self, process: "subprocess.Popen[str]", ready: threading.Event) -> None:
        assert process.stderr
        with process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if embedded_nats.READY in line:
                    ready.set()
        ready.set()  # it is dead: whoever waits must look


async def forget_everything(server: NatsServer) -> None:
    """Delete every stream: whoever comes next makes them anew, and finds an empty log."""
    async with Bus(server.url, name="test") as bus:
        for stream in STREAMS:
            with suppress(ApiError):  # nobody has made it yet
                await bus.api(f"STREAM.DELETE.{stream}")
