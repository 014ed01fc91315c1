"""The Channels front ends over HTTP, in Django REST framework's manner."""

import asyncio
import io
from typing import Any

import aiohttp
import pytest

from shared.events import Fault
from shared.ids import new_id
from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, stage

SESSIONS = "/ai-chat/api/sessions/"
JSON = {"Content-Type": "application/json"}
FORM = "application/x-www-form-urlencoded"


async def call(stage: Stage, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with stage.http.request(method, path, **options) as answer:
        body = await answer.read()
        return answer.status, await answer.json() if body else None


def multipart(**fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    return form


async def end_latest(stage: Stage, text: str) -> None:
    await stage.store.end(await stage.store.latest(), text)


async def test_a_session_has_the_fields_of_the_contract_and_the_seeds_defaults(on_stage: Stage):
    status, session = await call(on_stage, "POST", SESSIONS, json={"title": "One"})

    assert status == 201
    assert set(session) == {
        "id",
        "title",
        "model",
        "system_prompt",
        "temperature",
        "max_tokens",
        "enable_tools",
        "on_busy",
        "is_active",
        "created_at",
        "updated_at",
        "last_message_at",
        "message_count",
    }
    assert (session["temperature"], session["max_tokens"]) == (0.7, 2000)
    assert session["is_active"] is True


async def test_a_list_has_absolute_links_to_its_neighbours(on_stage: Stage):
    for _ in range(5):
        await on_stage.session()

    _, second = await call(on_stage, "GET", f"{SESSIONS}?page=2&page_size=2")
    status, last = await call(on_stage, "GET", f"{SESSIONS}?page=last&page_size=2")
    _, followed = await call(on_stage, "GET", second["next"])
    _, first = await call(on_stage, "GET", second["previous"])
    bad, refusal = await call(on_stage, "GET", f"{SESSIONS}?page=4&page_size=2")

    assert second["count"] == 5
    assert len(second["results"]) == 2
    assert second["next"].startswith(on_stage.url)
    assert second["previous"].startswith(on_stage.url)
    assert (status, last) == (200, followed | {"next": None})
    assert (first["previous"], len(first["results"])) == (None, 2)
    assert (bad, refusal) == (404, {"detail": "Invalid page.", "code": "not_found"})


@pytest.mark.parametrize("page", ["0", "x", "-1"])
async def test_a_page_that_is_none_is_not_found(on_stage: Stage, page: str):
    assert (await call(on_stage, "GET", f"{SESSIONS}?page={page}"))[0] == 404


async def test_deleting_is_soft_and_can_be_taken_back(on_stage: Stage):
    session_id = await on_stage.session()
    url = f"{SESSIONS}{session_id}/"

    assert (await call(on_stage, "DELETE", url))[0] == 204
    _, active = await call(on_stage, "GET", SESSIONS)
    _, everything = await call(on_stage, "GET", f"{SESSIONS}?include_inactive=1")
    _, read = await call(on_stage, "GET", url)
    message = {"message": "Hi"}
    refused, refusal = await call(on_stage, "POST", f"{url}send_message/", json=message)
    _, back = await call(on_stage, "PATCH", url, json={"is_active": True})

    assert active["results"] == []
    assert [s["id"] for s in everything["results"]] == [session_id]
    assert read["is_active"] is False
    assert (refused, refusal["code"]) == (409, "conflict")
    assert back["is_active"] is True


@pytest.mark.parametrize("name", ["message", "content"])
async def test_a_message_is_answered_when_its_reply_is_complete(on_stage: Stage, name: str):
    session_id = await on_stage.session()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end_latest(on_stage, "Hello!"))
        status, turn = await call(
            on_stage, "POST", f"{SESSIONS}{session_id}/send_message/", json={name: "Hi"}
        )
    _, messages = await call(on_stage, "GET", f"{SESSIONS}{session_id}/messages/")

    assert status == 200
    assert messages["results"] == [turn["user_message"], turn["ai_message"]]
    assert set(turn["ai_message"]) == {"id", "role", "content", "created_at", "status"}


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "message"), ({"message": " "}, "message"), ({"message": 1}, "message")],
)
async def test_a_field_that_does_not_fit_is_named_in_drfs_form(
    on_stage: Stage, body: dict[str, Any], field: str
):
    session_id = await on_stage.session()

    async with on_stage.http.post(f"{SESSIONS}{session_id}/send_message/", json=body) as answer:
        assert answer.status == 400
        assert answer.headers["X-Error-Code"] == "invalid_request"
        refusal = await answer.json()

    assert list(refusal) == [field]
    assert isinstance(refusal[field][0], str)


async def test_other_refusals_have_a_detail_and_a_code(on_stage: Stage):
    gone = await call(on_stage, "GET", f"{SESSIONS}{new_id()}/")
    unknown = await call(on_stage, "GET", "/ai-chat/api/nonsense/")
    broken = await call(on_stage, "POST", SESSIONS, data=b"{", headers=JSON)

    assert gone == (404, {"detail": "There is no such session.", "code": "not_found"})
    assert (unknown[0], unknown[1]["code"]) == (404, "not_found")
    assert (broken[0], broken[1]["code"]) == (400, "invalid_request")


async def test_a_page_size_that_is_none_counts_for_nothing(on_stage: Stage):
    await on_stage.session()

    for size in ("0", "x", "-1", "99999999999"):
        status, page = await call(on_stage, "GET", f"{SESSIONS}?page_size={size}")
        assert (status, page["count"]) == (200, 1)


FORWARDED = {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "chat.example:8443"}


async def test_links_believe_a_proxy_only_where_the_settings_say_so(nats_server: NatsServer):
    links: list[str] = []
    for believed in (False, True):
        async with stage(nats_server.url, behind_proxy=believed) as made:
            await made.session()
            await made.session()
            for headers in (FORWARDED, {"X-Forwarded-Proto": "ftp", "X-Forwarded-Host": "a b/"}):
                _, page = await call(made, "GET", f"{SESSIONS}?page_size=1", headers=headers)
                links.append(page["next"].replace(made.url, "OWN"))

    own = f"OWN{SESSIONS}?page_size=1&page=2"
    forwarded = f"https://chat.example:8443{SESSIONS}?page_size=1&page=2"
    assert links == [own, own, forwarded, own]


async def test_several_wrong_fields_are_all_named(on_stage: Stage):
    body = {"temperature": 5, "max_tokens": "many", "on_busy": "dance", "title": None}

    async with on_stage.http.post(SESSIONS, json=body) as answer:
        assert (answer.status, answer.headers["X-Error-Code"]) == (400, "invalid_request")
        refusal = await answer.json()

    assert refusal == {
        "temperature": ["Ensure this value is less than or equal to 2."],
        "max_tokens": ["A valid integer is required."],
        "on_busy": ['"dance" is not a valid choice.'],
    }
    assert on_stage.store.sessions == {}


async def test_a_change_passes_over_what_is_read_only_or_unknown(on_stage: Stage):
    url = f"{SESSIONS}{await on_stage.session(title='One')}/"
    _, before = await call(on_stage, "GET", url)

    body = {"id": new_id(), "message_count": 7, "created_at": "never", "hue": 3, "title": "Two"}
    patched, after = await call(on_stage, "PATCH", url, json=body)
    put, same = await call(on_stage, "PUT", url, json={"title": "Two"})

    assert (patched, put) == (200, 200)
    expected = before | {"title": "Two"}
    assert after | {"updated_at": ""} == same | {"updated_at": ""} == expected | {"updated_at": ""}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"temperature": 9}),
        ("PUT", "", []),
        ("POST", "send_message/", {}),
        ("POST", "send_message/", {"message": " "}),
    ],
)
async def test_what_is_not_there_is_told_before_what_is_wrong(
    on_stage: Stage, method: str, path: str, body: Any
):
    for session_id in (new_id(), "no-id"):
        answer = await call(on_stage, method, f"{SESSIONS}{session_id}/{path}", json=body)
        assert answer == (404, {"detail": "There is no such session.", "code": "not_found"})


@pytest.mark.parametrize(
    "options",
    [
        {"data": {"message": "Hi & bye", "client_id": "c"}},
        {"data": b"message=Hi+%26%20bye", "headers": {"Content-Type": FORM}},
        {"data": b'{"message": "Hi & bye"}', "headers": {"Content-Type": FORM}},
        {"data": b'{"content": "Hi & bye"}', "headers": {"Content-Type": "application/x+json"}},
        {"data": multipart(message="Hi & bye")},
    ],
)
async def test_simple_fields_may_come_as_a_form(on_stage: Stage, options: dict[str, Any]):
    session_id = await on_stage.session()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end_latest(on_stage, "Hello!"))
        status, turn = await call(
            on_stage, "POST", f"{SESSIONS}{session_id}/send_message/", **options
        )

    assert (status, turn["user_message"]["content"]) == (200, "Hi & bye")


async def test_a_form_has_numbers_and_truths_in_words(on_stage: Stage):
    form = {"title": "Five", "temperature": "0.5", "max_tokens": "", "enable_tools": "true"}

    status, session = await call(on_stage, "POST", SESSIONS, data=form)

    assert status == 201
    assert (session["title"], session["temperature"]) == ("Five", 0.5)
    assert (session["max_tokens"], session["enable_tools"]) == (2000, True)


@pytest.mark.parametrize(
    ("kind", "body", "refusal"),
    [
        ("text/plain;charset=UTF-8", b'{"title": "T"}', 415),
        ("application/octet-stream", b'{"title": "T"}', 415),
        ("application/xml", b"<title/>", 415),
        (FORM, b"title=%FF", 400),
        (FORM, b"title=\xff", 400),
        (FORM, b"{", 400),
        ("multipart/form-data", b"title", 400),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\nno form", 400),
        ("application/json", b'{"title": "\\ud800"}', 400),
        ("application/json", b"[" * 100_000, 400),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    on_stage: Stage, kind: str, body: bytes, refusal: int
):
    status, answer = await call(
        on_stage, "POST", SESSIONS, data=body, headers={"Content-Type": kind}
    )

    code = "unsupported_media_type" if refusal == 415 else "invalid_request"
    assert (status, answer["code"]) == (refusal, code)
    if refusal == 415:
        assert answer["detail"] == f'Unsupported media type "{kind.partition(";")[0]}" in request.'
    assert on_stage.store.sessions == {}


async def test_a_body_that_is_no_object_is_told_so(on_stage: Stage):
    status, answer = await call(on_stage, "POST", SESSIONS, json=["title"])

    assert status == 400
    assert answer == {"non_field_errors": ["Invalid data. Expected a dictionary, but got list."]}


async def test_a_file_where_a_word_is_wanted_is_refused(on_stage: Stage):
    form = aiohttp.FormData()
    form.add_field("title", b"GIF", filename="a.gif", content_type="image/gif")

    assert await call(on_stage, "POST", SESSIONS, data=form) == (
        400,
        {"title": ["Not a valid string."]},
    )


async def test_a_form_that_no_request_on_the_bus_can_carry_is_too_large_and_hurts_nobody(
    on_stage: Stage,
):
    # Within the limit as a form; as JSON each of these characters has six bytes.
    part = b'--x\r\nContent-Disposition: form-data; name="system_prompt"\r\n\r\n%b\r\n--x--\r\n'
    form = io.BytesIO(part % (b"\x01" * 3_000_000))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}

    status, answer = await call(on_stage, "POST", SESSIONS, data=form, headers=headers)
    after, _ = await call(on_stage, "POST", SESSIONS, json={"title": "After it"})

    assert (status, answer["code"]) == (413, "too_large")
    assert (after, on_stage.bus.connected) == (201, True)


async def test_a_body_that_is_too_large_is_refused_in_every_form(nats_server: NatsServer):
    async with stage(nats_server.url, max_body=1000) as small:
        much = "x" * 2000
        for options in ({"json": {"title": much}}, {"data": multipart(title=much)}):
            status, answer = await call(small, "POST", SESSIONS, **options)
            assert (status, answer["code"]) == (413, "too_large")
        message = {"message": "x" * 900}
        url = f"{SESSIONS}{await small.session()}/send_message/"
        async with stage(nats_server.url, store=small.store, max_message=500) as smaller:
            status, answer = await call(smaller, "POST", url, json=message)

    assert (status, answer["code"]) == (413, "too_large")


async def test_a_path_says_what_may_be_done_there(on_stage: Stage):
    async with on_stage.http.options(SESSIONS) as answer:
        many = await answer.json()
        allowed = answer.headers["Allow"]
    async with on_stage.http.options(f"{SESSIONS}{new_id()}") as answer:
        one = await answer.json()
    nowhere, _ = await call(on_stage, "OPTIONS", "/ai-chat/api/nonsense/")

    actions = many.pop("actions")
    assert many == {
        "name": "Session List",
        "description": "List the active sessions, or all of them; the one last written to first.",
        "renders": ["application/json"],
        "parses": [
            "application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ],
    }
    assert allowed == "GET, POST, HEAD, OPTIONS"
    assert actions["POST"]["title"]["max_length"] == 500
    assert (one["name"], list(one["actions"])) == ("Session Instance", ["PUT"])
    assert nowhere == 404


async def test_a_browsers_preflight_is_answered_before_that(on_stage: Stage):
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "PATCH"}

    async with on_stage.http.options(SESSIONS, headers=headers) as answer:
        assert answer.status == 204
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]


async def test_whatever_can_be_read_can_be_asked_for_its_head(on_stage: Stage):
    session_id = await on_stage.session()

    for path in (SESSIONS, f"{SESSIONS}{session_id}/", f"{SESSIONS}{session_id}/messages"):
        async with on_stage.http.get(path) as answer:
            length = answer.headers["Content-Length"]
        async with on_stage.http.head(path) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, length)
    missing, _ = await call(on_stage, "HEAD", f"{SESSIONS}{new_id()}/")

    assert missing == 404


async def test_the_same_client_id_gives_the_same_turn(on_stage: Stage):
    url = f"{SESSIONS}{await on_stage.session()}/send_message/"
    message = {"message": "Hi", "client_id": "c"}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end_latest(on_stage, "Hello!"))
        first = await call(on_stage, "POST", url, json=message)

    again = await call(on_stage, "POST", url, json=message)
    other, refusal = await call(on_stage, "POST", url, json=message | {"message": "Ho"})
    long, named = await call(on_stage, "POST", url, json=message | {"client_id": "c" * 201})

    assert again == first
    assert len(on_stage.store.runs) == 1
    assert (other, refusal["code"]) == (422, "conflict")
    assert (long, list(named)) == (400, ["client_id"])


async def test_a_busy_session_that_rejects_is_a_conflict(on_stage: Stage):
    session_id = await on_stage.session(on_busy="reject")
    ws = await on_stage.open(f"/ws/ai-chat/session/{session_id}/")
    await ws.send_json({"type": "send_message", "message": "Hi"})
    await on_stage.store.latest()

    url = f"{SESSIONS}{session_id}/send_message/"
    status, refusal = await call(on_stage, "POST", url, json={"message": "Me too"})

    assert (status, refusal["code"]) == (409, "conflict")


async def test_a_failed_reply_has_the_status_of_its_error(on_stage: Stage):
    url = f"{SESSIONS}{await on_stage.session()}/send_message/"
    fault = Fault(code="provider_error", message="The provider broke off.")

    async def fail() -> None:
        await on_stage.store.end(await on_stage.store.latest(), "", status="failed", error=fault)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())
        answer = await call(on_stage, "POST", url, json={"message": "Hi"})

    assert answer == (502, {"detail": "The provider broke off.", "code": "provider_error"})
