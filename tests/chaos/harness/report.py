"""What the harness did and found, for people and for programs."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from tests.chaos.harness.checker import Finding
from tests.chaos.harness.storm import Round
from tests.chaos.harness.world import DATABASE
from tests.support.fork_server import ROOT


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the harness."""

    at: datetime
    commit: str
    machine: str
    database: str
    rounds: list[Round]

    @property
    def findings(self) -> list[Finding]:
        return [finding for each in self.rounds for finding in each.findings]


def report_of(rounds: list[Round]) -> Report:
    return Report(
        at=datetime.now(UTC).replace(microsecond=0),
        commit=_commit(),
        machine=f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        database="PostgreSQL" if os.environ.get(DATABASE) else "SQLite",
        rounds=rounds,
    )


def text_of(report: Report) -> str:
    """Everything, for a terminal."""
    return "\n".join(
        [_head(report), *(text_of_round(each) for each in report.rounds), _sum(report)]
    )


def text_of_round(each: Round) -> str:
    """One round: its numbers, and its findings in full."""
    lines = [
        f"seed {each.seed}: {each.seconds:g} s of faults, {sum(each.replies.values())} runs "
        f"({_pairs(each.replies)})",
        f"  seconds: {_pairs(each.took)}",
        f"  clients: {_pairs(each.shown)}; {each.resets} resets, {each.cuts} lost connections",
        f"  processes: {_pairs(each.faults) or 'nothing was done to them'}",
        f"  connections: {_pairs(each.connections) or 'all good'}",
        f"  provider: {_pairs(each.answers)}",
        f"  findings: {len(each.findings) or 'none'}",
    ]
    lines += [f"    {f.rule} | {f.where} | {f.detail}" for f in each.findings]
    return "\n".join(lines)


def row_of(report: Report) -> str:
    """The report as a row of the table in docs/reliability.md."""
    runs, shown, faults, connections = (
        sum(sum(getattr(each, name).values()) for each in report.rounds)
        for name in ("replies", "shown", "faults", "connections")
    )
    seeds = [each.seed for each in report.rounds]
    cells = (
        f"{report.at:%Y-%m-%d}",
        report.commit,
        report.database,
        report.machine,
        f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
        f"{sum(each.seconds for each in report.rounds):g} s",
        f"{runs:,}",
        f"{shown:,}",
        f"{faults:,}",
        f"{connections:,}",
        f"{sum(each.replies.get('failed', 0) for each in report.rounds):,}",
        str(len(report.findings) or "none"),
    )
    return f"| {' | '.join(cells)} |"


def _head(report: Report) -> str:
    return f"{report.at:%Y-%m-%d %H:%M} UTC, commit {report.commit}, {report.machine}"


def _sum(report: Report) -> str:
    runs = sum(sum(each.replies.values()) for each in report.rounds)
    return f"{runs} runs in {len(report.rounds)} rounds, findings: {len(report.findings) or 'none'}"


def _pairs(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in counts.items())


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
