"""What an uploaded file is: judged by its bytes, and by its name among texts.

The gateway judges while the upload streams by, before anything has read the
file; so what passes here is likely, not proven, and its reader may still refuse
it.  Nothing here looks further into a file than its first ``HEAD`` bytes, except
for texts, of which every byte is checked.
"""

import codecs
import re
from pathlib import PurePosixPath

from shared.errors import UnsupportedMediaType
from shared.events import FileKind

HEAD = 1024
"""How many of a file's first bytes :func:`judge` wants to see (all of a shorter file)."""

NAME_LENGTH = 200

_PDF: tuple[FileKind, str] = ("pdf", "application/pdf")
_PLAIN: tuple[FileKind, str] = ("text", "text/plain")
_IMAGES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_TABLES_AND_MARKDOWN: dict[str, tuple[FileKind, str]] = {
    ".csv": ("csv", "text/csv"),
    ".tsv": ("csv", "text/tab-separated-values"),
    ".md": ("markdown", "text/markdown"),
    ".markdown": ("markdown", "text/markdown"),
}
_PLAIN_EXTENSIONS = """
.txt .text .log .html .htm .xml .svg .json .jsonl .ndjson .yaml .yml .toml .ini .cfg .conf
.properties .env .rst .tex .bib .adoc .org .diff .patch .srt .vtt .ics .vcf .eml .sql .sh
.py .js .mjs .ts .jsx .tsx .css .scss .java .kt .c .h .cpp .hpp .cs .go .rs .rb .php .swift
.scala .lua .pl .r
"""
# README, LICENSE, Makefile and .gitignore have none
_TEXTS = _TABLES_AND_MARKDOWN | dict.fromkeys(["", *_PLAIN_EXTENSIONS.split()], _PLAIN)
_EXTENSIONS = {
    "application/pdf": {".pdf"},
    "image/png": {".png", ".apng"},
    "image/jpeg": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "image/gif": {".gif"},
    "image/webp": {".webp"},
}
_CALLED = {
    "application/pdf": "a PDF",
    "image/png": "a PNG image",
    "image/jpeg": "a JPEG image",
    "image/gif": "a GIF image",
    "image/webp": "a WebP image",
}


# -- kinds --------------------------------------------------------------------


def judge(name: str, head: bytes) -> tuple[FileKind, str]:
    """The kind and media type of the file that is called ``name`` and begins with ``head``.

    Where bytes and name disagree the bytes are right (:func:`mismatch` tells it).
    A text must go through a :class:`TextCheck` as well, whole.

    Raises:
        UnsupportedMediaType: it is nothing that can be read here.
    """
    if head.removeprefix(codecs.BOM_UTF8).lstrip(b"\0\t\n\f\r ").startswith(b"%PDF-"):
        return _PDF
    for signature, media_type in _IMAGES:
        if signature.match(head):
            return "image", media_type
    extension = _extension(name)
    if extension == ".pdf" and b"%PDF-" in head[:HEAD]:  # readers put up with what is before it
        return _PDF
    TextCheck().feed(head)
    if extension not in _TEXTS:
        known = any(extension in extensions for extensions in _EXTENSIONS.values())
        raise UnsupportedMediaType(
            f"The file is plain text, although its name ends in “{extension}”."
            if known
            else f"Files that end in “{extension}” cannot be read. {_TAKEN}"
        )
    return _TEXTS[extension]


def mismatch(name: str, media_type: str) -> str | None:
    """The sentence to tell when the extension of ``name`` promises something else, else None."""
    extension = _extension(name)
    if not extension or extension in _EXTENSIONS.get(media_type, {extension}):
        return None
    return f"The file is {_CALLED[media_type]}, although its name ends in “{extension}”."


# -- texts --------------------------------------------------------------------

_TAKEN = "PDF, PNG, JPEG, GIF, WebP, CSV, Markdown and plain text can be."
_NO_TEXT_BYTES = re.compile(rb"[\x00-\x07\x0e-\x19\x1c-\x1f\x7f]")
_NO_TEXT = re.compile(r"[\x00-\x07\x0e-\x19\x1c-\x1f\x7f]")
_BOMS = (  # the longer first: one of UTF-32 begins like one of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)


def bom(head: bytes) -> str | None:
    """The encoding that a file's first four bytes declare, if they do."""
    return next((encoding for mark, encoding in _BOMS if head.startswith(mark)), None)


class TextCheck:
    """Checks a text while it streams by, whatever the sizes of its pieces.

    With a byte order mark it must be valid in that encoding.  Without one any
    encoding will do that has ASCII in it (UTF-8, Latin-1, Shift JIS, …): then
    every byte is plausible but the control characters that no text has.
    """

    def __init__(self) -> None:
        self._head = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._begun = False

    def feed(self, chunk: bytes) -> None:
        """Check the next bytes.

        Raises:
            UnsupportedMediaType: this is no text.
        """
        if not self._begun:
            self._head += chunk
            if len(self._head) < 4:
                return
            chunk = self._begin()
        self._check(chunk, final=False)

    def finish(self) -> None:
        """Check that the text does not end in the middle of a character.

        Raises:
            UnsupportedMediaType: this is no text.
        """
        self._check(b"" if self._begun else self._begin(), final=True)

    def _begin(self) -> bytes:
        self._begun = True
        encoding = bom(self._head)
        self._decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        return self._head

    def _check(self, chunk: bytes, *, final: bool) -> None:
        if self._decoder is None:
            found = _NO_TEXT_BYTES.search(chunk)
        else:
            try:
                found = _NO_TEXT.search(self._decoder.decode(chunk, final))
            except UnicodeDecodeError:
                raise UnsupportedMediaType(
                    f"The file is not valid in the encoding that its first bytes declare. {_TAKEN}"
                ) from None
        if found:
            raise UnsupportedMediaType(f"The file is neither a known format nor text. {_TAKEN}")


# -- names --------------------------------------------------------------------

# control characters, lone surrogates, line separators, and what turns the direction of writing
_UNNAMABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean_name(name: str) -> str:
    """A name that is safe to show and to keep: without path, control characters, or excess."""
    last = _UNNAMABLE.sub("", re.split(r"[/\\]", name)[-1]).strip()
    if not last.strip("."):
        return "file"
    if len(last) <= NAME_LENGTH:
        return last
    extension = PurePosixPath(last).suffix[-20:]
    return last[: NAME_LENGTH - len(extension)] + extension


def _extension(name: str) -> str:
    return PurePosixPath(clean_name(name)).suffix.lower()
