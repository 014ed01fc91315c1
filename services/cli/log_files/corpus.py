"""The corpus: recorded sessions, each with the frames that its clients were sent.

A session is two files: ``NAME.jsonl`` as ``export-log`` writes it, and
``NAME.frames.jsonl``, a header and then one frame a line, dialect by dialect.  The
frames were written when the session was added, by the code of that day.
"""

import importlib.metadata
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.cli.log_files.export_file import (
    FORMAT,
    FactLine,
    LogLine,
    SessionLine,
    check,
    sessions_of,
)
from services.cli.log_files.export_file import writing as writing_log
from services.cli.recorder.selection import Selection
from services.gateway.playback import Playback
from shared.errors import InvalidRequest
from shared.events import decode_fact
from shared.ids import now
from shared.log_entry import LogEntry
from shared.subjects import Address

FACTS, FRAMES = ".jsonl", ".frames.jsonl"
EPOCH = "corpus"
"""The epoch in the cursors of all its frames, whatever log the facts came from."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    natterlog: str
    """The version that wrote it."""
    session: str


class FrameLine(msgspec.Struct, frozen=True, kw_only=True):
    dialect: str
    ms: float
    """Since the session's first fact."""
    frame: str


class Difference(NamedTuple):
    """The first frame of a dialect that changed; ``was`` or ``now`` is None where there is none."""

    name: str
    dialect: str
    number: int
    was: FrameLine | None
    now: FrameLine | None


_encode = msgspec.json.Encoder().encode
_decode_header = msgspec.json.Decoder(Header).decode
_decode_frame = msgspec.json.Decoder(FrameLine).decode


def names(corpus: Path) -> list[str]:
    """The names of a corpus's sessions.

    Raises:
        InvalidRequest: there is none.
    """
    found = sorted(path.name.removesuffix(FRAMES) for path in corpus.glob(f"*{FRAMES}"))
    if not found:
        raise InvalidRequest(f"There is no recorded session in {corpus}.")
    return found


# -- adding -------------------------------------------------------------------------


async def add(corpus: Path, name: str, selection: Selection) -> int:
    """Add a session under ``name`` → how many frames it has.

    Raises:
        InvalidRequest: there is one of that name already.
        OSError: it cannot be written.
    """
    frames = await frames_of(selection)
    _write(corpus, name, selection, frames)
    return len(frames)


def _write(corpus: Path, name: str, selection: Selection, frames: list[FrameLine]) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    version = importlib.metadata.version("natterlog")
    with writing_log(corpus / f"{name}{FACTS}") as writer:
        writer.write(LogLine(format=FORMAT, natterlog=version, made_at=now(), redacted=False))
        writer.write(
            SessionLine(id=selection.session_id, user=selection.user, facts=len(selection.facts))
        )
        for fact in selection.facts:
            raw = msgspec.Raw(fact.data)
            writer.write(FactLine(seq=fact.seq, run=fact.address.run, fact=raw))
    _write_frames(corpus, name, selection, frames)


def _write_frames(corpus: Path, name: str, selection: Selection, frames: list[FrameLine]) -> None:
    version = importlib.metadata.version("natterlog")
    header = Header(format=FORMAT, natterlog=version, session=selection.session_id)
    lines = [_encode(header), *map(_encode, frames)]
    (corpus / f"{name}{FRAMES}").write_bytes(b"\n".join(lines) + b"\n")


async def frames_of(selection: Selection) -> list[FrameLine]:
    """Every frame of the session, in every dialect that shows it."""
    playback = Playback(
        selection.facts, user=selection.user, session_id=selection.session_id, epoch=EPOCH
    )
    found: list[FrameLine] = []
    for dialect in playback.dialects:
        async with aclosing(playback.frames(dialect)) as frames:
            found += [
                FrameLine(dialect=dialect, ms=round(frame.ms, 3), frame=frame.data.decode())
                async for frame in frames
            ]
    return found


async def render(corpus: Path, name: str) -> int:
    """Write a session's frames anew from its facts → how many there are.

    Only where the frames of a dialect are meant to be others from now on.  It keeps the
    dialects that it has.

    Raises:
        InvalidRequest: a file is not whole, or none of ours.
        OSError: a file cannot be read or written.
    """
    selection = read(corpus / f"{name}{FACTS}")
    known = {line.dialect for line in _read_frames(corpus / f"{name}{FRAMES}")}
    frames = [line for line in await frames_of(selection) if line.dialect in known]
    _write_frames(corpus, name, selection, frames)
    return len(frames)


# -- holding today's code against it --------------------------------------------------


async def difference(corpus: Path, name: str) -> tuple[int, Difference | None]:
    """Compare a session's frames with today's → how many are the same, and the first that differs.

    Raises:
        InvalidRequest: a file is not whole, or none of ours.
        OSError: a file cannot be read.
    """
    selection = read(corpus / f"{name}{FACTS}")
    was = _read_frames(corpus / f"{name}{FRAMES}")
    known = {line.dialect for line in was}  # dialects that are younger have nothing to differ from
    now_shown = [line for line in await frames_of(selection) if line.dialect in known]
    for number in range(max(len(was), len(now_shown))):
        old = was[number] if number < len(was) else None
        new = now_shown[number] if number < len(now_shown) else None
        if old != new:
            dialect = (old or new or was[0]).dialect
            before = sum(line.dialect == dialect for line in was[:number])
            return number, Difference(name, dialect, before + 1, old, new)
    return len(was), None


def read(path: Path) -> Selection:
    """Read the session of a file.

    Raises:
        InvalidRequest: it is not whole, or none of ours, or this version cannot read it.
        OSError: it cannot be read.
    """
    check(path)
    (session, lines), *_ = sessions_of(path)
    return Selection(session.user, session.id, None, list(_facts(path, session, lines)))


def _facts(path: Path, session: SessionLine, lines: list[FactLine]) -> Iterator[LogEntry]:
    for line in lines:
        data = bytes(line.fact)
        try:
            fact = decode_fact(data)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"{path}: fact {line.seq} cannot be read: {error}.") from error
        address = Address(session.user, session.id, line.run)
        yield LogEntry(line.seq, address.subject_of(fact), address, data, fact)


def _read_frames(path: Path) -> list[FrameLine]:
    first, *lines = path.read_bytes().splitlines()
    try:
        header = _decode_header(first)
        frames = [_decode_frame(line) for line in lines]
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{path} cannot be read: {error}.") from error
    if header.format != FORMAT:
        raise InvalidRequest(
            f"{path} has format {header.format}, made by natterlog {header.natterlog}; "
            f"this version reads {FORMAT}."
        )
    return frames
