"""Reads texts, in whatever encoding; CSV is opened here as well."""

import codecs
from pathlib import Path
from typing import TextIO

import charset_normalizer

from services.processor.extract.findings import MIB, Findings, Limits
from shared.kinds import bom

_PIECE = 256 * 1024
_SAMPLE = 64 * 1024
"""Bytes from which an encoding is guessed."""
_GUESSES = [
    *("cp1252", "iso8859_2", "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
    *(f"cp{page}" for page in (1250, 1251, *range(1253, 1259))),
]


def read(path: Path, limits: Limits, findings: Findings) -> None:
    """Read the text as it is, with plain newlines."""
    size = path.stat().st_size
    with open_text(path, findings) as file:
        while piece := file.read(_PIECE):
            if not findings.write(piece):
                findings.note(
                    f"Only the first {limits.characters:,} characters of the text were read."
                )
                break
            findings.progress(file.buffer.tell() / size)


def open_text(path: Path, findings: Findings, *, newline: str | None = None) -> TextIO:
    """The file opened in its encoding; a guess is noted."""
    encoding, guessed = _encoding(path)
    if guessed:
        findings.note(f"The text does not say its encoding; it was read as {encoding}.")
    return path.open(encoding=encoding, errors="replace", newline=newline)


def _encoding(path: Path) -> tuple[str, bool]:
    """The encoding of a text, and whether it is a guess."""
    with path.open("rb") as file:
        declared = bom(file.read(4))
        if declared and declared != "utf-8":
            return declared, False
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        before = 0
        while chunk := file.read(MIB):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                # from the first line on that is not UTF-8: what is before says little
                at = before + max(chunk.rfind(b"\n", 0, _first_foreign(chunk)), 0)
                file.seek(at)
                return _guess(file.read(_SAMPLE)), True
            before += len(chunk)
    return "utf-8-sig", False


def _first_foreign(chunk: bytes) -> int:
    try:
        chunk.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _guess(sample: bytes) -> str:
    matches = charset_normalizer.from_bytes(sample, cp_isolation=_GUESSES)
    best = matches.best()
    if best is None:
        return "cp1252"
    # the code pages of Europe look alike to it, and one of them is the usual one
    alike = {name for m in matches if m.chaos <= best.chaos for name in m.could_be_from_charset}
    return "cp1252" if "cp1252" in alike else best.encoding
