"""Reads PDFs: the text and the form fields of each page, and a picture of each that has no text.

pypdfium2 is imported here and in ``pdf_fields`` only.  It has no annotations, so
what is used of it is spelled out below.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

import pypdfium2  # pyright: ignore[reportMissingTypeStubs]

from services.processor.extract import image, pdf_fields
from services.processor.extract.findings import ExtractError, Findings, Limits

_MOST_SCALE = 200 / 72
"""Pixels a point: 200 dots an inch."""
_PASSWORD, _SECURITY = 4, 5
_HYPHEN = re.compile("[\x02\ufffe]\r?\n?")
"""What PDFium puts for a hyphen at the end of a line: the word goes on."""


class _TextPage(Protocol):
    def get_text_bounded(self) -> str: ...


class _Bitmap(Protocol):
    def to_pil(self) -> image.Picture: ...
    def close(self) -> None: ...


class _Page(Protocol):
    def get_size(self) -> tuple[float, float]: ...
    def get_textpage(self) -> _TextPage: ...
    def render(self, *, scale: float) -> _Bitmap: ...
    def close(self) -> None: ...


class _Document(Protocol):
    formenv: object | None

    def __len__(self) -> int: ...
    def init_forms(self) -> bool: ...
    def get_page(self, index: int) -> _Page: ...


def read(path: Path, limits: Limits, findings: Findings) -> None:
    """Read the text of each page, below a line with its number."""
    pdf = _open(path)
    claimed = len(pdf)
    if claimed == 0:
        raise ExtractError("invalid_request", "The PDF has no pages.")
    unreadable: list[int] = []
    unseen: list[int] = []
    count = min(claimed, limits.pages)
    for number in range(1, count + 1):
        try:
            if not findings.begin(number):
                unreadable.append(number)
            elif not _read_page(pdf, number, limits, findings):
                unseen.append(number)
        except pypdfium2.PdfiumError:
            unreadable.append(number)
        findings.pages = number
        findings.progress(number / count)
        if findings.full:
            break
    if len(unreadable) == findings.pages:
        raise ExtractError("invalid_request", "The PDF is damaged: none of its pages can be read.")
    _note_what_is_missing(findings, claimed, unreadable, unseen)


def _open(path: Path) -> _Document:
    try:
        pdf = cast("_Document", pypdfium2.PdfDocument(path))
        pdf.init_forms()  # before anything else is asked of it
        return pdf
    except pypdfium2.PdfiumError as error:
        if cast("int | None", error.err_code) in (_PASSWORD, _SECURITY):  # pyright: ignore[reportUnknownMemberType]
            raise ExtractError("invalid_request", "The PDF is encrypted.") from error
        raise ExtractError("invalid_request", "The PDF is damaged or cut short.") from error


def _read_page(pdf: _Document, number: int, limits: Limits, findings: Findings) -> bool:
    """Read one page; False when it has no text and there is no room for its picture."""
    page = pdf.get_page(number - 1)
    try:
        text = _HYPHEN.sub("", page.get_textpage().get_text_bounded()).strip()
        fields = pdf_fields.read(pdf.formenv, page) if pdf.formenv else ""
        if text:
            findings.write(f"[Page {number}]\n{text}\n\n")
        if fields:
            findings.write(f"[Fields of page {number}]\n{fields}\n\n")
        if text:
            return True
        if not findings.room_for_images:
            return False
        picture = _picture(page, limits)
        if picture is None:
            findings.write(f"[Page {number} is empty]\n\n")
        else:
            image.keep(picture, limits, findings, lossy=True)
            findings.write(f"[Page {number} is image {len(findings.images)}]\n\n")
        return True
    finally:
        page.close()


def _picture(page: _Page, limits: Limits) -> image.Picture | None:
    """What the page looks like; None when there is nothing on it."""
    longest = max(*page.get_size(), 1.0)
    bitmap = page.render(scale=min(limits.image_side / longest, _MOST_SCALE))
    try:
        picture = bitmap.to_pil().convert("RGB")
    finally:
        bitmap.close()
    if all(low == high for low, high in cast("Iterable[tuple[int, int]]", picture.getextrema())):
        return None
    picture.thumbnail((limits.image_side, limits.image_side))  # rounding may add a pixel
    return picture


def _note_what_is_missing(
    findings: Findings, claimed: int, unreadable: list[int], unseen: list[int]
) -> None:
    read = findings.pages or 0
    if read < claimed:
        findings.note(f"Only the first {read:,} of {claimed:,} pages were read.")
    elif findings.full:
        findings.note("The text of the last page that was read is cut off.")
    if unreadable:
        findings.note(f"{_pages(unreadable)} could not be read.")
    if unseen:
        findings.note(f"{_pages(unseen)} without text could not be shown as well: too many images.")


def _pages(numbers: list[int]) -> str:
    """“Page 3”, “Pages 3, 5–9”."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    ranges = ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in spans[:10])
    more = ", …" if len(spans) > 10 else ""
    return f"Page{'s' if len(numbers) > 1 else ''} {ranges}{more}"
