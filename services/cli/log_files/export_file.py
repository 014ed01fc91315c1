"""The format of an export: JSON lines with a header, and a digest at their end.

    {"line": "log", "format": 1, …}            the header
    {"line": "session", "id": …, "facts": 3}   a session, followed by its facts
    {"line": "fact", "seq": 23, …}             each with its sequence in the log it comes from
    {"line": "file", "session": …, "size": 9}  a file of the session's, followed by its bytes
    {"line": "bytes", "data": "…"}             some of them, in base64
    {"line": "end", "sha256": …}               of every line before

A name that ends in ``.gz`` means that it is compressed.  Without its last line
it is not whole, and nothing of it is imported.
"""

import gzip
import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, cast

import msgspec

from shared.errors import InvalidRequest

FORMAT, WITH_FILES = 1, 2
"""The format without the bytes of files, and the one with them."""


class LogLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="log"):
    format: int
    natterlog: str
    """The version that wrote it."""
    made_at: datetime
    redacted: bool
    files: bool = False
    """Whether the bytes of files are in it; else they are only named."""


class SessionLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="session"):
    id: str
    user: str
    facts: int
    unfinished: list[str] = []
    """Runs that were under way; the import ends them."""


class FactLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="fact"):
    seq: int
    run: str
    fact: msgspec.Raw


class FileLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="file"):
    session: str
    """The session under which it is stored in FILES."""
    id: str
    size: int
    sha256: str


class BytesLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="bytes"):
    data: bytes


class EndLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="end"):
    sessions: int
    facts: int
    sha256: str


Line = LogLine | SessionLine | FactLine | FileLine | BytesLine | EndLine

_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


class Writer:
    """Writes an export line by line, and computes its digest."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._digest = hashlib.sha256()
        self.sessions = self.facts = self.files = 0

    def write(self, line: LogLine | SessionLine | FactLine | FileLine | BytesLine) -> None:
        self.sessions += isinstance(line, SessionLine)
        self.facts += isinstance(line, FactLine)
        self.files += isinstance(line, FileLine)
        data = _encode(line) + b"\n"
        self._digest.update(data)
        self._out.write(data)

    def end(self) -> None:
        sha256 = self._digest.hexdigest()
        self._out.write(
            _encode(EndLine(sessions=self.sessions, facts=self.facts, sha256=sha256)) + b"\n"
        )


def check_new(path: Path) -> None:
    """Make sure that no file is overwritten.

    Raises:
        InvalidRequest: there is such a file already.
    """
    if path.exists():
        raise InvalidRequest(f"{path} is there already; choose another name, or remove it.")


@contextmanager
def writing(path: Path) -> Generator[Writer]:
    """Write an export that appears, whole, when the block ends; only its owner may read it.

    Raises:
        InvalidRequest: there is such a file already.
        OSError: it cannot be written.
    """
    check_new(path)
    partial = path.with_name(f"{path.name}.part")
    try:
        raw = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        with raw, _compressed(raw) if path.suffix == ".gz" else nullcontext(raw) as out:
            writer = Writer(out)
            yield writer
            writer.end()
        partial.rename(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def _compressed(raw: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    zipped = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    return cast("AbstractContextManager[IO[bytes]]", zipped)


def check(path: Path) -> EndLine:
    """Read the whole export once, so that nothing is imported from a damaged one.

    Raises:
        InvalidRequest: it is none of ours, or not whole; the sentence names the line.
        OSError: it cannot be read.
    """
    count = _Count(path)
    for data, line in _lines(path):
        count.add(data, line)
    end = count.end
    if end is None:
        raise InvalidRequest(f"{path} has no last line: it was cut off. Nothing was imported.")
    if (end.sessions, end.facts, end.sha256) != (count.sessions, count.facts, count.sha256):
        raise InvalidRequest(f"{path} was changed since it was written. Nothing was imported.")
    return end


class _FileCount:
    """How much of a file's bytes was read."""

    def __init__(self, line: FileLine) -> None:
        self.line = line
        self.left = line.size
        self.digest = hashlib.sha256()


class _Count:
    """What was read of an export, and whether each line may follow the one before."""

    def __init__(self, path: Path) -> None:
        self.sessions = self.facts = 0
        self.end: EndLine | None = None
        self._path = path
        self._number = 0
        self._facts_left = 0
        """Facts of the session that are still to come."""
        self._file: _FileCount | None = None
        """The file whose bytes are still to come."""
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, data: bytes, line: Line) -> None:
        self._number += 1
        self._check_order(line)
        match line:
            case LogLine():
                self._check_format(line)
            case SessionLine():
                self.sessions, self._facts_left = self.sessions + 1, line.facts
            case FactLine():
                self.facts, self._facts_left = self.facts + 1, self._facts_left - 1
            case FileLine():
                self._file = _FileCount(line)
                self._count_bytes(b"")
            case BytesLine(data=part):
                self._count_bytes(part)
            case EndLine():
                self.end = line
                return
        self._digest.update(data)

    def _check_order(self, line: Line) -> None:
        """Make sure that the line may follow the one before."""
        if (self._number == 1) != isinstance(line, LogLine) or self.end is not None:
            raise self._bad("it stands in the wrong place")
        if isinstance(line, FactLine) != (self._facts_left > 0):
            raise self._bad("a session has another number of facts than it says")
        if isinstance(line, BytesLine) != (self._file is not None):
            raise self._bad("a file has another size than it says")
        if isinstance(line, FileLine) and not self.sessions:
            raise self._bad("a file follows its session")

    def _count_bytes(self, part: bytes) -> None:
        """Count some bytes of the file; with the last ones its digest must match."""
        assert self._file is not None  # noqa: S101  (whoever calls has looked)
        self._file.left -= len(part)
        self._file.digest.update(part)
        if self._file.left < 0:
            raise self._bad("a file has another size than it says")
        if self._file.left == 0:
            if self._file.digest.hexdigest() != self._file.line.sha256:
                raise self._bad("a file is another than it says")
            self._file = None

    def _check_format(self, line: LogLine) -> None:
        if line.format not in (FORMAT, WITH_FILES):
            raise InvalidRequest(
                f"{self._path} has format {line.format}, made by natterlog {line.natterlog}; "
                f"this version reads {FORMAT} and {WITH_FILES}."
            )

    def _bad(self, fault: str) -> InvalidRequest:
        return _not_ours(self._path, self._number, fault)


def sessions_of(path: Path) -> Iterator[tuple[SessionLine, list[FactLine]]]:
    """Each session with its facts, from a file that was checked."""
    session: SessionLine | None = None
    facts: list[FactLine] = []
    for _, line in _lines(path):
        match line:
            case FactLine():
                facts.append(line)
            case SessionLine() | EndLine():
                if session is not None:
                    yield session, facts
                session, facts = (line, []) if isinstance(line, SessionLine) else (None, [])
            case _:
                pass


def files_in(path: Path) -> Iterator[tuple[FileLine, Iterator[bytes]]]:
    """Each file with its bytes, piece by piece, from a file that was checked."""
    lines = _lines(path)
    for _, line in lines:
        if isinstance(line, FileLine):
            yield line, _bytes_of(lines, line.size)


def _bytes_of(lines: Iterator[tuple[bytes, Line]], size: int) -> Iterator[bytes]:
    while size > 0:
        _, line = next(lines)
        if isinstance(line, BytesLine):
            size -= len(line.data)
            yield line.data


def _lines(path: Path) -> Iterator[tuple[bytes, Line]]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        number = 0
        try:
            for data in cast("IO[bytes]", file):
                number += 1
                yield data, _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _not_ours(path, number, str(error)) from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise InvalidRequest(f"{path} cannot be unpacked: {error}.") from error


def _not_ours(path: Path, number: int, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{path} is no export of natterlog's: line {number}: {fault}.")
