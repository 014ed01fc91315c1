"""The numbers as a table for people."""

from datetime import datetime

import msgspec

from benchmarks.load import Measured
from benchmarks.sockets import Memory

AROUND = ("provider", "load")
"""Processes of the benchmark itself, whatever the way."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the benchmarks."""

    at: datetime
    commit: str
    machine: str
    rate: float
    seconds: float
    measured: list[Measured]
    memory: list[Memory]


def table(report: Report) -> str:
    """Everything that was measured, and beside it what natterlog adds and what it costs."""
    lines = [
        f"{report.at:%Y-%m-%d %H:%M} UTC, commit {report.commit}, {report.machine}",
        f"{report.rate:g} tokens/s a reply, counted for {report.seconds:g} s",
        "",
        "replies  way         first token ms  each token ms   tokens/s  pieces/s  "
        "CPU µs/token  lost  others",
        "                         p50    p99    p50    p99",
    ]
    lines += [_row(measured) for measured in report.measured]
    lines += ["", *_added(report), "", *_per_process(report), "", *_memory(report), ""]
    return "\n".join(lines)


def serving_us(measured: Measured) -> float:
    """CPU microseconds a token of what stands between the provider and the client."""
    return sum(us for name, us in measured.cpu_us_per_token.items() if name not in AROUND)


def others(measured: Measured) -> float:
    """Cores that were busy with something else: how far the numbers are to be trusted."""
    cores = measured.cores
    return cores["machine"] - sum(busy for name, busy in cores.items() if name != "machine")


def _row(m: Measured) -> str:
    first, token = m.first_token_ms, m.token_ms
    return (
        f"{m.replies:>7}  {m.way:<10}  {first.p50:>6.1f} {first.p99:>6.1f} {token.p50:>6.1f} "
        f"{token.p99:>6.1f} {m.tokens_per_second:>10.0f} {m.pieces_per_second:>9.0f} "
        f"{serving_us(m):>13.1f} {m.lost:>5} {others(m):>7.2f}"
    )


def _added(report: Report) -> list[str]:
    """natterlog and the relay against reading the provider directly, and against each other."""
    lines = [
        "added    way         first token ms  each token ms   CPU against the relay's",
        "                         p50    p99    p50    p99",
    ]
    by = {(m.replies, m.way): m for m in report.measured}
    for (replies, way), m in by.items():
        direct, relay = by.get((replies, "direct")), by.get((replies, "relay"))
        if way == "direct" or direct is None:
            continue
        ratio = f"{serving_us(m) / (serving_us(relay) or 1):.2f}" if relay else "-"
        lines.append(
            f"{replies:>7}  {way:<10}  "
            f"{m.first_token_ms.p50 - direct.first_token_ms.p50:>6.1f} "
            f"{m.first_token_ms.p99 - direct.first_token_ms.p99:>6.1f} "
            f"{m.token_ms.p50 - direct.token_ms.p50:>6.1f} "
            f"{m.token_ms.p99 - direct.token_ms.p99:>6.1f} {ratio:>12}"
        )
    return lines


def _per_process(report: Report) -> list[str]:
    lines = ["CPU µs/token (cores kept busy) by process"]
    for m in report.measured:
        parts = (
            f"{name} {us:.1f} ({m.cores[name]:.2f})" for name, us in m.cpu_us_per_token.items()
        )
        lines.append(f"{m.replies:>7}  {m.way:<10}  {', '.join(parts)}")
    return lines


def _memory(report: Report) -> list[str]:
    return [f"{m.kib:.1f} KiB a socket: {m.what} ({m.sockets} sockets)" for m in report.memory]
