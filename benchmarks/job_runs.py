"""Measure whole file jobs, from the upload to the answer, on a system of real processes.

The provider is the fake one and answers at once, so what is measured is natterlog:
the upload, the reading in a child process, the steps in the log, the answer's way.
"""

import asyncio
import json
import time
from pathlib import Path
from statistics import median

import aiohttp

from benchmarks.procfs import resident_bytes
from tests.support.running import Running, running_system

MIB = 1024 * 1024
AT_ONCE = 20
UPLOAD = 20 * MIB


async def measure_jobs(pdf: Path, table: Path) -> None:
    """Print jobs a minute, the time to the first words, and what uploads cost a gateway."""
    async with running_system() as running, Jobs(running) as jobs:
        await jobs.run(pdf)  # whatever is slow the first time
        firsts = [await jobs.run(pdf) for _ in range(10)]
        print(
            f"{'first ai_chunk after the upload began':<42} {median(firsts) * 1000:>8.0f} ms (p50)"
        )
        for what, path in (("PDF jobs", pdf), ("CSV jobs", table)):
            start = time.perf_counter()
            await asyncio.gather(*(jobs.run(path) for _ in range(AT_ONCE)))
            minutes = (time.perf_counter() - start) / 60
            _print(f"{what}, {AT_ONCE} at once", f"{AT_ONCE / minutes:.0f} a minute")
        grown = await jobs.grown_by_uploads()
        print(
            f"{f'gateway, {AT_ONCE} uploads of {UPLOAD // MIB} MiB at once':<42} {grown:>+8.1f} MiB"
        )


def _print(what: str, number: str) -> None:
    print(f"{what:<42} {number}")


class Jobs:
    """Uploads files and hears of them on one socket."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._url = running.system.url
        self._first: dict[str, asyncio.Event] = {}
        self._ended: dict[str, asyncio.Event] = {}

    async def __aenter__(self) -> "Jobs":
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._socket = await self._http.ws_connect(f"{self._url}/ws", max_msg_size=0)
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        await self._socket.close()
        await self._http.close()

    async def run(self, path: Path) -> float:
        """Upload, wait for the end; answers the seconds to the first words."""
        start = time.perf_counter()
        job_id = await self._upload(path.read_bytes(), path.name)  # noqa: ASYNC240  it is small
        await _event(self._first, job_id).wait()
        first = time.perf_counter() - start
        await _event(self._ended, job_id).wait()
        return first

    async def grown_by_uploads(self) -> float:
        """MiB by which the gateway's peak rose while many large files came in at once."""
        gateway = self._running.system.one("gateway").pid
        before = resident_bytes(gateway)
        text = b"x" * 79 + b"\n"
        data = text * (UPLOAD // len(text))
        uploads = asyncio.gather(*(self._upload(data, "large.txt") for _ in range(AT_ONCE)))
        peak = before
        while not uploads.done():
            peak = max(peak, resident_bytes(gateway))
            await asyncio.wait([uploads], timeout=0.02)
        await uploads
        return (peak - before) / MIB

    async def _upload(self, data: bytes, name: str) -> str:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("prompt", "tokens=20")
        form.add_field("file", data, filename=name, content_type="application/octet-stream")
        async with self._http.post(f"{self._url}/api/upload", data=form) as response:
            body = await response.json()
        assert body["success"], body
        return body["data"]["job_id"]

    async def _listen(self) -> None:
        async for message in self._socket:
            frame = json.loads(message.data)
            match frame["type"]:
                case "ai_chunk" if frame["chunk"]:
                    _event(self._first, frame["job_id"]).set()
                case "job_completed" | "job_failed":
                    _event(self._first, frame["job_id"]).set()
                    _event(self._ended, frame["job_id"]).set()


def _event(events: dict[str, asyncio.Event], job_id: str) -> asyncio.Event:
    return events.setdefault(job_id, asyncio.Event())
