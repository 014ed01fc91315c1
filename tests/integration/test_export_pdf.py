"""Conversations as PDF: typeset by a child of the gateway, whatever they say."""

import pypdfium2
import pytest

from services.gateway.dialects.assistant.export.pdf import as_pdf
from services.gateway.dialects.assistant.export.text import paper_of
from tests.support.exports import a_paper, a_reply, a_turn, an_export

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
    "text", [HOSTILE, "", "\x00\x07\uffff", "```", "漢字 😀 العربية हिन्दी ไทย"]
)
async def test_whatever_is_said_is_typeset_as_it_stands(text: str):
    data = await as_pdf(a_paper(a_turn(text), a_turn(text, who="Assistant"), title=text[:20]))

    pages = pypdfium2.PdfDocument(data)
    shown = " ".join(page.get_textpage().get_text_range() for page in pages)
    if text is HOSTILE:
        assert 'read("/etc/passwd")' in shown
        assert '#panic("no")' in shown
        assert "root:" not in shown
    if "漢字" in text:
        assert "漢字" in shown
        assert "😀" in shown


async def test_a_long_conversation_has_pages_with_numbers():
    paper = a_paper(*(a_turn(f"Message {n}. " + "word " * 200) for n in range(60)))

    pages = pypdfium2.PdfDocument(await as_pdf(paper))

    assert len(pages) > 10
    assert f"2 / {len(pages)}" in pages[1].get_textpage().get_text_range()


async def test_a_pdf_says_where_a_reply_was_cut():
    data = await as_pdf(paper_of(an_export(a_reply(stop_reason="max_tokens"))))

    text = pypdfium2.PdfDocument(data)[0].get_textpage().get_text_range()
    assert "cut off at its limit of tokens" in text
