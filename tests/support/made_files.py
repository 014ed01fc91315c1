"""PDF and PNG files put together by hand, so that they can be put together wrongly."""

import struct
import zlib

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


def pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalog."""
    data, offsets = b"%PDF-1.7\n", list[int]()
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return data + (
        b"xref\n0 %d\n0000000000 65535 f \n%btrailer<</Size %d/Root 1 0 R%b>>\n"
        b"startxref\n%d\n%%%%EOF" % (size, table, size, trailer, len(data))
    )


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<</Length %d%b>>stream\n%b\nendstream" % (len(data), entries, data)


def pdf_of(*pages: str | bytes, claim: int | None = None, trailer: bytes = b"") -> bytes:
    """A PDF with a page of each text; bytes are what is drawn instead."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%b]>>" % (claim or len(pages), kids),
        FONT,
    ]
    for n, page in enumerate(pages):
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents %d 0 R"
            b"/Resources<</Font<</F1 3 0 R>>>>>>" % (5 + 2 * n)
        )
        drawn = (
            b"BT /F1 12 Tf 20 100 Td (%b) Tj ET" % page.encode() if isinstance(page, str) else page
        )
        objects.append(stream(drawn))
    return pdf(*objects, trailer=trailer)


def form_of(*fields: bytes, text: str = "A form") -> bytes:
    """A PDF of one page with these form fields, each the entries of its dictionary."""
    refs = b" ".join(b"%d 0 R" % (6 + n) for n in range(len(fields)))
    return pdf(
        b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[%b]/DR<</Font<</F1 3 0 R>>>>"
        b"/DA(/F1 12 Tf 0 g)>>>>" % refs,
        b"<</Type/Pages/Count 1/Kids[4 0 R]>>",
        FONT,
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 5 0 R/Annots[%b]"
        b"/Resources<</Font<</F1 3 0 R>>>>>>" % refs,
        stream(b"BT /F1 12 Tf 20 100 Td (%b) Tj ET" % text.encode() if text else b""),
        *(b"<</Type/Annot/Subtype/Widget/Rect[10 10 90 30]%b>>" % field for field in fields),
    )


def png(width: int, height: int, pixels: bytes = b"", *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG in grey that claims a size, and holds what it likes."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(pixels, 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
