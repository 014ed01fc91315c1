"""What an upload is: bytes before names, and text only when it is text."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UnsupportedMediaType
from shared.kinds import TextCheck, clean_name, judge, mismatch

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.pdf", b"%PDF-1.7\n\x80\x81", ("pdf", "application/pdf")),
        ("a.png", PNG, ("image", "image/png")),
        ("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", ("image", "image/jpeg")),
        ("a.gif", b"GIF89a\x01\0", ("image", "image/gif")),
        ("a.webp", WEBP, ("image", "image/webp")),
        ("a.csv", b"a,b\n1,2\n", ("csv", "text/csv")),
        ("a.TSV", b"a\tb\n", ("csv", "text/tab-separated-values")),
        ("a.md", b"# Title\n", ("markdown", "text/markdown")),
        ("a.txt", "Grüße".encode("latin-1"), ("text", "text/plain")),
        ("a.html", b"<script>", ("text", "text/plain")),
        ("a.json", b"{}", ("text", "text/plain")),
        ("a.svg", b"<svg/>", ("text", "text/plain")),
        ("README", b"Hello", ("text", "text/plain")),
        ("a.txt", "Grüße".encode("utf-16"), ("text", "text/plain")),
    ],
)
def test_a_kind_is_told_by_its_bytes_and_among_texts_by_its_extension(
    name: str, head: bytes, expected: tuple[str, str]
):
    assert judge(name, head) == expected


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.txt", b"nul\0byte"),
        ("a.txt", b"\x7fELF\x02\x01\x01"),
        ("a.docx", b"PK\x03\x04\x14\0"),
        ("a.exe", b"plain text"),
        ("a.pdf", b"plain text"),
        ("a.png", b"plain text"),
        ("a.bmp", b"BM\0\0"),
        ("a.wav", b"RIFF\x10\0\0\0WAVEfmt "),
        ("a.txt", b"\xff\xfe\x00\xd8\x41\x00"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(name: str, head: bytes):
    with pytest.raises(UnsupportedMediaType) as refused:
        judge(name, head)

    assert refused.value.message.endswith(".")


def test_the_bytes_win_over_the_extension_and_the_mismatch_is_told():
    _, media_type = judge("report.pdf", PNG)

    note = mismatch("report.pdf", media_type)

    assert note == "The file is a PNG image, although its name ends in “.pdf”."


def test_of_a_polyglot_what_comes_first_counts():
    assert judge("both.pdf", b"GIF89a/*\0*/%PDF-1.4")[1] == "image/gif"
    assert judge("both.gif", b"\n%PDF-1.4 GIF89a")[1] == "application/pdf"


def test_a_pdf_may_have_something_before_its_header_but_a_text_about_pdfs_is_a_text():
    assert judge("a.pdf", b"From the archive:\n%PDF-1.4")[0] == "pdf"
    assert judge("a.md", b"The header is %PDF-1.4")[0] == "markdown"


def test_a_name_without_extension_or_with_the_right_one_is_no_mismatch():
    assert mismatch("photo.JPG", "image/jpeg") is None
    assert mismatch("photo", "image/jpeg") is None
    assert mismatch("notes.txt", "text/plain") is None


# -- texts --------------------------------------------------------------------


def accepts(*pieces: bytes) -> bool:
    check = TextCheck()
    try:
        for piece in pieces:
            check.feed(piece)
        check.finish()
    except UnsupportedMediaType:
        return False
    return True


@given(data=st.binary(max_size=40), start=st.sampled_from([b"", codecs.BOM_UTF8, b"\xff\xfe"]))
def test_a_text_is_judged_alike_whatever_its_pieces(data: bytes, start: bytes):
    whole = start + data

    assert accepts(whole) == accepts(*(whole[n : n + 1] for n in range(len(whole))))


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=("Cc",))))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_text_in_unicode_passes(text: str, encoding: str):
    assert accepts(text.encode(encoding))


def test_what_is_no_text_is_found_wherever_it_comes():
    assert not accepts(b"a" * 100_000, b"b" * 100_000, b"\0")
    assert not accepts("a\0b".encode("utf-16"))
    assert not accepts(codecs.BOM_UTF8 + b"\xff")
    assert not accepts("cut".encode("utf-16")[:-1])
    assert accepts(b"")


# -- names --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\report.pdf", "report.pdf"),
        ("a\r\nSet-Cookie: x\0.txt", "aSet-Cookie: x.txt"),
        ("gpj\u202eexe.jpg", "gpjexe.jpg"),
        ("half \ud83d.txt", "half .txt"),
        ("Übersicht 👩‍💻.md", "Übersicht 👩‍💻.md"),
        ("..", "file"),
        ("dir/", "file"),
        ("", "file"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
    ],
)
def test_a_name_keeps_neither_path_nor_tricks(given_name: str, expected: str):
    assert clean_name(given_name) == expected
