"""What a child of ours does first of all: it takes its own rights away.

It does so itself, because between fork and exec hardly anything is safe in a process
that has threads.  Nothing is imported here that a small child would not want.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

_SET_PARENT_DEATH_SIGNAL = 1
# looked up here, because after a fork that is not safe
_prctl: Callable[[int, int], int] | None = None
if sys.platform == "linux":
    _prctl = ctypes.CDLL(None).prctl


class ResourceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a child may take of the machine."""

    memory: int
    """Bytes of address space, the interpreter included."""
    cpu_seconds: int
    file_bytes: int
    """No file that it writes may be larger."""
    open_files: int = 64


def confine(limits: ResourceLimits, *, parent: int) -> None:
    """Keep to the limits from here on, and end with the process ``parent``."""
    die_with(parent, signal.SIGKILL)
    most = {
        # macOS has the name of the first but takes no value
        "RLIMIT_AS": limits.memory,
        "RLIMIT_DATA": limits.memory,
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
    }
    for name, value in most.items():
        with suppress(AttributeError, ValueError, OSError):
            # one second more until the hard limit on computing, which kills without a reason
            resource.setrlimit(getattr(resource, name), (value, value + (name == "RLIMIT_CPU")))


def die_with(parent: int, number: signal.Signals) -> None:
    """Get the signal when the process ``parent`` dies, as far as the system can do that."""
    if _prctl is not None:
        _prctl(_SET_PARENT_DEATH_SIGNAL, number)
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(1)
