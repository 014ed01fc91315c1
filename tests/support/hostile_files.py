"""Files made to harm whoever reads them."""

import zlib

from tests.support.made_files import pdf, pdf_of, png, stream

MIB = 1024 * 1024
CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
ONE_PAGE = b"<</Type/Pages/Count 1/Kids[3 0 R]>>"


def an_encrypted_pdf() -> bytes:
    entries = b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%b>/U<%b>>>"
    return pdf_of("Hello", trailer=entries % (b"ab" * 32, b"cd" * 32))


def a_cyclic_pdf() -> bytes:
    return pdf(
        CATALOG,
        b"<</Type/Pages/Count 3/Kids[2 0 R 3 0 R]>>",
        b"<</Type/Pages/Count 3/Kids[2 0 R]/Parent 2 0 R>>",
    )


def a_pdf_bomb(size: int) -> bytes:
    """A page drawn by so many bytes of nothing, packed twice."""
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(b" " * MIB) for _ in range(size // MIB)) + packing.flush()
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R>>"
    drawn = stream(zlib.compress(packed, 9), b"/Filter[/FlateDecode/FlateDecode]")
    return pdf(CATALOG, ONE_PAGE, page, drawn)


def a_pdf_that_draws_itself() -> bytes:
    uses_it = b"/Resources<</XObject<</X 5 0 R>>>>"
    return pdf(
        CATALOG,
        ONE_PAGE,
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R%b>>" % uses_it,
        stream(b"/X Do"),
        stream(b"/X Do /X Do", b"/Type/XObject/Subtype/Form/BBox[0 0 300 200]" + uses_it),
    )


def a_png_of_too_many_pixels() -> bytes:
    return png(30_000, 30_000, bytes(30_000))


def a_png_with_a_text_bomb() -> bytes:
    return png(1, 1, bytes(2), (b"zTXt", b"note\0\0" + zlib.compress(bytes(200_000_000))))


def a_png_that_is_cut_short() -> bytes:
    return png(100, 100, bytes(500))
