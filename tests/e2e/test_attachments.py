"""Files in a conversation, through real processes: read, shown to the model, and survived."""

import asyncio
import io
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.support.command_line import run_command
from tests.support.made_files import pdf_of
from tests.support.native_client import Reply
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEADLINE = 60


async def upload(natterlog: Running, data: bytes, name: str) -> str:
    form = aiohttp.FormData()
    form.add_field("file", data, filename=name)
    status, file = await natterlog.client.call("POST", "/files", data=form)
    assert status == 201, file
    return file["id"]


def a_picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "orange").save(data, "PNG")
    return data.getvalue()


def parts(natterlog: Running, message: int = -1) -> list[Any]:
    """What the model was sent as a message of the last prompt."""
    content = natterlog.fake.seen[-1].body["messages"][message]["content"]
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


async def test_a_message_that_is_sent_at_once_waits_until_its_files_are_read(natterlog: Running):
    session_id = await natterlog.client.session()
    files = [
        await upload(natterlog, b"name,age\nAda,36\n", "people.csv"),
        await upload(natterlog, pdf_of("A page of words"), "paper.pdf"),
    ]

    async with asyncio.timeout(DEADLINE):
        reply = await natterlog.client.send(session_id, "Look tokens=5", attachments=files)

    reply.check()
    (text,) = parts(natterlog)
    for piece in ("Look tokens=5", "“people.csv”", "Ada", "“paper.pdf”", "A page of words"):
        assert piece in text["text"]
    _, page = await natterlog.client.call("GET", f"/messages/{session_id}")
    assert page["items"][0]["attachments"] == files
    assert page["items"][0]["content"] == "Look tokens=5"


async def test_a_picture_is_sent_as_it_is_and_stays_in_later_turns(natterlog: Running):
    session_id = await natterlog.client.session()
    picture = await upload(natterlog, a_picture(), "cat.png")

    async with asyncio.timeout(DEADLINE):
        await natterlog.client.send(session_id, "Look tokens=5", attachments=[picture])
        first = parts(natterlog)
        await natterlog.client.send(session_id, "And now? tokens=5")

    assert [part["type"] for part in first] == ["image_url", "text"]
    assert first[0]["image_url"]["url"].startswith("data:image/")
    assert parts(natterlog, 0) == first
    assert [part["type"] for part in parts(natterlog)] == ["text"]


async def test_a_file_that_cannot_be_read_does_not_stop_the_reply(natterlog: Running):
    session_id = await natterlog.client.session()
    broken = await upload(natterlog, b"%PDF-1.7\nnothing of a PDF", "broken.pdf")

    async with asyncio.timeout(DEADLINE):
        reply = await natterlog.client.send(session_id, "Look tokens=5", attachments=[broken])

    reply.check()
    assert "“broken.pdf” could not be read" in parts(natterlog)[0]["text"]
    _, file = await natterlog.client.call("GET", f"/files/{broken}")
    assert (file["status"], file["error"]["code"]) == ("failed", "invalid_request")


async def test_a_processor_that_is_killed_before_it_read_the_file_delays_the_reply_only(
    natterlog: Running,
):
    session_id = await natterlog.client.session()
    await natterlog.system.one("processor").kill()
    file_id = await upload(natterlog, b"Some words.", "notes.txt")
    reply = Reply()
    async with asyncio.timeout(DEADLINE):
        await natterlog.client.start(reply, session_id, "Look tokens=5", attachments=[file_id])
        seen = len(natterlog.fake.seen)
        await natterlog.system.start("processor")
        await natterlog.client.follow(reply)

    reply.check()
    assert len(natterlog.fake.seen) == seen + 1
    assert "Some words." in parts(natterlog)[0]["text"]


async def test_a_message_that_waits_for_its_file_can_be_cancelled(natterlog: Running):
    session_id = await natterlog.client.session()
    processor = natterlog.system.one("processor")
    await processor.kill()
    file_id = await upload(natterlog, b"Some words.", "notes.txt")
    reply = Reply()
    async with asyncio.timeout(DEADLINE):
        await natterlog.client.start(reply, session_id, "Look", attachments=[file_id])
        await natterlog.client.call("POST", f"/runs/{reply.run_id}/cancel")
        await natterlog.client.follow(reply)
    await processor.start()

    assert reply.end is not None
    assert (reply.end["message"]["status"], reply.text) == ("cancelled", "")


async def test_a_reply_with_files_is_run_again_and_its_prompt_is_told_with_them(
    natterlog: Running,
):
    session_id = await natterlog.client.session()
    picture = await upload(natterlog, a_picture(), "cat.png")
    notes = await upload(natterlog, b"Some words.", "notes.txt")
    async with asyncio.timeout(DEADLINE):
        await natterlog.client.send(session_id, "Look tokens=5", attachments=[picture, notes])
        reply = await natterlog.client.send(session_id, "And now? tokens=5")
    before = natterlog.fake.seen[-1].body["messages"]

    again = await run_command(natterlog, "rerun", reply.run_id, "--json")
    prompt = natterlog.fake.seen[-1].body["messages"]
    runs = [reply.run_id, again.json["new_run"]]
    shown = [await run_command(natterlog, "runs", "show", run, "--prompt") for run in runs]
    parts = [
        (await run_command(natterlog, "runs", "show", run, "--prompt", "--json")).json
        for run in runs
    ]

    assert (again.code, prompt) == (0, before)
    assert len(natterlog.fake.seen) > 2
    old, new = (each["prompts"][0]["parts"] for each in parts)
    assert old == new
    assert [(p["role"], p["file"] and p["file"]["name"], p["told"]) for p in old] == [
        ("user", None, []),
        ("file", "cat.png", ["sent as a picture"]),
        ("file", "notes.txt", ["sent as text: the 11 characters read from it"]),
        ("assistant", None, []),
        ("user", None, []),
    ]
    assert [p["file_id"] for p in old if p["role"] == "file"] == [picture, notes]
    assert "  | notes.txt, text/plain, 11 bytes\n" in shown[0].out
    assert max(map(len, shown[0].out.splitlines())) <= 80
