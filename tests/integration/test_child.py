"""Child processes: what they are given, and that nothing of them is left."""

import asyncio
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from shared.child import bare_environ, child, kill_all_of, machine_environ, sweep_directories

CONFINED = """
import os, signal, sys
from shared.confinement import ResourceLimits, confine
confine(ResourceLimits(memory=2**30, cpu_seconds=9, file_bytes=0), parent=os.getppid())
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CONFINED!r} + "print(flush=True); signal.pause()"],
                         stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_of_the_environment_only_what_describes_the_machine_is_given_on():
    environ = {"PATH": "/bin", "LC_ALL": "C", "PYTHONPATH": "/lib", "MALLOC_ARENA_MAX": "2"}
    private = {"SECRET_TOKEN": "s", "OPENAI_API_KEY": "k", "path": "x", "NATTERLOG_PORT": "1"}

    assert machine_environ({**environ, **private}) == environ


async def test_a_child_has_its_own_directory_a_bare_environment_and_nothing_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECRET_TOKEN", "secret")
    script = "import os, sys; print(os.getcwd(), *sorted(os.environ), repr(sys.stdin.read()))"

    async with child(
        [sys.executable, "-c", script],
        environ=bare_environ(tmp_path),
        directory=tmp_path,
        stdout=PIPE,
    ) as process:
        out, _ = await process.communicate()

    seen = set(out.decode().split()) - {"LC_CTYPE"}  # Python sets that one itself
    assert seen == {str(tmp_path), "PYTHONPATH", "PYTHONUTF8", "TMPDIR", "''"}


async def test_a_child_has_ended_with_the_block_and_all_that_it_started_is_killed(tmp_path: Path):
    script = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
print(child.pid, flush=True)
child.wait()
"""
    async with child(
        [sys.executable, "-c", script],
        environ=machine_environ(os.environ),
        directory=tmp_path,
        stdout=PIPE,
    ) as process:
        assert process.stdout
        grandchild = os.pidfd_open(int(await process.stdout.readline()))

    assert process.returncode == -signal.SIGKILL
    await ended(grandchild)


async def ended(pidfd: int) -> None:
    """Wait for the end of a process that is not our child."""
    event = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, event.set)
    try:
        await asyncio.wait_for(event.wait(), 10)
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


async def test_descriptors_that_are_handed_over_are_closed_although_it_does_not_start(
    tmp_path: Path,
):
    reading, writing = os.pipe()
    with pytest.raises(FileNotFoundError):
        async with child(
            [str(tmp_path / "nothing")],
            environ={},
            directory=tmp_path,
            stdout=writing,
            hand_over=[writing],
        ):
            raise AssertionError

    with os.fdopen(reading) as end:
        assert end.read() == ""


async def test_a_confined_child_ends_with_the_process_that_started_it(tmp_path: Path):
    async with child(
        [sys.executable, "-c", PARENT],
        environ=bare_environ(tmp_path),
        directory=tmp_path,
        stdout=PIPE,
    ) as parent:
        assert parent.stdout
        confined = os.pidfd_open(int(await parent.stdout.readline()))
        parent.kill()
        await ended(confined)


async def test_a_confined_child_writes_no_file_and_gets_no_more_memory(tmp_path: Path):
    script = (
        CONFINED
        + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for take in (lambda: open("file", "wb", buffering=0).write(b"x"), lambda: bytearray(2**31)):
    try:
        take()
    except (OSError, MemoryError) as error:
        print(type(error).__name__)
"""
    )

    async with child(
        [sys.executable, "-c", script],
        environ=bare_environ(tmp_path),
        directory=tmp_path,
        stdout=PIPE,
    ) as process:
        out, _ = await process.communicate()

    assert out.split() == [b"OSError", b"MemoryError"]


def test_to_kill_a_child_that_is_gone_is_no_fault():
    kill_all_of(2**22 + 1)  # beyond the largest process id there is


def test_what_a_killed_service_left_is_swept_once_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("natterlog-child-old", "natterlog-child-new", "somebody-elses"):
        (tmp_path / name).mkdir()
    for name in ("natterlog-child-old", "somebody-elses"):
        os.utime(tmp_path / name, (0, 0))

    sweep_directories()

    assert {path.name for path in tmp_path.iterdir()} == {"natterlog-child-new", "somebody-elses"}
