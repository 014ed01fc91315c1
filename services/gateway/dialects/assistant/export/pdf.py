"""A conversation as a PDF, made in a process of its own.

Typesetting takes the processor for as long as it takes, and a conversation may
hold anything; so it is done by a child with limits, one at a time, while the
gateway goes on with its streams.
"""

import asyncio
import sys
from contextlib import suppress

import msgspec

from services.gateway.dialects.assistant.export.text import Paper
from shared.errors import Timeout, TooLarge, Unavailable
from shared.log import get_logger

log = get_logger()

SECONDS = 60.0
AT_ONCE = 1
_TOO_LONG = "This conversation is too long for a PDF; export it as Markdown."
_turn = asyncio.Semaphore(AT_ONCE)


async def as_pdf(paper: Paper) -> bytes:
    """The typeset conversation.

    Raises:
        TooLarge: it takes more memory than a child may have.
        Timeout: it takes too long.
        Unavailable: the child failed in another way; the log says how.
    """
    async with _turn:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-P",
                "-s",
                "-m",
                "services.gateway.dialects.assistant.export.pdf_child",
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(SECONDS):
                data, errors = await process.communicate(msgspec.json.encode(paper))
        except TimeoutError:
            raise Timeout(_TOO_LONG) from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
    if code == 0:
        return data
    log.error("export.failed", code=code, said=errors[-500:].decode(errors="replace"))
    if code < 0 or b"MemoryError" in errors or b"memory allocation" in errors:
        raise TooLarge(_TOO_LONG)
    raise Unavailable("The PDF could not be made; try another format.", retry_after=5.0)
