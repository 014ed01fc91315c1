"""What reading a file may cost and what it yields: the words between sandbox and readers.

A *reader* is a function ``(path, limits, findings) -> None`` in a module of its
own (``pdf``, ``csv``, ``image``, ``text``).  It runs in a child process, puts
what it finds into the findings, and raises ExtractError for a file that it
cannot read.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the reading of one file may cost, and how much it may yield."""

    seconds: float = 60.0
    """By the clock, whatever the machine is busy with."""
    cpu_seconds: int = 30
    memory: int = 512 * MIB
    """Bytes of address space, the interpreter included."""
    file_bytes: int = 16 * MIB
    """No file that the reader writes may be larger."""
    characters: int = 4 * MIB
    """Of text."""
    pages: int = 100
    images: int = 20
    image_side: int = 1568
    """Pixels on the longest side: what models take without scaling it again."""
    image_bytes: int = 3_750_000
    """5 MB as base64."""
    pixels: int = 50_000_000
    """Of a picture before it is scaled."""
    line: int = MIB
    """Characters of a line or cell of a CSV."""


class ExtractError(Exception):
    """The file cannot be read; ``message`` is the sentence for its owner."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def too_much_memory(limits: Limits) -> str:
    return f"Reading the file takes more than {limits.memory // MIB} MiB of memory."


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that was written to the reader's directory."""

    name: str
    media_type: str
    width: int
    height: int


# -- what a child tells, one line of JSON each --------------------------------


class ChildMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Progressed(ChildMessage, frozen=True, kw_only=True, tag="progress"):
    fraction: float


class Begun(ChildMessage, frozen=True, kw_only=True, tag="begun"):
    """A part of the file is next: if the child dies now, that part broke it."""

    part: int


class FileRefused(ChildMessage, frozen=True, kw_only=True, tag="refused"):
    """The reader cannot read the file, and says why."""

    code: str
    message: str


class Broke(ChildMessage, frozen=True, kw_only=True, tag="broke"):
    """The reader failed in a way that it did not foresee."""

    error: str
    where: str


class Done(ChildMessage, frozen=True, kw_only=True, tag="done"):
    text: str
    notes: list[str]
    images: list[Image]
    pages: int | None
    rows: int | None
    peak_memory: int


AnyChildMessage = Progressed | Begun | FileRefused | Broke | Done


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to do."""

    reader: str
    """``module:function``"""
    path: str
    directory: str
    skip: frozenset[int]
    """Parts that broke a reader before."""
    limits: Limits
    parent: int


# -- what a reader fills ------------------------------------------------------

_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_STEP = 0.01


class Findings:
    """What a reader has found so far; never more than the limits allow."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        send: Callable[[ChildMessage], None],
        skip: frozenset[int] = frozenset(),
    ) -> None:
        self.notes: list[str] = []
        """What was cut, changed or could not be read, one sentence each."""
        self.pages: int | None = None
        self.rows: int | None = None
        self.images: list[Image] = []
        self._directory = directory
        self._limits = limits
        self._send = send
        self._skip = skip
        self._reported = 0.0
        self._text: list[str] = []
        self._room = limits.characters

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def full(self) -> bool:
        """Whether there is no room for more text."""
        return self._room == 0

    @property
    def room_for_images(self) -> bool:
        return len(self.images) < self._limits.images

    def begin(self, part: int) -> bool:
        """A part of the file (a page) is next; False when it must be left out."""
        if part in self._skip:
            return False
        self._send(Begun(part=part))
        return True

    def progress(self, fraction: float) -> None:
        if fraction >= self._reported + _STEP:
            self._reported = min(fraction, 1.0)
            self._send(Progressed(fraction=self._reported))

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def write(self, text: str) -> bool:
        """Add a piece of text, made valid and with plain newlines; did all of it fit?"""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = _LONE_SURROGATE.sub("\ufffd", _UNREADABLE.sub("", text))
        piece = text[: self._room]
        self._room -= len(piece)
        self._text.append(piece)
        return len(piece) == len(text)

    def keep_image(self, data: bytes, media_type: str, width: int, height: int) -> None:
        """Write a picture to the directory; there must be room for it."""
        extension = media_type.removeprefix("image/")
        name = f"image-{len(self.images) + 1}.{extension}"
        (self._directory / name).write_bytes(data)
        self.images.append(Image(name=name, media_type=media_type, width=width, height=height))

    def done(self, peak_memory: int) -> Done:
        return Done(
            text=self.text,
            notes=self.notes,
            images=self.images,
            pages=self.pages,
            rows=self.rows,
            peak_memory=peak_memory,
        )


Reader = Callable[[Path, Limits, Findings], None]
