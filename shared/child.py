"""Child processes: started with an environment made for them, ended with all that they started.

Whoever runs natterlog has keys in the environment, so no child inherits it: a child gets what
is named here, and what its starter adds.  It has a session of its own, so that Ctrl-C is not for
it and one signal ends it with its own children, and nothing on its standard input unless there
is something to say.  What a child of ours gives up by itself is in :mod:`shared.confinement`.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from shared.confinement import die_with

MACHINE_VARIABLES = (
    *("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "TERM", "NO_COLOR"),
    *("TZ", "LANG", "LANGUAGE", "LC_*"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_*", "PYTHON*", "OPENSSL_*"),
    *("GOMAXPROCS", "GOMEMLIMIT", "GOGC"),
)
"""What a program needs to know of the machine that it runs on: patterns of variables."""

_ROOT = Path(__file__).parents[1]
"""Where the packages lie that a child of ours imports: the same as ours."""
_PREFIX = "natterlog-child-"
_OLD = 3600.0
"""Seconds: far more than any child takes that has a directory, and than its files are needed."""


# -- what a child is given ------------------------------------------------------------


def machine_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Of ``environ`` what describes the machine, and nothing else."""
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, pattern) for pattern in MACHINE_VARIABLES)
    }


def bare_environ(directory: Path) -> dict[str, str]:
    """The environment of a child that reads strangers' files: nothing of natterlog's own."""
    return {"PYTHONPATH": str(_ROOT), "PYTHONUTF8": "1", "TMPDIR": str(directory)}


def make_directory() -> Path:
    """A directory for one child alone; who makes it removes it."""
    return Path(tempfile.mkdtemp(prefix=_PREFIX))


def sweep_directories() -> None:
    """Remove what services left that were killed while a child worked: for a service's start."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - directory.stat().st_mtime > _OLD:
                shutil.rmtree(directory)


async def open_pipe(protocol: asyncio.Protocol) -> tuple[asyncio.ReadTransport, int]:
    """A pipe that ``protocol`` reads, and its writing end, to be handed over to a child.

    With the pipes that asyncio makes, a child counts as alive until everything
    that it ever started has closed them.
    """
    reading, writing = os.pipe()
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: protocol, os.fdopen(reading, "rb", buffering=0)
        )
    except BaseException:
        os.close(writing)
        raise
    return transport, writing


# -- from its start to its end --------------------------------------------------------


async def start_child(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: Path | None = None,
    stdin: int = DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    keep: Sequence[int] = (),
    hand_over: Iterable[int] = (),
    before_exec: Callable[[], None] | None = None,
) -> Process:
    """Start a program that inherits the descriptors in ``keep`` and none besides.

    ``hand_over`` names those that are closed here once it has them, or could not be started.

    Raises:
        OSError: it cannot be started.
    """
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            env=dict(environ),
            cwd=directory,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=keep,
            start_new_session=True,
            preexec_fn=before_exec,
        )
    finally:
        for descriptor in hand_over:
            os.close(descriptor)


@asynccontextmanager
async def child(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: Path,
    stdin: int = DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    hand_over: Iterable[int] = (),
) -> AsyncGenerator[Process]:
    """A program that has ended when the block ends, with all that it started.

    Raises:
        OSError: it cannot be started.
    """
    starting = asyncio.ensure_future(
        start_child(
            command,
            environ=environ,
            directory=directory,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            hand_over=hand_over,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)  # it takes milliseconds, and must be known to be killed
        raise
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    kill_all_of(process.pid)
    await process.wait()


def kill_all_of(pid: int) -> None:
    """End a child that was started here, and all that it started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def die_with_this_process() -> Callable[[], None]:
    """A ``before_exec`` after which the child gets SIGTERM when this process dies.

    For programs that are not ours.  Linux alone has this; the signal is tied to the thread
    that starts the child, so start it from the main one.
    """
    return partial(die_with, os.getpid(), signal.SIGTERM)
