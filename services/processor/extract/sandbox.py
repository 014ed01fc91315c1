"""Read a file in a process of its own, whose failure harms nothing else.

A reader is third-party code that parses a stranger's bytes.  So it runs in a
child with limits, a bare environment and a private directory, sends what it
finds over a pipe, and what it sends is checked.  Whatever happens to the child
becomes an ExtractError; whatever happens here, the child's whole process group
is killed and its directory removed.
"""

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec

from services.processor.extract.findings import (
    MIB,
    AnyChildMessage,
    Begun,
    Broke,
    Done,
    ExtractError,
    FileRefused,
    Limits,
    Order,
    Progressed,
    too_much_memory,
)
from shared.child import bare_environ, child, make_directory, open_pipe
from shared.events import FileKind
from shared.log import get_logger

log = get_logger()

READERS: dict[FileKind, str] = {
    "pdf": "services.processor.extract.pdf:read",
    "csv": "services.processor.extract.csv:read",
    "image": "services.processor.extract.image:read",
    "markdown": "services.processor.extract.text:read",
    "text": "services.processor.extract.text:read",
}
_COMMAND = (sys.executable, "-P", "-s", "-m", "services.processor.extract.extract_child")
CRASHES = 3
"""Parts of a file that may crash its reader and be left out."""
_BROKEN = "The file is damaged in a way that breaks its reader."
_decoder = msgspec.json.Decoder(AnyChildMessage)


class Crashed(ExtractError):
    """The child died without a message; ``part`` is the part of the file that it had begun."""

    def __init__(self, code: str, message: str, part: int | None) -> None:
        super().__init__(code, message)
        self.part = part


class ImageFile(msgspec.Struct, frozen=True, kw_only=True):
    """A picture for a model that can see."""

    path: Path
    media_type: str
    width: int
    height: int


class Extracted(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a file.  Its images lie on disk until ``discard``, or the end of a with."""

    text: str
    notes: list[str]
    images: list[ImageFile]
    pages: int | None
    rows: int | None
    peak_memory: int
    """Bytes that the reading took at most."""
    directory: Path

    def discard(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


async def extract(
    path: Path, kind: FileKind, limits: Limits, on_progress: Callable[[float], None]
) -> Extracted:
    """Read a file: its text, its pictures, and notes about both.

    ``on_progress`` is told how much has been read, rising from 0 to 1.

    Raises:
        ExtractError: it cannot be read, or not within the limits.
    """
    return await read_with(READERS[kind], path, limits, on_progress)


async def read_with(
    reader: str, path: Path, limits: Limits, on_progress: Callable[[float], None]
) -> Extracted:
    """What :func:`extract` does, with the reader ``module:function``.

    Raises:
        ExtractError: the reader refused, broke, or ran into a limit.
    """
    order = Order(
        reader=reader,
        path=os.path.abspath(path),  # noqa: ASYNC240  asks the disk for nothing
        directory="",
        skip=frozenset(),
        limits=limits,
        parent=os.getpid(),
    )
    try:
        async with asyncio.timeout(limits.seconds):
            return await _around_crashes(order, _rising(on_progress))
    except TimeoutError:
        sentence = f"Reading the file took longer than {limits.seconds:g} s."
        raise ExtractError("timeout", sentence) from None


async def _around_crashes(order: Order, on_progress: Callable[[float], None]) -> Extracted:
    """Read it; a part that crashes the reader is left out of the next reading."""
    crash: Crashed | None = None
    while True:
        try:
            return await _once(order, on_progress)
        except Crashed as again:
            crash = crash or again
            part = again.part
            if part is None or part in order.skip or len(order.skip) >= CRASHES:
                raise crash from None
            log.warning("extract.crashed", part=part)
            order = msgspec.structs.replace(order, skip=order.skip | {part})
        except ExtractError as nothing_left:
            raise crash or nothing_left from None


async def _once(order: Order, on_progress: Callable[[float], None]) -> Extracted:
    directory = make_directory()
    order = msgspec.structs.replace(order, directory=str(directory))
    try:
        return _checked(await _run(order, on_progress), directory, order.limits)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _rising(on_progress: Callable[[float], None]) -> Callable[[float], None]:
    """Report progress only as far as it rises: a second reading begins at 0 again."""
    most = 0.0

    def report(fraction: float) -> None:
        nonlocal most
        if fraction > most:
            most = fraction
            on_progress(fraction)

    return report


# -- the child ----------------------------------------------------------------


async def _run(order: Order, on_progress: Callable[[float], None]) -> Done:
    """Have a child do it, and leave nothing of the child behind."""
    lines = asyncio.StreamReader(limit=4 * order.limits.characters + MIB)
    pipe, writing = await open_pipe(asyncio.StreamReaderProtocol(lines))
    directory = Path(order.directory)
    try:
        async with child(
            [*_COMMAND, msgspec.json.encode(order).decode()],
            environ=bare_environ(directory),
            directory=directory,
            stdout=writing,
            hand_over=[writing],
        ) as process:
            return await _listen(process, lines, order.limits, on_progress)
    finally:
        pipe.close()


async def _listen(
    process: Process,
    lines: asyncio.StreamReader,
    limits: Limits,
    on_progress: Callable[[float], None],
) -> Done:
    part: int | None = None
    while line := await _line(lines):
        match line:
            case Progressed(fraction=fraction):
                on_progress(fraction)
            case Begun():
                part = line.part
            case Done():
                return line
            case FileRefused(code=code, message=message):
                raise ExtractError(code, message)
            case Broke():
                log.error("extract.broke", error=line.error, where=line.where)
                raise ExtractError("internal", "The file could not be read: a fault of ours.")
    raise _error_for_exit(await process.wait(), limits, part)


async def _line(lines: asyncio.StreamReader) -> AnyChildMessage | None:
    try:
        line = await lines.readline()
        return _decoder.decode(line) if line.endswith(b"\n") else None
    except ValueError:  # longer than any line may be, or not what a child says
        raise _broken() from None


def _error_for_exit(code: int, limits: Limits, part: int | None) -> ExtractError:
    """The error of a child that exited without a message, from its exit code."""
    match -code:
        case signal.SIGXCPU:
            sentence = f"Reading the file takes more than {limits.cpu_seconds} s of computing."
            return ExtractError("timeout", sentence)
        case signal.SIGKILL:  # the kernel kills whom it has no memory for
            return ExtractError("too_large", too_much_memory(limits))
        # PDFium ends itself when it gets no memory
        case signal.SIGABRT | signal.SIGTRAP | signal.SIGILL:
            return Crashed("too_large", too_much_memory(limits), part)
        case _:
            log.error("extract.died", code=code)
            return Crashed("invalid_request", _BROKEN, part)


def _broken() -> ExtractError:
    return ExtractError("invalid_request", _BROKEN)


# -- what it left -------------------------------------------------------------


def _checked(done: Done, directory: Path, limits: Limits) -> Extracted:
    """The child's findings, cut to the limits, once its pictures are known to be its own."""
    files = [
        ImageFile(
            path=directory / image.name,
            media_type=image.media_type,
            width=image.width,
            height=image.height,
        )
        for image in done.images[: limits.images]
    ]
    for file in files:
        # a reader that a file took over might point anywhere
        if file.path.parent != directory or file.path.is_symlink() or not file.path.is_file():
            raise _broken()
    return Extracted(
        text=done.text[: limits.characters],
        notes=done.notes,
        images=files,
        pages=done.pages,
        rows=done.rows,
        peak_memory=done.peak_memory,
        directory=directory,
    )
