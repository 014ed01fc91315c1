"""The file in which sessions travel: JSON lines with a header, and a digest at their end.

    {"line": "log", "format": 1, …}            the header
    {"line": "session", "id": …, "facts": 3}   a session, followed by its facts
    {"line": "fact", "seq": 23, …}             each with its sequence in the log it comes from
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

FORMAT = 1


class LogLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="log"):
    format: int
    natterlog: str
    """The version that wrote it."""
    made_at: datetime
    redacted: bool


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


class EndLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="end"):
    sessions: int
    facts: int
    sha256: str


Line = LogLine | SessionLine | FactLine | EndLine

_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


class Writer:
    """Writes such a file line by line, and knows its digest on the way."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._digest = hashlib.sha256()
        self.sessions = 0
        self.facts = 0

    def write(self, line: LogLine | SessionLine | FactLine) -> None:
        self.sessions += isinstance(line, SessionLine)
        self.facts += isinstance(line, FactLine)
        data = _encode(line) + b"\n"
        self._digest.update(data)
        self._out.write(data)

    def end(self) -> None:
        sha256 = self._digest.hexdigest()
        self._out.write(
            _encode(EndLine(sessions=self.sessions, facts=self.facts, sha256=sha256)) + b"\n"
        )


@contextmanager
def writing(path: Path) -> Generator[Writer]:
    """A file that is there, whole, when the block ends, and for its owner alone.

    Raises:
        InvalidRequest: there is such a file already.
        OSError: it cannot be written.
    """
    if path.exists():
        raise InvalidRequest(f"{path} is there already; choose another name, or remove it.")
    partial = path.with_name(f"{path.name}.part")
    try:
        raw = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        with raw, _packed(raw) if path.suffix == ".gz" else nullcontext(raw) as out:
            writer = Writer(out)
            yield writer
            writer.end()
        partial.rename(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def _packed(raw: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    zipped = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    return cast("AbstractContextManager[IO[bytes]]", zipped)


def check(path: Path) -> EndLine:
    """Read all of the file once, so that nothing is taken from one that is not whole.

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


class _Count:
    """What was read of a file so far, and whether each line may follow the one before."""

    def __init__(self, path: Path) -> None:
        self.sessions = self.facts = 0
        self.end: EndLine | None = None
        self._path = path
        self._number = 0
        self._owed = 0
        """Facts of the session that are still to come."""
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, data: bytes, line: Line) -> None:
        self._number += 1
        if (self._number == 1) != isinstance(line, LogLine) or self.end is not None:
            raise self._bad("it stands in the wrong place")
        if isinstance(line, FactLine) != (self._owed > 0):
            raise self._bad("a session has another number of facts than it says")
        match line:
            case LogLine():
                self._check_format(line)
            case SessionLine():
                self.sessions, self._owed = self.sessions + 1, line.facts
            case FactLine():
                self.facts, self._owed = self.facts + 1, self._owed - 1
            case EndLine():
                self.end = line
                return
        self._digest.update(data)

    def _check_format(self, line: LogLine) -> None:
        if line.format != FORMAT:
            raise InvalidRequest(
                f"{self._path} has format {line.format}, made by natterlog {line.natterlog}; "
                f"this version reads {FORMAT}."
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
