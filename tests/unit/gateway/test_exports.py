"""Conversations as files: Markdown into blocks, names of files, and the paper that is shown."""

import re
from typing import Any

import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.exports.blocks import blocks_of
from services.gateway.exports.pdf import as_pdf
from services.gateway.exports.reading import (
    Paper,
    Turned,
    as_markdown,
    as_text,
    disposition,
)


def a_turn(text: str, **fields: Any) -> Turned:
    known = {"who": "You", "when": "2026-11-20 12:00 UTC", "files": list[str](), "note": None}
    return Turned(text=text, **(known | fields))


def a_paper(*messages: Turned, title: str = "Cats") -> Paper:
    return Paper(title=title, about="2 messages", messages=list(messages))


def text(s: str) -> dict[str, Any]:
    return {"t": "text", "s": s}


@pytest.mark.parametrize(
    ("markdown", "blocks"),
    [
        ("", []),
        ("one\ntwo", [{"t": "p", "c": [text("one"), {"t": "br"}, text("two")]}]),
        ("## Head", [{"t": "h", "level": 2, "c": [text("Head")]}]),
        ("```py x\na\n\nb\n```", [{"t": "code", "lang": "py", "s": "a\n\nb"}]),
        ("    indented", [{"t": "code", "lang": "", "s": "indented"}]),
        ("`a`", [{"t": "p", "c": [{"t": "code", "s": "a"}]}]),
        ("**a**", [{"t": "p", "c": [{"t": "strong", "c": [text("a")]}]}]),
        ("> a", [{"t": "quote", "b": [{"t": "p", "c": [text("a")]}]}]),
        (
            "3. a",
            [{"t": "list", "start": 3, "ordered": True, "items": [[{"t": "p", "c": [text("a")]}]]}],
        ),
        (
            "|a|\n|-|\n|b|",
            [{"t": "table", "columns": 1, "rows": [[[text("a")]], [[text("b")]]]}],
        ),
        (
            "[a](https://b.org)",
            [{"t": "p", "c": [{"t": "link", "href": "https://b.org", "c": [text("a")]}]}],
        ),
        (
            "[a](ftp://b.org)",
            [{"t": "p", "c": [{"t": "span", "href": "ftp://b.org", "c": [text("a")]}]}],
        ),
        ("---", [{"t": "hr"}]),
        ("<b>\n", [{"t": "code", "lang": "html", "s": "<b>"}]),
    ],
)
def test_markdown_is_blocks(markdown: str, blocks: list[Any]):
    assert blocks_of(markdown) == blocks


def test_a_word_that_fits_on_no_line_may_be_broken():
    (paragraph,) = blocks_of("x" * 130)

    assert paragraph["c"] == [text("x" * 60 + "\u200b" + "x" * 60 + "\u200b" + "x" * 10)]


@given(st.text(max_size=300))
def test_a_files_name_is_a_name_on_every_machine(title: str):
    header = disposition(title, "md")

    assert re.fullmatch(
        r"attachment; filename=\"[A-Za-z0-9_.-]+\.md\"; filename\*=UTF-8''[A-Za-z0-9_.%~-]+\.md",
        header,
    )
    assert ".." not in header.partition(";")[0]


def test_a_paper_as_text_and_markdown():
    paper = a_paper(a_turn("Hi", files=["a.txt"]), a_turn("Ho", who="Assistant", note="cancelled"))

    assert as_text(paper) == (
        "Cats\n====\n2 messages\n\n"
        "You · 2026-11-20 12:00 UTC\n--------------------------\nHi\nAttached: a.txt\n\n"
        "Assistant · 2026-11-20 12:00 UTC\n--------------------------------\nHo\n(cancelled)\n"
    )
    assert as_markdown(paper) == (
        "# Cats\n\n2 messages\n\n---\n\n"
        "**You** · 2026-11-20 12:00 UTC\n\nHi\n\n*Attached: a.txt*\n\n---\n\n"
        "**Assistant** · 2026-11-20 12:00 UTC\n\nHo\n\n*(cancelled)*\n"
    )


HOSTILE = """\
#read("/etc/passwd") #set page(width: 1pt) $x$ @label <label> \\ * _ ~ [x](javascript:alert(1))

```typst
#panic("no")
```

> > > > > deep
- a
  - b
    1. c

| a | b |
|---|---|
| `1` | **2** |
"""


@pytest.mark.parametrize(
    "said", [HOSTILE, "", "\x00\x07\uffff", "```", "漢字 😀 العربية हिन्दी ไทย"]
)
async def test_whatever_is_said_is_typeset_as_it_stands(said: str):
    data = await as_pdf(a_paper(a_turn(said), a_turn(said, who="Assistant"), title=said[:20]))

    pages = pypdfium2.PdfDocument(data)
    shown = " ".join(page.get_textpage().get_text_range() for page in pages)
    if said is HOSTILE:
        assert 'read("/etc/passwd")' in shown
        assert '#panic("no")' in shown
        assert "root:" not in shown
    if "漢字" in said:
        assert "漢字" in shown
        assert "😀" in shown


async def test_a_long_conversation_has_pages_with_numbers():
    paper = a_paper(*(a_turn(f"Message {n}. " + "word " * 200) for n in range(60)))

    pages = pypdfium2.PdfDocument(await as_pdf(paper))

    assert len(pages) > 10
    assert f"2 / {len(pages)}" in pages[1].get_textpage().get_text_range()
