"""natterlog's command line beside a running system, as an operator types it."""

import asyncio
import json
import os
import sys
from typing import Any, NamedTuple

from tests.support.running import Running
from tests.support.system import ROOT


class CompletedCommand(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def run_command(natterlog: Running, *args: str, at: str | None = "") -> CompletedCommand:
    """Run the command line; ``at`` None: as if nothing ran."""
    process = await begin(natterlog, *args, at=at)
    out, err = await process.communicate()
    return CompletedCommand(process.returncode or 0, out.decode(), err.decode())


async def begin(natterlog: Running, *args: str, at: str | None = "") -> asyncio.subprocess.Process:
    system = natterlog.system
    environ = {"NATTERLOG_DATA_DIR": str(system.data_dir), "NATTERLOG_NATS_URL": system.nats.url}
    if at is None:
        del environ["NATTERLOG_NATS_URL"]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *args),
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
