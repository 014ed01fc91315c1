"""natterlog's command line beside a running system, as an operator types it."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.support.fork_server import ROOT, start_forked
from tests.support.running import Running


class CompletedCommand(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def run_command(natterlog: Running, *args: str, at: str | None = "") -> CompletedCommand:
    """Run the command line; ``at`` None: as if nothing ran."""
    return await completed(args, _environ(natterlog, at))


async def completed(args: Sequence[str], environ: Mapping[str, str]) -> CompletedCommand:
    """Run the command line with this environment."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = await start_forked(args, environ, stdout=out.fileno(), stderr=err.fileno())
        code = await process.wait()
        out.seek(0)
        err.seek(0)
        return CompletedCommand(code, out.read(), err.read())


async def begin(natterlog: Running, *args: str) -> asyncio.subprocess.Process:
    """Start the command line, whose output can be read while it runs."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *args),
        cwd=ROOT,
        env=_environ(natterlog),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def _environ(natterlog: Running, at: str | None = "") -> dict[str, str]:
    system = natterlog.system
    environ = {**os.environ, "NATTERLOG_DATA_DIR": str(system.data_dir)}
    return environ if at is None else {**environ, "NATTERLOG_NATS_URL": system.nats.url}
