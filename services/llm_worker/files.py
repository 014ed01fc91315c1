"""Which of a step's files are sent to the model as they are, and which need their text instead."""

from collections.abc import Callable
from typing import NamedTuple

from shared.events import FileRef

MOST_BYTES = 24_000_000
"""Of all files together: 32 MB as base64, which is what a request may have."""
MOST_IMAGE = 3_750_000
"""Of one picture: 5 MB as base64."""
MOST_IMAGES = 20


class Choice(NamedTuple):
    files: list[FileRef]
    """What is sent."""
    needs_text: bool
    """Whether the text that was read from the files is to be sent too."""
    notes: list[str]
    """What the model cannot be shown, one sentence each."""


class Room(NamedTuple):
    """How much may be sent yet."""

    bytes: int = MOST_BYTES
    images: int = MOST_IMAGES

    def without(self, files: list[FileRef]) -> "Room":
        images = sum(file.kind == "image" for file in files)
        return Room(self.bytes - _size(files), self.images - images)


ALL = Room()


def chosen(files: list[FileRef], takes: Callable[[FileRef], bool], room: Room = ALL) -> Choice:
    """Choose what is sent: the document where the model takes it, else its text and pictures."""
    documents = [file for file in files if file.kind == "pdf"]
    images = [file for file in files if file.kind == "image"]
    if documents and all(map(takes, documents)) and _size(documents) <= room.bytes:
        return Choice(documents, needs_text=False, notes=[])
    seen = [f for f in images if f.size <= MOST_IMAGE and takes(f)][: room.images]
    while seen and _size(seen) > room.bytes:
        seen.pop()
    hidden = len(images) - len(seen)
    notes = [f"Not shown to the model: {hidden} picture(s) of the file."] if hidden else []
    return Choice(seen, needs_text=True, notes=notes)


def _size(files: list[FileRef]) -> int:
    return sum(file.size for file in files)
