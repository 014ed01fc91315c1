"""The native API's files: taken in, told of, and attached."""

from typing import Any

import aiohttp
import pytest

from shared.ids import new_id
from tests.contract.conftest import Whole
from tests.support.made_files import pdf_of


async def upload(whole: Whole, data: bytes, name: str | None = "notes.txt") -> tuple[int, Any]:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("file", data, filename=name, content_type="application/octet-stream")
    return await whole.call("POST", "/files", data=form)


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (b"Some words.", "notes.txt", "text"),
        (b"a,b\n1,2\n", "../../etc/table.csv", "csv"),
        (pdf_of("page"), "paper.pdf", "pdf"),
        (b"# Head", "read me.md", "markdown"),
    ],
)
async def test_a_file_is_told_by_name_kind_and_size(
    whole: Whole, data: bytes, name: str, kind: str
):
    status, file = await upload(whole, data, name)

    assert status == 201
    assert file == {
        "id": file["id"],
        "name": name.rpartition("/")[2],
        "kind": kind,
        "size": len(data),
    }
    _, known = await whole.call("GET", f"/files/{file['id']}")
    assert known == file | {"status": "queued", "error": None}


async def test_a_file_is_attached_to_a_message_and_shown_with_it(whole: Whole):
    _, file = await upload(whole, b"Some words.")
    session_id = await whole.stage.session()

    await whole.store.send(session_id, "Look", attachments=[file["id"]])

    _, page = await whole.call("GET", f"/messages/{session_id}")
    assert [message["attachments"] for message in page["items"]] == [[file["id"]]]


async def test_a_message_with_a_file_that_is_not_there_is_not_sent(whole: Whole):
    session_id = await whole.stage.session()

    for attachments, status, path in (
        ([new_id()], 404, "$.attachments[0]"),
        (["no-id"], 404, "$.attachments[0]"),
        ([1], 400, "$.attachments[0]"),
        ("file", 400, "$.attachments"),
        ([new_id()] * 21, 400, "$.attachments"),
    ):
        body = {"session_id": session_id, "content": "Look", "attachments": attachments}
        got, problem = await whole.call("POST", "/messages", json=body)
        assert (got, problem["path"]) == (status, path)
    assert await whole.shown(session_id) == []


async def test_files_are_in_no_list_of_sessions_or_jobs(whole: Whole):
    _, file = await upload(whole, b"Some words.")

    _, sessions = await whole.call("GET", "/sessions?status=all")
    async with whole.stage.http.get("/api/jobs") as answer:
        jobs = await answer.json()
    async with whole.stage.http.get(f"/api/jobs/{file['id']}") as answer:
        status = answer.status

    assert sessions["total"] == 0
    assert jobs["data"]["jobs"] == []
    assert status == 404


async def test_the_mode_of_files_is_nobody_elses(whole: Whole):
    status, problem = await whole.call("POST", "/sessions", json={"mode": "file"})

    assert (status, problem["path"]) == (400, "$.mode")


@pytest.mark.parametrize(
    ("data", "name", "status", "code"),
    [
        (b"", "empty.txt", 400, "invalid_request"),
        (b"\x00\x01\x02", "program.exe", 415, "unsupported_media_type"),
        (b"text with a \x00 in it", "notes.txt", 415, "unsupported_media_type"),
    ],
)
async def test_what_cannot_be_read_is_refused_at_once(
    whole: Whole, data: bytes, name: str, status: int, code: str
):
    got, problem = await upload(whole, data, name)

    assert (got, problem["code"]) == (status, code)
    assert (await whole.call("GET", "/sessions?mode=file"))[1]["total"] == 0


async def test_what_is_no_upload_is_refused(whole: Whole):
    assert (await whole.call("POST", "/files", json={}))[0] == 415
    form = aiohttp.FormData({"other": "x"})
    form.add_field("more", b"x", filename="x")
    status, problem = await whole.call("POST", "/files", data=form)
    assert (status, problem["path"]) == (400, "$.file")
    for file_id in (new_id(), "no-id"):
        assert (await whole.call("GET", f"/files/{file_id}"))[0] == 404
