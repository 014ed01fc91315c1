"""What the harness did and found, for people and for programs."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from tests.chaos.harness.checker import Finding
from tests.chaos.harness.scene import Scene
from tests.chaos.harness.storm import Round
from tests.chaos.harness.world import DATABASE
from tests.support.fork_server import ROOT


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the harness."""

    at: datetime
    commit: str
    machine: str
    database: str
    rounds: list[Round] = []
    scenes: list[Scene] = []

    @property
    def findings(self) -> list[Finding]:
        return [finding for each in (*self.rounds, *self.scenes) for finding in each.findings]


def report_of() -> Report:
    """A report that nothing is in yet."""
    return Report(
        at=datetime.now(UTC).replace(microsecond=0),
        commit=_commit(),
        machine=f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        database="PostgreSQL" if os.environ.get(DATABASE) else "SQLite",
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
        *_findings(each.findings),
    ]
    return "\n".join(lines)


def text_of_scene(scene: Scene) -> str:
    """One scene: its numbers, and its findings in full."""
    return "\n".join([f"{scene.name}: {_pairs(scene.counts)}", *_findings(scene.findings)])


def rows_of(report: Report) -> list[str]:
    """The report as rows of the tables in docs/reliability.md."""
    about = (f"{report.at:%Y-%m-%d}", report.commit, report.database, report.machine)
    rows = [
        _row(*about, scene.name, _pairs(scene.counts), _count(scene.findings))
        for scene in report.scenes
    ]
    return [_storm_row(report, about), *rows] if report.rounds else rows


def _storm_row(report: Report, about: Sequence[str]) -> str:
    runs, shown, faults, connections = (
        sum(sum(getattr(each, name).values()) for each in report.rounds)
        for name in ("replies", "shown", "faults", "connections")
    )
    seeds = [each.seed for each in report.rounds]
    return _row(
        *about,
        f"{seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
        f"{sum(each.seconds for each in report.rounds):g} s",
        *(f"{number:,}" for number in (runs, shown, faults, connections)),
        f"{sum(each.replies.get('failed', 0) for each in report.rounds):,}",
        _count([finding for each in report.rounds for finding in each.findings]),
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines = [f"    {f.rule} | {f.where} | {f.detail}" for f in findings]
    return [f"  findings: {_count(findings)}", *lines]


def _count(findings: Sequence[Finding]) -> str:
    return str(len(findings) or "none")


def _pairs(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in counts.items())


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
