"""PDFs: text where there is text, pictures where there is none, sentences where there is harm."""

from pathlib import Path

import pytest

from services.processor.extract import pdf as pdf_reader
from services.processor.extract.findings import MIB, Begun, ExtractError, Findings, Limits
from services.processor.extract.sandbox import Extracted, extract
from tests.support.hostile_files import (
    a_cyclic_pdf,
    a_pdf_bomb,
    a_pdf_that_draws_itself,
    an_encrypted_pdf,
)
from tests.support.made_files import form_of, pdf_of

SQUARE = b"1 0 0 rg 50 50 100 100 re f"
TOO_MUCH = "Reading the file takes more than 256 MiB of memory."


async def read(path: Path, data: bytes, limits: Limits | None = None) -> Extracted:
    file = path / "file.pdf"
    file.write_bytes(data)
    return await extract(file, "pdf", limits or Limits(memory=256 * MIB), lambda _: None)


async def test_text_is_read_page_by_page_and_each_page_is_marked(tmp_path: Path):
    with await read(tmp_path, pdf_of("Hello", "World")) as found:
        assert found.text == "[Page 1]\nHello\n\n[Page 2]\nWorld\n\n"
        assert (found.pages, found.notes, found.images) == (2, [], [])


async def test_a_page_without_text_is_shown_and_an_empty_one_is_told(tmp_path: Path):
    with await read(tmp_path, pdf_of("Hello", SQUARE, b"")) as found:
        assert found.text.endswith("[Page 2 is image 1]\n\n[Page 3 is empty]\n\n")
        [image] = found.images
        assert image.media_type == "image/jpeg"
        assert max(image.width, image.height) <= 1568
        assert image.path.read_bytes().startswith(b"\xff\xd8\xff")


async def test_more_pages_and_images_than_may_be_are_told(tmp_path: Path):
    data = pdf_of(SQUARE, SQUARE, SQUARE, "Text", "More")

    with await read(tmp_path, data, Limits(pages=4, images=1)) as found:
        assert (found.pages, len(found.images)) == (4, 1)
        assert found.notes == [
            "Only the first 4 of 5 pages were read.",
            "Pages 2–3 without text could not be shown as well: too many images.",
        ]


async def test_what_was_filled_into_a_form_is_read_with_the_text(tmp_path: Path):
    data = form_of(
        b"/FT/Tx/T(name)/TU(Full name)/V(Ada Lovelace)",
        b"/FT/Tx/T(note)/V(two\nlines)",
        b"/FT/Tx/T(secret)/Ff 8192/V(hunter2)",
        b"/FT/Tx/T(empty)",
        b"/FT/Btn/T(agreed)/V/On/AS/On/AP<</N<</On 5 0 R/Off 5 0 R>>>>",
        b"/FT/Btn/T(again)/V/Off/AS/Off/AP<</N<</On 5 0 R/Off 5 0 R>>>>",
        b"/FT/Ch/Ff 131072/T(colour)/V(red)/Opt[(red)(blue)]",
        b"/FT/Ch/Ff 2097152/T(days)/V[(Mon)(Wed)]/Opt[(Mon)(Tue)(Wed)]",
    )

    with await read(tmp_path, data) as found:
        assert found.text == (
            "[Page 1]\nA form\n\n[Fields of page 1]\nFull name: Ada Lovelace\nnote: two lines\n"
            "agreed: yes\nagain: no\ncolour: red\ndays: Mon, Wed\n\n"
        )
        assert found.notes == []


async def test_a_form_without_any_other_text_is_read_and_shown(tmp_path: Path):
    with await read(tmp_path, form_of(b"/FT/Tx/T(name)/V(Ada)", text="")) as found:
        assert found.text.startswith("[Fields of page 1]\nname: Ada\n\n[Page 1 is ")


async def test_a_page_that_crashed_its_reader_is_left_out_and_told(tmp_path: Path):
    limits, reports = Limits(), list[object]()
    file = tmp_path / "file.pdf"
    file.write_bytes(pdf_of("Hello", "crash", "World"))
    findings = Findings(tmp_path, limits, reports.append, skip=frozenset({2}))

    pdf_reader.read(file, limits, findings)

    assert findings.text == "[Page 1]\nHello\n\n[Page 3]\nWorld\n\n"
    assert findings.notes == ["Page 2 could not be read."]
    assert [part.part for part in reports if isinstance(part, Begun)] == [1, 3]


async def test_progress_is_told_page_by_page(tmp_path: Path):
    file = tmp_path / "file.pdf"
    file.write_bytes(pdf_of("a", "b", "c", "d"))
    fractions: list[float] = []

    with await extract(file, "pdf", Limits(), fractions.append):
        assert fractions == [0.25, 0.5, 0.75, 1.0]


async def test_a_million_claimed_pages_cost_nothing(tmp_path: Path):
    with await read(tmp_path, pdf_of("Hello", claim=1_000_000)) as found:
        assert found.text == "[Page 1]\nHello\n\n"
        assert found.notes == [
            "Only the first 100 of 1,000,000 pages were read.",
            "Pages 2–100 could not be read.",
        ]


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        (
            an_encrypted_pdf(),
            "invalid_request",
            "The PDF is encrypted.",
        ),
        (pdf_of("Hello")[:300], "invalid_request", "The PDF is damaged or cut short."),
        (b"%PDF-1.7", "invalid_request", "The PDF is damaged or cut short."),
        (
            a_cyclic_pdf(),
            "invalid_request",
            "The PDF is damaged: none of its pages can be read.",
        ),
        (a_pdf_bomb(300 * MIB), "too_large", TOO_MUCH),
        (a_pdf_that_draws_itself(), "too_large", TOO_MUCH),
    ],
    ids=["encrypted", "truncated", "header only", "cyclic", "bomb", "form that draws itself"],
)
async def test_a_harmful_pdf_ends_in_a_sentence(
    data: bytes, code: str, sentence: str, tmp_path: Path
):
    with pytest.raises(ExtractError) as failed:
        await read(tmp_path, data)

    assert (failed.value.code, failed.value.message) == (code, sentence)


async def test_a_page_of_absurd_size_is_shown_small(tmp_path: Path):
    data = pdf_of(SQUARE).replace(b"[0 0 300 200]", b"[0 0 100000 1]")

    with await read(tmp_path, data) as found:
        assert all(max(image.width, image.height) <= 1568 for image in found.images)
