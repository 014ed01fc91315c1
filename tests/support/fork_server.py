"""Services that are forked from a process which has imported their code already.

Nearly all that a service takes at its start is the import of its code, and tests start some
hundred whole systems.  So a test process imports each kind of service once, in a process that
does nothing else (``python -m tests.support.fork_server store``), and every start is a fork of
that one: an interpreter, a process id, files and signals of its own, as if it were started by
its command.

    test process → fork server, one a kind → watcher, one a start → the service

A watcher is the parent that tells how its service ended.  When one of the chain dies, those
behind it end too.
"""

import asyncio
import atexit
import functools
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from services.cli.main import main as run_command
from shared.child import die_with_this_process

ROOT = Path(__file__).parents[2]
_STATUS = struct.Struct("i")
"""What a watcher writes: first the process's id, later what ``waitpid`` says of its end."""
_LARGEST = 256 * 1024
_LATER = {"llm-worker": ["anthropic"]}
"""What a service imports only when it has a key for it: the largest of all imports."""


class ForkedProcess:
    """A service's process, with what tests use of :class:`asyncio.subprocess.Process`."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self._status = status
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.create_future()
        self._loop.add_reader(status, self._on_end)

    @property
    def returncode(self) -> int | None:
        return self._end.result() if self._end.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def _on_end(self) -> None:
        (found,) = _STATUS.unpack(os.read(self._status, _STATUS.size))
        self._loop.remove_reader(self._status)
        os.close(self._status)
        self._end.set_result(os.waitstatus_to_exitcode(found))


async def start_forked(
    service: str, environ: Mapping[str, str], log: int, ready: int
) -> ForkedProcess:
    """Fork a process of this service; it writes to ``log``, and to ``ready`` when it is."""
    status, theirs = os.pipe()
    try:
        request = json.dumps(dict(environ)).encode()
        socket.send_fds(_fork_server(service), [request], [log, ready, theirs])
    finally:
        os.close(theirs)
    # The first waits until all is imported, so not in the loop's thread.
    first = await asyncio.to_thread(os.read, status, _STATUS.size)
    assert first, f"the fork server of {service} died"
    return ForkedProcess(_STATUS.unpack(first)[0], status)


@functools.cache
def _fork_server(service: str) -> socket.socket:
    """Where the fork server of this service takes requests; it ends with the test process."""
    requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, service],
            cwd=ROOT,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for pytest
            preexec_fn=die_with_this_process(),
        )
    atexit.register(process.wait)
    atexit.register(requests.close)  # goes first, and is what the process waits for
    return requests


# -- in the fork server's own process, and in the forks of it --------------------------


def main(service: str) -> int:
    """Import a service, then fork it whenever that is asked for; answers in each fork as well."""
    _import_code_of(service)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a watcher ended
    requests = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _LARGEST, 3)
        if not request:
            return 0
        end_with_parent = die_with_this_process()
        if os.fork() == 0:
            end_with_parent()
            requests.close()
            return _watch_a_fork(service, json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _import_code_of(service: str) -> None:
    """Import what the command imports, and what its service imports as soon as it runs."""
    package = service.replace("-", "_")
    code = ("services.cli.commands.service", f"services.{package}.__main__")
    for module in (*code, *_LATER.get(service, [])):
        importlib.import_module(module)


def _watch_a_fork(
    service: str, environ: Mapping[str, str], log: int, ready: int, status: int
) -> int:
    """Fork the service and say how it ended; answers its exit code in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with_parent = die_with_this_process()
    pid = os.fork()
    if pid == 0:
        end_with_parent()
        os.close(status)
        return _run(service, environ, log, ready)
    os.close(log)
    os.close(ready)
    os.write(status, _STATUS.pack(pid))
    _, found = os.waitpid(pid, 0)
    os.write(status, _STATUS.pack(found))
    return 0


def _run(service: str, environ: Mapping[str, str], log: int, ready: int) -> int:
    """Be what ``python -m services.cli SERVICE`` is, with this environment and these files."""
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    os.close(nothing)
    os.close(log)
    os.environ.clear()
    os.environ.update(environ, NATTERLOG_READY_FD=str(ready))
    return run_command([service])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
