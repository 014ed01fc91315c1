"""A conversation as a PDF, made in a process of its own.

Typesetting takes the processor for as long as it takes, and a conversation may
hold anything; so it is done by a child with limits and a bare environment, one at
a time, while the gateway goes on with its streams.
"""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec

from services.gateway.dialects.assistant.export.text import Paper
from shared.child import bare_environ, child, make_directory
from shared.errors import Timeout, TooLarge, Unavailable
from shared.log import get_logger

log = get_logger()

SECONDS = 60.0
AT_ONCE = 1
_TOO_LONG = "This conversation is too long for a PDF; export it as Markdown."
_MODULE = "services.gateway.dialects.assistant.export.pdf_child"
_COMMAND = (sys.executable, "-P", "-s", "-m", _MODULE)
_turn = asyncio.Semaphore(AT_ONCE)


async def as_pdf(paper: Paper) -> bytes:
    """The typeset conversation.

    Raises:
        TooLarge: it takes more memory than a child may have.
        Timeout: it takes too long.
        Unavailable: the child failed in another way; the log says how.
    """
    async with _turn:
        directory = make_directory()
        try:
            code, data, errors = await _typeset(paper, directory)
        except TimeoutError:
            raise Timeout(_TOO_LONG) from None
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    if code == 0:
        return data
    log.error("export.failed", code=code, stderr=errors[-500:].decode(errors="replace"))
    if code < 0 or b"MemoryError" in errors or b"memory allocation" in errors:
        raise TooLarge(_TOO_LONG)
    raise Unavailable("The PDF could not be made; try another format.", retry_after=5.0)


async def _typeset(paper: Paper, directory: Path) -> tuple[int, bytes, bytes]:
    """Have a child do it → its exit code, the PDF, and what it wrote to standard error."""
    async with (
        child(
            [*_COMMAND, str(os.getpid())],
            environ=bare_environ(directory),
            directory=directory,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        ) as process,
        asyncio.timeout(SECONDS),
    ):
        data, errors = await process.communicate(msgspec.json.encode(paper))
        return await process.wait(), data, errors
