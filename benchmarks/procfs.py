"""What the kernel says about processes: their CPU time and their memory."""

import os
from pathlib import Path

_CLOCK_STEP = 1_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_IDLE, _IOWAIT = 3, 4


def cpu_us(pid: int) -> int:
    """Microseconds that a process and its threads have run, in steps of a clock tick (10 ms)."""
    # the name, second and in parentheses, may hold anything
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) * _CLOCK_STEP


def machine_us() -> int:
    """Microseconds that the machine's cores were busy, for whomever, stolen time included."""
    first, *times = Path("/proc/stat").read_text().partition("\n")[0].split()[:9]
    assert first == "cpu"
    busy = (int(time) for n, time in enumerate(times) if n not in (_IDLE, _IOWAIT))
    return sum(busy) * _CLOCK_STEP


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
