"""What processes have in memory, as Linux tells."""

from pathlib import Path

MEBIBYTE = 1024 * 1024
MEASURABLE = Path("/proc/self/clear_refs").exists()


def resident(pid: int, line: str = "VmRSS") -> int:
    """Bytes that a process has in memory (VmHWM: had at most since :func:`reset_peak`)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(row.split()[1]) * 1024 for row in status.splitlines() if row.startswith(line))


def peak(pid: int) -> int:
    return resident(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
