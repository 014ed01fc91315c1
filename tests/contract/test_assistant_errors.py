"""The native API's refusals: problem+json, a stable code, the place of the fault."""

import asyncio
from typing import Any

import pytest

from tests.support.absent import ABSENT_ID
from tests.support.stage import DEADLINE, Stage

SESSIONS, MESSAGES = "/api/v1/chat/sessions", "/api/v1/chat/messages"


async def refused(stage: Stage, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with stage.http.request(method, path, **options) as answer:
        assert answer.headers["Content-Type"] == "application/problem+json", await answer.text()
        problem = await answer.json(content_type=None)
        assert problem["status"] == answer.status
        return answer.status, problem


async def answer_to(stage: Stage, data: str) -> bytes:
    """The first line of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(stage.url.rpartition(":")[2]))
    writer.write(data.encode())
    async with asyncio.timeout(DEADLINE):
        line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize("text", ["x", "", "4e66adc88ecc-28-28", "4e66adc88ecc-28-28-115-1"])
async def test_a_place_that_is_no_cursor_is_answered_with_what_one_looks_like(
    on_stage: Stage, text: str
):
    session_id = await on_stage.session()
    for path in (f"{SESSIONS}/{session_id}", f"{MESSAGES}/{session_id}"):
        status, problem = await refused(on_stage, "GET", f"{path}?at={text}")

        assert (status, problem["path"]) == (400, "$.at")
        assert problem["detail"] == "A cursor looks like 4e66adc88ecc-28-28-115."


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{", "$"),
        (b"\xff\xfe", "$"),
        (b"[]", "$"),
        (b'"text"', "$"),
        (b'{"temperature": "hot"}', "$.temperature"),
        (b'{"temperature": 3}', "$.temperature"),
        (b'{"max_tokens": 0}', "$.max_tokens"),
        (b'{"max_tokens": 1.5}', "$.max_tokens"),
        (b'{"max_tokens": 2147483648}', "$.max_tokens"),
        (b'{"on_busy": "panic"}', "$.on_busy"),
        (b'{"context_tags": [1]}', "$.context_tags[0]"),
        (b'{"title": "\\ud800"}', "$"),
        (b"[" * 100_000, "$"),
        (b'{"x": ' + b"[" * 100_000, "$"),
    ],
)
async def test_a_body_that_does_not_fit_is_named_by_its_place(
    on_stage: Stage, body: bytes, path: str
):
    status, problem = await refused(on_stage, "POST", SESSIONS, data=body)

    assert (status, problem["code"], problem["path"]) == (400, "invalid_request", path)
    assert on_stage.store.sessions == {}


async def test_a_value_that_is_none_of_a_field_s_is_refused_with_those_that_are(on_stage: Stage):
    _, of_body = await refused(on_stage, "POST", SESSIONS, json={"on_busy": "wait"})
    _, of_query = await refused(on_stage, "GET", f"{SESSIONS}?status=open")

    assert [of_body["detail"], of_query["detail"]] == [
        "Invalid enum value 'wait'; there are: interrupt, queue, reject.",
        "Invalid enum value 'open'; there are: active, all, inactive.",
    ]


async def test_a_change_of_nothing_that_there_is_is_a_mistake(on_stage: Stage):
    path = f"{SESSIONS}/{await on_stage.session()}"

    status, problem = await refused(on_stage, "PATCH", path, json={"titel": "Tea"})
    async with (
        on_stage.http.patch(path, json={}) as empty,
        on_stage.http.patch(path, json={"title": "Tea", "pinned": True}) as more,
    ):
        assert (empty.status, more.status) == (200, 200)

    assert (status, problem["path"]) == (400, "$.titel")
    assert problem["detail"].startswith("There is no such field; there are: title, status, model,")


@pytest.mark.parametrize(
    ("fields", "status", "path"),
    [
        ({"content": None}, 400, "$.content"),
        ({"content": ""}, 400, "$.content"),
        ({"content": " \n"}, 400, "$.content"),
        ({"content": "x" * 200_001}, 413, "$.content"),
        ({"attachments": "one"}, 400, "$.attachments"),
    ],
)
async def test_a_message_that_does_not_fit_starts_nothing(
    on_stage: Stage, fields: dict[str, Any], status: int, path: str
):
    body = {"session_id": await on_stage.session(), "content": "Hello", **fields}

    got, problem = await refused(on_stage, "POST", MESSAGES, json=body)

    assert (got, problem["path"]) == (status, path)
    assert on_stage.store.runs == {}


async def test_a_missing_field_is_named(on_stage: Stage):
    status, problem = await refused(on_stage, "POST", MESSAGES, json={"content": "Hello"})

    assert (status, problem["path"]) == (400, "$.session_id")


@pytest.mark.parametrize("session_id", [ABSENT_ID, "no-id", "*", "a.b.>", ""])
async def test_what_is_not_there_is_not_found(on_stage: Stage, session_id: str):
    body = {"session_id": session_id, "content": "Hello"}

    assert (await refused(on_stage, "POST", MESSAGES, json=body))[0] == 404


@pytest.mark.parametrize(
    "path", ["/sessions/{}", "/messages/{}", "/runs/{}", "/runs/{}/stream", "/sessions/{}/"]
)
@pytest.mark.parametrize("name", [ABSENT_ID, "no-id", "%2A", "a.b"])
async def test_every_path_of_what_is_not_there_is_not_found(on_stage: Stage, path: str, name: str):
    status, problem = await refused(on_stage, "GET", "/api/v1/chat" + path.format(name))

    assert (status, problem["code"]) == (404, "not_found")


async def test_an_unknown_path_is_not_found(on_stage: Stage):
    status, problem = await refused(on_stage, "GET", "/api/v1/chat/nonsense")

    assert (status, problem["code"]) == (404, "not_found")


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(on_stage: Stage):
    head = f"POST {SESSIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{{"

    assert b"413" in await answer_to(on_stage, head)


async def test_a_body_that_is_not_packed_as_it_says_is_a_bad_request(on_stage: Stage):
    headers = {"Content-Encoding": "gzip"}

    status, problem = await refused(on_stage, "POST", SESSIONS, data=b"{}", headers=headers)

    assert (status, problem["code"]) == (400, "invalid_request")


async def test_a_sockets_path_without_a_handshake_says_what_it_is(on_stage: Stage):
    status, problem = await refused(on_stage, "GET", "/api/v1/chat/ws")

    assert (status, problem["code"]) == (400, "invalid_request")
    assert "WebSocket" in problem["detail"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=²", "page=0", "status=x", "cursor=x"]
)
async def test_a_query_that_does_not_fit_is_named_by_its_place(on_stage: Stage, query: str):
    status, problem = await refused(on_stage, "GET", f"{SESSIONS}?{query}")

    assert (status, problem["path"]) == (400, f"$.{query.split('=', maxsplit=1)[0]}")


@pytest.mark.parametrize(
    ("fields", "headers", "path"),
    [
        ({"model": "m" * 201}, {}, "$.model"),
        ({"attachments": ["f"] * 21}, {}, "$.attachments"),
        ({}, {"Idempotency-Key": "k" * 256}, "$.Idempotency-Key"),
    ],
)
async def test_names_that_are_too_long_are_refused(
    on_stage: Stage, fields: dict[str, Any], headers: dict[str, str], path: str
):
    body = {"session_id": await on_stage.session(), "content": "Hello", **fields}

    got, problem = await refused(on_stage, "POST", MESSAGES, json=body, headers=headers)

    assert (got, problem["path"]) == (400, path)
    assert on_stage.store.runs == {}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"title": "t" * 501}, "$.title"),
        ({"model": "m" * 201}, "$.model"),
        ({"system_prompt": "s" * 200_001}, "$.system_prompt"),
        ({"mode": "m" * 51}, "$.mode"),
        ({"mode": "file"}, "$.mode"),
    ],
)
async def test_a_session_with_names_that_are_too_long_is_not_opened(
    on_stage: Stage, fields: dict[str, Any], path: str
):
    got, problem = await refused(on_stage, "POST", SESSIONS, json=fields)

    assert (got, problem["path"]) == (400, path)
    assert on_stage.store.sessions == {}
