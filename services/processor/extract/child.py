"""The process that reads one file: ``python -m services.processor.extract.child ORDER``.

It first takes its own rights away and only then imports the reader, because the
parsers below it are as untrusted as what they parse.  It speaks to the sandbox
in lines of JSON on what was its standard output.
"""

import ctypes
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import cast

import msgspec

from services.processor.extract.findings import (
    Broke,
    ExtractError,
    Findings,
    Limits,
    Order,
    Reader,
    Refused,
    Told,
    too_much_memory,
)


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    tell = _teller()
    _die_with(order.parent)
    _confine(order.limits)
    tell(_read(order, tell))


def _teller() -> Callable[[Told], None]:
    """Say things on what was standard output; nothing else that is printed gets there."""
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)

    def tell(told: Told) -> None:
        line = memoryview(msgspec.json.encode(told) + b"\n")
        while line:
            line = line[pipe.write(line) :]

    return tell


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)


def _confine(limits: Limits) -> None:
    most = {
        # macOS has the name of the first but takes no value
        "RLIMIT_AS": limits.memory,
        "RLIMIT_DATA": limits.memory,
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    for name, value in most.items():
        with suppress(AttributeError, ValueError, OSError):
            # one second more until the hard limit on computing, which kills without a reason
            resource.setrlimit(getattr(resource, name), (value, value + (name == "RLIMIT_CPU")))
    os.nice(5)  # chats go before jobs


def _read(order: Order, tell: Callable[[Told], None]) -> Told:
    try:
        findings = Findings(Path(order.directory), order.limits, tell, order.skip)
        _reader(order.reader)(Path(order.path), order.limits, findings)
        return findings.done(_peak_memory())
    except ExtractError as error:
        return Refused(code=error.code, message=error.message)
    except MemoryError:
        return Refused(code="too_large", message=too_much_memory(order.limits))
    except Exception as error:  # noqa: BLE001  whatever it is, it is told; never with its words
        at = traceback.extract_tb(error.__traceback__)[-1]
        return Broke(error=type(error).__name__, where=f"{Path(at.filename).name}:{at.lineno}")


def _reader(name: str) -> Reader:
    module, _, function = name.partition(":")
    return cast("Reader", getattr(import_module(module), function))


def _peak_memory() -> int:
    """Bytes that were resident at most."""
    if sys.platform == "linux":  # its getrusage counts the parent's at the fork as well
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
