"""Measure natterlog beside a bare relay: ``python -m benchmarks``, or ``make bench``.

A provider whose words are clocks, the relay and all of natterlog run as processes
of their own; the same load is put on each way from the provider to a client, one
after the other.  ``docs/benchmarks.md`` says what the numbers mean.
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.load import Measured, Plan
from benchmarks.report import Report, table
from benchmarks.sockets import measure_memory
from benchmarks.stage import ROOT, Target, stage
from benchmarks.ways import WAYS

RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    arguments = _arguments()
    report = asyncio.run(measure(arguments))
    path = arguments.json or RESULTS / f"{report.at:%Y-%m-%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    print(f"{table(report)}\nWritten to {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure natterlog.")
    add = parser.add_argument
    add("--replies", type=_list_of(int), default=[1, 50, 200, 500], help="at once (1,50,200,500)")
    add("--rate", type=float, default=50.0, help="tokens a second of each reply (50)")
    add("--seconds", type=float, default=10.0, help="how long is counted (10)")
    add("--sockets", type=int, default=1000, help="sockets for the memory of one (1000)")
    add("--workers", type=int, default=1, help="llm_workers (1)")
    add("--ways", type=_list_of(str), default=list(WAYS), help=f"which ({','.join(WAYS)})")
    add("--json", type=Path, help="where the numbers go (benchmarks/results/<time>.json)")
    add("--quick", action="store_true", help="does it still run? (the numbers mean nothing)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.replies, arguments.seconds, arguments.sockets = [3], 0.5, 50
    return arguments


def _list_of(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    return lambda text: [kind(word) for word in text.split(",")]


async def measure(arguments: argparse.Namespace) -> Report:
    measured: list[Measured] = []
    async with stage(arguments.ways, arguments.workers) as targets:
        # first of all: later, sockets would get memory that the load has left behind
        memory = await measure_memory(targets, arguments.sockets)
        for replies in arguments.replies:
            for way in arguments.ways:
                print(f"{replies} replies, {way}", file=sys.stderr)
                measured.append(await _load(arguments, replies, way, targets[way]))
    return Report(
        at=datetime.now(UTC),
        commit=_commit(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        rate=arguments.rate,
        seconds=arguments.seconds,
        measured=measured,
        memory=memory,
    )


async def _load(arguments: argparse.Namespace, replies: int, way: str, target: Target) -> Measured:
    plan = Plan(
        way=way,
        port=target.port,
        replies=replies,
        rate=arguments.rate,
        seconds=arguments.seconds,
        pids=target.pids,
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await process.communicate(msgspec.json.encode(plan))
    if process.returncode:
        raise SystemExit(f"The load through {way} failed.")
    return msgspec.json.decode(answer, type=Measured)


def _commit() -> str:
    git = ("git", "describe", "--always", "--dirty")
    output = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    return output.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
