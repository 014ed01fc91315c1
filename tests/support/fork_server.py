"""Commands of natterlog that are forked from a process which has imported their code already.

Nearly all that a service takes at its start is the import of its code, and tests start some
hundred whole systems.  So a test process has that imported once for each kind of service, and
once for all other commands, in processes that do nothing else; every start is a fork of one of
them: an interpreter, a process id, files and signals of its own, as if it were started by
``python -m services.cli COMMAND``.

    test process → fork server, one a kind → watcher, one a start → the command

A watcher is the parent that tells how its command ended.  When one of the chain dies, those
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
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.cli.command_table import COMMANDS, SERVICES
from services.cli.main import main as run_command
from shared.child import die_with_this_process

ROOT = Path(__file__).parents[2]
_STATUS = struct.Struct("i")
"""What a watcher writes: first the process's id, later what ``waitpid`` says of its end."""
_LARGEST = 256 * 1024
_OTHERS = "others"
_LATER = {"llm-worker": ["anthropic"]}
"""What a service imports only when it has a key for it: the largest of all imports."""


class ForkedProcess:
    """A command's process, with what tests use of :class:`asyncio.subprocess.Process`."""

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
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    stdout: int,
    stderr: int,
    ready: int | None = None,
) -> ForkedProcess:
    """Fork a process that runs ``command``; a service writes to ``ready`` when it is."""
    status, theirs = os.pipe()
    try:
        request = json.dumps([command, dict(environ)]).encode()
        server = _fork_server(command[0] if command[0] in SERVICES else _OTHERS)
        descriptors = [theirs, stdout, stderr, *([] if ready is None else [ready])]
        socket.send_fds(server, [request], descriptors)
    finally:
        os.close(theirs)
    # The first waits until all is imported, so not in the loop's thread.
    first = await asyncio.to_thread(os.read, status, _STATUS.size)
    assert first, f"the fork server of {command[0]} died"
    return ForkedProcess(_STATUS.unpack(first)[0], status)


@functools.cache
def _fork_server(kind: str) -> socket.socket:
    """Where a fork server takes requests; it ends with the test process."""
    requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, kind],
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


def main(kind: str) -> int:
    """Fork commands whenever that is asked for; answers in each fork as well."""
    for module in _modules_of(kind):
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a watcher ended
    requests = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _LARGEST, 4)
        if not request:
            return 0
        end_with_parent = die_with_this_process()
        if os.fork() == 0:
            end_with_parent()
            requests.close()
            return _watch_a_fork(*json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _modules_of(kind: str) -> list[str]:
    """What a service imports until it runs, or all that other commands may import."""
    if kind in SERVICES:
        code = f"services.{kind.replace('-', '_')}.__main__"
        return ["services.cli.commands.service", code, *_LATER.get(kind, [])]
    others = (command for name, command in COMMANDS.items() if name not in SERVICES)
    return [f"services.cli.commands.{command.module}" for command in others]


def _watch_a_fork(
    command: list[str], environ: Mapping[str, str], status: int, *descriptors: int
) -> int:
    """Fork the command and say how it ended; answers its exit code in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with_parent = die_with_this_process()
    pid = os.fork()
    if pid == 0:
        end_with_parent()
        os.close(status)
        return _run(command, environ, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    os.write(status, _STATUS.pack(pid))
    _, found = os.waitpid(pid, 0)
    os.write(status, _STATUS.pack(found))
    return 0


def _run(
    command: list[str], environ: Mapping[str, str], stdout: int, stderr: int, *ready: int
) -> int:
    """Be what ``python -m services.cli`` is, with this environment and these files."""
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (stdout, 1), (stderr, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environ)
    for descriptor in ready:
        os.environ["NATTERLOG_READY_FD"] = str(descriptor)
    return run_command(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
