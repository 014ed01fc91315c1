"""The process that reads one file: ``python -m services.processor.extract.extract_child ORDER``.

It first takes its own rights away and only then imports the reader, because the
parsers below it are as untrusted as what they parse.  It speaks to the sandbox
in lines of JSON on what was its standard output.
"""

import os
import resource
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

import msgspec

from services.processor.extract.findings import (
    Broke,
    ChildMessage,
    ExtractError,
    FileRefused,
    Findings,
    Order,
    Reader,
    too_much_memory,
)
from shared.confinement import ResourceLimits, confine


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    send = _sender()
    limits = ResourceLimits(
        memory=order.limits.memory,
        cpu_seconds=order.limits.cpu_seconds,
        file_bytes=order.limits.file_bytes,
    )
    confine(limits, parent=order.parent)
    os.nice(5)  # chats go before jobs
    send(_read(order, send))


def _sender() -> Callable[[ChildMessage], None]:
    """A function that sends messages over standard output, where nothing else is printed now."""
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)

    def send(message: ChildMessage) -> None:
        line = memoryview(msgspec.json.encode(message) + b"\n")
        while line:
            line = line[pipe.write(line) :]

    return send


def _read(order: Order, send: Callable[[ChildMessage], None]) -> ChildMessage:
    try:
        findings = Findings(Path(order.directory), order.limits, send, order.skip)
        _reader(order.reader)(Path(order.path), order.limits, findings)
        return findings.done(_peak_memory())
    except ExtractError as error:
        return FileRefused(code=error.code, message=error.message)
    except MemoryError:
        return FileRefused(code="too_large", message=too_much_memory(order.limits))
    except Exception as error:  # noqa: BLE001  whatever it is, it is told; never with its words
        at = traceback.extract_tb(error.__traceback__)[-1]
        return Broke(error=type(error).__name__, where=f"{Path(at.filename).name}:{at.lineno}")


def _reader(name: str) -> Reader:
    module, _, function = name.partition(":")
    return cast("Reader", getattr(import_module(module), function))


def _peak_memory() -> int:
    """The largest number of resident bytes."""
    if sys.platform == "linux":  # its getrusage counts the parent's at the fork as well
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
