"""The native API's exports: what is in them, what they are called, and that JSON comes back."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pypdfium2
import pytest

from services.gateway.dialects.assistant import exports as assistant_exports
from shared.commands import RateMessage, Regenerate
from shared.ids import new_id
from tests.contract.conftest import Whole

REPLY = "# Cats\n\nThey *purr* 你好 😀.\n\n```python\nprint('purr')\n```"


async def conversation(whole: Whole) -> str:
    """A session with two branches, a rating and a file; the older branch is the active one."""
    session_id = await whole.stage.session(title="Cats & “dogs” / 猫", system_prompt="Purr.")
    file_id = await whole.store.file()
    run = (await whole.store.send(session_id, "Tell me.", attachments=[file_id])).run
    await whole.answered(run.id, REPLY)
    await whole.store.reply(session_id, "More?", "No.")
    rated = RateMessage(
        user_id=whole.store.user,
        message_id=run.assistant_message_id or "",
        rating="up",
        comment="Purr.",
    )
    await whole.store.store.branches.rate(rated)
    again = await whole.stage.gateway.store.start_run(regenerate(whole, run.assistant_message_id))
    await whole.answered(again.run.id, "They meow.")
    body = {"message_id": run.assistant_message_id}
    await whole.call("PUT", f"/sessions/{session_id}/active", json=body)
    return session_id


def regenerate(whole: Whole, message_id: str | None) -> Regenerate:
    return Regenerate(user_id=whole.store.user, message_id=message_id)


async def exported(whole: Whole, session_id: str, kind: str) -> tuple[dict[str, str], bytes]:
    url = f"/api/v1/chat/sessions/{session_id}/export?format={kind}"
    async with whole.stage.http.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return dict(answer.headers), await answer.read()


async def test_the_active_branch_can_be_read_as_markdown_and_text(whole: Whole):
    session_id = await conversation(whole)

    headers, markdown = await exported(whole, session_id, "md")
    _, text = await exported(whole, session_id, "txt")

    assert headers["Content-Type"] == "text/markdown; charset=utf-8"
    for piece in ("Tell me.", REPLY, "More?", "No.", "notes.txt"):
        assert piece in markdown.decode()
        assert piece in text.decode()
    assert "They meow." not in markdown.decode()
    assert markdown.decode().startswith("# Cats & “dogs” / 猫\n")


async def test_a_file_is_called_after_the_conversation_and_nothing_else(whole: Whole):
    session_id = await conversation(whole)
    untitled = await whole.stage.session()

    headers, _ = await exported(whole, session_id, "json")
    nameless, _ = await exported(whole, untitled, "txt")

    assert headers["Content-Disposition"] == (
        "attachment; filename=\"Cats-dogs.json\"; filename*=UTF-8''Cats-dogs-%E7%8C%AB.json"
    )
    assert nameless["Content-Disposition"] == (
        "attachment; filename=\"conversation.txt\"; filename*=UTF-8''conversation.txt"
    )


async def test_a_pdf_holds_every_word_of_the_branch(whole: Whole):
    session_id = await conversation(whole)

    headers, data = await exported(whole, session_id, "pdf")

    assert headers["Content-Type"] == "application/pdf"
    pages = pypdfium2.PdfDocument(data)
    text = " ".join(page.get_textpage().get_text_range() for page in pages)
    for piece in ("Tell me.", "Cats", "你好", "print('purr')", "More?", "No.", "notes.txt"):
        assert piece in text
    assert "```" not in text


async def test_json_comes_back_as_often_as_one_likes_with_nothing_lost_but_ids(whole: Whole):
    session_id = await conversation(whole)
    _, original = await exported(whole, session_id, "json")

    copies, imported = list[bytes](), ""
    for _ in range(2):
        status, session = await whole.call("POST", "/sessions/import", data=original)
        assert status == 201
        imported = session["id"]
        copies.append((await exported(whole, imported, "json"))[1])

    assert anonymous(copies[0]) == anonymous(copies[1]) == anonymous(original)
    assert json.loads(original)["messages"][1]["feedback"] == {"rating": "up", "comment": "Purr."}
    ids = [{m["id"] for m in json.loads(data)["messages"]} for data in (original, *copies)]
    assert len(set.union(*ids)) == 3 * len(ids[0]) == 15
    assert await whole.shown(imported) == await whole.shown(session_id)


def anonymous(data: bytes) -> Any:
    """The document with numbers in place of ids."""
    document = json.loads(data)
    names = {m["id"]: n for n, m in enumerate(document["messages"])}
    for message in document["messages"]:
        message["id"] = names[message["id"]]
        message["parent_id"] = names.get(message["parent_id"])
    document["active_message_id"] = names[document["active_message_id"]]
    return document


async def test_an_imported_conversation_goes_on(whole: Whole):
    _, original = await exported(whole, await conversation(whole), "json")
    _, session = await whole.call("POST", "/sessions/import", data=original)

    await whole.store.reply(session["id"], "And now?", "Sleep.")

    assert (await whole.shown(session["id"]))[-3:] == ["No.", "And now?", "Sleep."]


async def test_a_conversation_that_is_too_large_for_a_request_comes_back(whole: Whole):
    session_id = await whole.stage.session()
    for number in range(4):
        await whole.store.reply(session_id, f"{number}" + "ä" * 150_000, "x" * 3_000_000)
    _, original = await exported(whole, session_id, "json")
    assert len(original) > 12_000_000

    status, session = await whole.call("POST", "/sessions/import", data=io.BytesIO(original))

    assert (status, session["message_count"]) == (201, 8)
    assert (await exported(whole, session["id"], "json"))[1].count(b"x" * 3_000_000) == 4


GOOD: dict[str, Any] = {"format": "natterlog session", "version": 1}
ONE = {"id": "1", "role": "user", "content": "Hi", "created_at": "2026-11-20T12:00:00Z"}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (b"{", "$"),
        (b"[]", "$"),
        (b"\xff", "$"),
        ({}, "$.format"),
        ({"format": "another", "version": 1}, "$.format"),
        (GOOD | {"version": 2}, "$.version"),
        (GOOD | {"session": {"temperature": "hot"}}, "$.session.temperature"),
        (GOOD | {"session": {"title": "x" * 501}}, "$.session.title"),
        (GOOD | {"messages": [{**ONE, "role": "system"}]}, "$.messages[0].role"),
        (GOOD | {"messages": [{**ONE, "content": None}]}, "$.messages[0].content"),
        (GOOD | {"messages": [{**ONE, "created_at": "today"}]}, "$.messages[0].created_at"),
        (GOOD | {"messages": [{**ONE, "tokens": 2**40}]}, "$.messages[0].tokens"),
        (GOOD | {"messages": [ONE, ONE]}, "$.messages[1].id"),
        (GOOD | {"messages": [{**ONE, "parent_id": "0"}]}, "$.messages[0].parent_id"),
        (GOOD | {"messages": [{**ONE, "parent_id": "1"}]}, "$.messages[0].parent_id"),
        (GOOD | {"messages": [{**ONE, "attachments": ["x"]}]}, "$.messages[0].attachments[0]"),
        (GOOD | {"messages": [{**ONE, "feedback": {}}]}, "$.messages[0].feedback.rating"),
        (GOOD | {"active_message_id": "7"}, "$.active_message_id"),
    ],
)
async def test_an_import_that_does_not_fit_is_named_by_its_place(
    whole: Whole, document: Any, path: str
):
    data = document if isinstance(document, bytes) else json.dumps(document)

    status, problem = await whole.call("POST", "/sessions/import", data=data)

    assert (status, problem["path"]) == (400, path)
    assert (await whole.call("GET", "/sessions"))[1]["total"] == 0


async def test_an_import_of_too_many_messages_is_refused(whole: Whole):
    document = GOOD | {"messages": [{**ONE, "id": str(n)} for n in range(20_001)]}

    data = io.BytesIO(json.dumps(document).encode())
    status, problem = await whole.call("POST", "/sessions/import", data=data)

    assert (status, problem["path"]) == (400, "$.messages")
    assert (await whole.call("GET", "/sessions"))[1]["total"] == 0


async def test_an_import_that_stops_coming_is_given_up(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(assistant_exports, "SILENT", 0.05)
    given_up = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield b"{"
        await given_up.wait()

    status, problem = await whole.call("POST", "/sessions/import", data=stalling())
    given_up.set()

    assert (status, problem["code"]) == (504, "timeout")


async def test_the_least_that_can_be_imported_is_an_empty_session(whole: Whole):
    status, session = await whole.call("POST", "/sessions/import", json=GOOD)

    assert (status, session["message_count"], session["title"]) == (201, 0, None)
    for kind in ("md", "txt", "json", "pdf"):
        await exported(whole, session["id"], kind)


async def test_an_unknown_format_and_a_session_that_is_not_there_are_refused(whole: Whole):
    session_id = await whole.stage.session()

    status, problem = await whole.call("GET", f"/sessions/{session_id}/export?format=docx")
    assert (status, problem["path"]) == (400, "$.format")
    for missing in (new_id(), "no-id"):
        assert (await whole.call("GET", f"/sessions/{missing}/export"))[0] == 404
