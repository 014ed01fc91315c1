"""``natterlog up`` as a process, with its own services or with stubs of them."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.supervisor import run_file

REPOSITORY = Path(__file__).parents[2]
DEADLINE = 20


class Up:
    """A running supervisor, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._unmatched: list[str] = []

    async def line(self, pattern: str) -> re.Match[str]:
        """The first line with ``pattern`` that was not asked for before.

        What two processes say comes in any order.
        """
        assert self.process.stdout
        async with asyncio.timeout(DEADLINE):
            while True:
                for line in self._unmatched:
                    if match := re.search(pattern, line):
                        self._unmatched.remove(line)
                        return match
                heard = await self.process.stdout.readline()
                assert heard, f"{pattern!r} was never said:\n" + "\n".join(self.lines)
                self.lines.append(heard.decode().rstrip("\n"))
                self._unmatched.append(self.lines[-1])

    async def ended(self) -> int:
        """Everything it said to its end is in ``lines``; its exit code."""
        assert self.process.stdout
        async with asyncio.timeout(DEADLINE):
            self.lines += (await self.process.stdout.read()).decode().splitlines()
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def up(
    data_dir: Path, *stubs: str, module: str = "tests.support.up_with_stubs", **environ: str
) -> AsyncIterator[Up]:
    clean = {name: text for name, text in os.environ.items() if "NATTERLOG" not in name}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *stubs,
        cwd=REPOSITORY,
        env={**clean, "NATTERLOG_DATA_DIR": str(data_dir), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Up(process)
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdout
        await process.stdout.read()
        await process.wait()


def running_on(data_dir: Path) -> run_file.RunningSystem:
    found = run_file.read(data_dir)
    assert found
    return found


async def running_again(data_dir: Path, child: str) -> run_file.RunningSystem:
    """What the run file says once it names a child that ended."""
    async with asyncio.timeout(DEADLINE):
        while True:
            if child in (found := running_on(data_dir)).children:
                return found
            await asyncio.sleep(0.01)  # a file gives no signal
