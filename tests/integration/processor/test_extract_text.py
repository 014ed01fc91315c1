"""Texts: every encoding, plain newlines, no more than may be."""

from pathlib import Path

import pytest

from services.processor.extract.findings import Limits
from services.processor.extract.sandbox import Extracted, extract

POLISH = "Zażółć gęślą jaźń. Proszę o fakturę za wrzesień, łączna kwota wynosi sto złotych.\n"
GERMAN = "Größe; Menge\nSchöne Grüße aus der Straße, für Äpfel und Öl.\n"


async def read(path: Path, data: bytes, limits: Limits | None = None) -> Extracted:
    file = path / "file.md"
    file.write_bytes(data)
    return await extract(file, "markdown", limits or Limits(), lambda _: None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
async def test_unicode_is_read_as_it_says(encoding: str, tmp_path: Path):
    start = "\ufeff" if encoding == "utf-16-le" else ""

    with await read(tmp_path, (start + "Grüße 👩‍💻").encode(encoding)) as found:
        assert (found.text, found.notes) == ("Grüße 👩‍💻", [])


@pytest.mark.parametrize(
    ("text", "encoding"), [(GERMAN, "cp1252"), (POLISH, "cp1250"), ("これは日本語です。", "cp932")]
)
async def test_other_encodings_are_guessed_and_the_guess_is_told(
    text: str, encoding: str, tmp_path: Path
):
    with await read(tmp_path, b"ascii\n" * 50_000 + text.encode(encoding)) as found:
        assert found.text.endswith(text)
        assert found.notes == [f"The text does not say its encoding; it was read as {encoding}."]


async def test_newlines_are_plain_and_control_characters_are_gone(tmp_path: Path):
    with await read(tmp_path, b"a\r\nb\rc\nd\x00\x1b[1m") as found:
        assert found.text == "a\nb\nc\nd[1m"


async def test_a_text_that_is_too_long_is_cut_and_the_cut_is_told(tmp_path: Path):
    with await read(tmp_path, b"x" * 600_000, Limits(characters=100)) as found:
        assert found.text == "x" * 100
        assert found.notes == ["Only the first 100 characters of the text were read."]


async def test_the_longest_text_that_may_be_comes_through_whole(tmp_path: Path):
    text = '"\\\n👩' * (Limits().characters // 4)

    with await read(tmp_path, text.encode()) as found:
        assert found.text == text


async def test_an_empty_text_is_an_empty_text(tmp_path: Path):
    with await read(tmp_path, b"") as found:
        assert (found.text, found.notes) == ("", [])
