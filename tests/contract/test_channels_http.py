"""The Channels front ends over HTTP, in Django REST framework's manner."""

import asyncio
from typing import Any

import pytest

from shared.ids import new_id
from tests.support.stage import Stage

SESSIONS = "/ai-chat/api/sessions/"


async def call(stage: Stage, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with stage.http.request(method, path, **options) as answer:
        body = await answer.read()
        return answer.status, await answer.json() if body else None


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
    status, _ = await call(on_stage, "GET", second["next"])
    bad, refusal = await call(on_stage, "GET", f"{SESSIONS}?page=4&page_size=2")

    assert second["count"] == 5
    assert len(second["results"]) == 2
    assert second["next"].startswith(on_stage.url)
    assert second["previous"].startswith(on_stage.url)
    assert status == 200
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

    async def reply() -> None:
        await on_stage.store.end(await on_stage.store.latest(), "Hello!")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reply())
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
    broken = await call(on_stage, "POST", SESSIONS, data=b"{")

    assert gone == (404, {"detail": "There is no such session.", "code": "not_found"})
    assert (unknown[0], unknown[1]["code"]) == (404, "not_found")
    assert (broken[0], broken[1]["code"]) == (400, "invalid_request")
