"""The bytes of the files that sessions refer to: from FILES into an export, and back."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import msgspec

from services.cli.log_files.export_file import BytesLine, FileLine, Writer, files_in
from shared.bus import Bus
from shared.errors import Conflict
from shared.events import FileRef
from shared.objects import ObjectMissing, reading, there, writing

FileRefs = Mapping[tuple[str, str], FileRef]
"""Files by the session under which they lie, and their ids."""


def files_of(session_id: str, facts: Iterable[msgspec.Struct]) -> FileRefs:
    """Every file that lies under a session, by its facts."""
    found = (ref for fact in facts for ref in _refs(fact))
    return {(session_id, ref.id): ref for ref in found}


def _refs(value: Any) -> Iterator[FileRef]:
    match value:
        case FileRef():
            yield value
        case msgspec.Struct():
            for field in value.__struct_fields__:
                yield from _refs(getattr(value, field))
        case list():
            for each in cast("list[Any]", value):
                yield from _refs(each)
        case _:
            pass


async def write_files(bus: Bus, writer: Writer, refs: FileRefs) -> int:
    """Write the bytes of files, a chunk at a time → how many files are not there.

    Raises:
        Conflict: one was erased meanwhile.
        BusError: FILES could not be read.
    """
    missing = 0
    for (session_id, file_id), ref in refs.items():
        async with aclosing(reading(bus, f"{session_id}/{file_id}")) as chunks:
            try:
                first = await anext(chunks, b"")
            except ObjectMissing:
                missing += 1
                continue
            line = FileLine(session=session_id, id=file_id, size=ref.size, sha256=ref.sha256)
            writer.write(line)
            try:
                if first:
                    writer.write(BytesLine(data=first))
                async for chunk in chunks:
                    writer.write(BytesLine(data=chunk))
            except ObjectMissing as error:
                raise Conflict(f"The file {file_id} was erased meanwhile; try again.") from error
    return missing


async def import_files(bus: Bus, path: Path, refs: FileRefs) -> int:
    """Put those files of an export into FILES that ``refs`` names → how many were new.

    Raises:
        BusError: FILES could not be written; another try goes on from there.
    """
    imported = 0
    for line, chunks in files_in(path):
        ref = refs.get((line.session, line.id))
        if ref is None or (ref.size, ref.sha256) != (line.size, line.sha256):
            continue  # of a session that stays out, or that does not know it
        name = f"{line.session}/{line.id}"
        if await there(bus, name):
            continue
        async with writing(bus, name) as writer:
            for chunk in chunks:
                await writer.write(chunk)
        imported += 1
    return imported
