"""Files that come in as ``multipart/form-data``: judged, counted and stored while they stream by.

Nothing of a file is kept in memory but the chunks on their way to FILES.  As long
as those are not acknowledged nothing more is read from the client, so a fast one
is slowed down to what the log can take.
"""

import asyncio

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from shared.bus import Bus, BusError
from shared.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from shared.errors import Timeout as TooSlow
from shared.events import FileKind, FileRef
from shared.kinds import HEAD, TextCheck, clean_name, judge
from shared.log import get_logger
from shared.objects import Writer, sweep
from shared.settings import Settings

log = get_logger()

PIECE = 32 * 1024
"""Bytes that are read from the client at a time."""
SILENT = 60.0
"""Seconds after which a client that sends nothing is given up."""
LONGEST = 1800.0
"""Seconds that an upload may take; well below the age at which chunks are swept."""
SWEEP_EVERY = 900.0
_TEXTS: frozenset[FileKind] = frozenset(("csv", "markdown", "text"))
_FORM = "multipart/form-data"
MALFORMED = (
    *(ValueError, AssertionError, RuntimeError, LookupError),  # aiohttp's, of the form itself
    *(BadHttpMessage, web.RequestPayloadError, ConnectionError),
)
"""What reading a form raises when it is not one."""


class ReceivedForm:
    """What a form brought: its file, and its fields by name, in whatever order they came."""

    def __init__(self) -> None:
        self.file: FileRef | None = None
        self.fields: dict[str, str] = {}

    def need_file(self) -> FileRef:
        """The file.

        Raises:
            InvalidRequest: there was none.
        """
        if self.file is None:
            raise InvalidRequest("There is no file in the form.", path="$.file")
        return self.file


async def receive(
    request: web.Request, writer: Writer, settings: Settings, fields: dict[str, int]
) -> ReceivedForm:
    """Read a form whose field ``file`` goes to ``writer``; ``fields`` says how long each may be.

    Other fields are read and forgotten.

    Raises:
        InvalidRequest, TooLarge, UnsupportedMediaType: what is wrong with it.
        TooSlow: nothing comes any more.
    """
    if request.content_type != _FORM:
        raise UnsupportedMediaType(f"A file is sent as {_FORM}.")
    length = request.content_length
    overhead = settings.max_body
    if length is not None and length > settings.max_upload + overhead:
        raise _too_large(settings)
    form = ReceivedForm()
    try:
        async with asyncio.timeout(LONGEST):
            await _read(await request.multipart(), form, writer, settings, fields)
    except TimeoutError as error:
        raise TooSlow("The upload took too long.") from error
    except MALFORMED as error:
        raise InvalidRequest("The form is broken off or malformed.") from error
    return form


async def _read(
    parts: MultipartReader,
    form: ReceivedForm,
    writer: Writer,
    settings: Settings,
    fields: dict[str, int],
) -> None:
    left = settings.max_body
    """Bytes that everything but the file may have together."""
    while (part := await parts.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise InvalidRequest("A form within a form means nothing here.")
        name = part.name or ""
        if name == "file":
            if form.file is not None:
                raise InvalidRequest("There are two files; send one at a time.", path="$.file")
            form.file = await _store(part, writer, settings)
            continue
        data = await _value(part, min(left, fields.get(name, left)), name)
        left -= len(data)
        if name in fields:
            form.fields[name] = _text(data, name)


async def _value(part: BodyPartReader, most: int, name: str) -> bytes:
    data = bytearray()
    while piece := await _piece(part):
        data += piece
        if len(data) > most:
            raise TooLarge("This field is too long.", path=f"$.{name}")
    return bytes(data)


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("This is not valid UTF-8.", path=f"$.{name}") from error


async def _store(part: BodyPartReader, writer: Writer, settings: Settings) -> FileRef:
    """Take in the file, and refuse it as soon as it is seen to be none that can be read."""
    if part.filename is None:
        raise InvalidRequest("This field must be a file, with a name.", path="$.file")
    name = clean_name(part.filename)
    head = await _head(part)
    if not head:
        raise InvalidRequest("The file is empty.", path="$.file")
    kind, media_type = judge(name, head)
    check = TextCheck() if kind in _TEXTS else None
    piece = head
    while piece:
        if writer.size + len(piece) > settings.max_upload:
            raise _too_large(settings)
        if check is not None:
            check.feed(piece)
        await writer.write(piece)
        piece = await _piece(part)
    if check is not None:
        check.finish()
    return FileRef(
        id=writer.name.rpartition("/")[2],
        name=name,
        kind=kind,
        media_type=media_type,
        size=writer.size,
        sha256=writer.sha256,
    )


async def _head(part: BodyPartReader) -> bytes:
    head = b""
    while len(head) < HEAD and (piece := await _piece(part)):
        head += piece
    return head


async def _piece(part: BodyPartReader) -> bytes:
    """The next bytes; empty at the end of the part, and only there."""
    while True:
        async with asyncio.timeout(SILENT):
            piece = await part.read_chunk(PIECE)
        if piece or part.at_eof():
            return piece


def _too_large(settings: Settings) -> TooLarge:
    mebibytes = settings.max_upload / (1024 * 1024)
    return TooLarge(f"A file may have {mebibytes:g} MiB.", path="$.file")


async def sweep_now_and_then(bus: Bus) -> None:
    """Erase what uploads left behind whose gateway was killed; for as long as this one runs."""
    while True:
        try:
            await sweep(bus)
        except BusError as error:
            log.warning("uploads.sweep_failed", error=str(error))
        await asyncio.sleep(SWEEP_EVERY)
