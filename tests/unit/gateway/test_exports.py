"""Conversations as files: Markdown into blocks, names of files, and the paper that is shown."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.dialects.assistant.export.blocks import blocks_of
from services.gateway.dialects.assistant.export.document import as_json, decode, history_of
from services.gateway.dialects.assistant.export.text import (
    as_markdown,
    as_text,
    disposition,
    paper_of,
)
from shared.events import Thoughts
from tests.support.exports import a_paper, a_reply, a_turn, an_export

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


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


# -- how replies ended ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"stop_reason": "end_turn"}, None),
        ({"stop_reason": None}, None),
        ({"stop_reason": "max_tokens"}, "cut off at its limit of tokens"),
        ({"stop_reason": "max_length"}, "cut off: as long as a reply may be"),
        ({"stop_reason": "refusal"}, "the model refused"),
        ({"stop_reason": "content_filter"}, "stopped by a content filter"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)
def test_readers_are_told_where_a_reply_was_cut_or_refused(
    fields: dict[str, Any], note: str | None
):
    paper = paper_of(an_export(a_reply(**fields)))

    assert [message.note for message in paper.messages] == [note]
    assert (note is None) or f"({note})" in as_text(paper)
    assert (note is None) or f"*({note})*" in as_markdown(paper)


def test_endings_and_thoughts_come_back_with_an_import():
    cut = a_reply(stop_reason="max_tokens", thoughts="A raven?")
    failed = a_reply(status="failed")

    history = history_of(decode(as_json(an_export(cut, failed))))

    one, other = history.messages
    assert (one.stop_reason, one.thoughts) == ("max_tokens", Thoughts(text="A raven?"))
    assert (other.stop_reason, other.thoughts) == (None, None)


@pytest.mark.parametrize(
    ("status", "kept"), [("completed", "refusal"), ("failed", None), ("cancelled", None)]
)
def test_only_what_is_complete_has_a_stop_reason(status: str, kept: str | None):
    document = json.loads(as_json(an_export(a_reply(stop_reason="refusal"))))
    document["messages"][0]["status"] = status

    (message,) = history_of(decode(json.dumps(document).encode())).messages

    assert message.stop_reason == kept


def test_what_people_say_has_no_ending_and_no_thoughts():
    message_of_user = a_reply(role="user", stop_reason="refusal", thoughts="Hm.")

    (message,) = history_of(decode(as_json(an_export(message_of_user)))).messages

    assert (message.stop_reason, message.thoughts) == (None, None)


def test_a_stop_reason_that_is_none_is_refused():
    document = json.loads(as_json(an_export(a_reply())))
    document["messages"][0]["stop_reason"] = "boredom"

    with pytest.raises(msgspec.ValidationError, match="stop_reason"):
        decode(json.dumps(document).encode())


def test_a_document_of_before_is_still_read():
    document = json.loads(as_json(an_export(a_reply())))
    del document["messages"][0]["stop_reason"], document["messages"][0]["thoughts"]

    (message,) = history_of(decode(json.dumps(document).encode())).messages

    assert (message.stop_reason, message.thoughts) == (None, None)
