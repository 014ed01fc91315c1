"""The native API's branches: said in another way, forked, chosen, rated; and who is told of it."""

import asyncio
import json
from typing import Any

import pytest

from shared.ids import new_id
from tests.contract.conftest import Whole
from tests.support.native_client import events_of
from tests.support.stage import DEADLINE, frame, frames

PATH = "/api/v1/chat/ws"


async def edited(whole: Whole, message_id: str, text: str, reply: str, **options: Any) -> Any:
    """An edit and its reply, without a stream."""
    editing = asyncio.create_task(
        whole.call("POST", f"/messages/{message_id}/edit", json={"content": text}, **options)
    )
    run_id = await next_run(whole, (await whole.store.store.session_log.read(latest_run)))
    await whole.answered(run_id, reply)
    status, turn = await editing
    assert status == 201, turn
    return turn


def latest_run(connection: Any) -> str:
    return connection.exec_driver_sql("SELECT max(id) FROM runs").scalar() or ""


async def next_run(whole: Whole, before: str) -> str:
    """The run that was begun after this one."""
    async with asyncio.timeout(DEADLINE):
        while (found := await whole.store.store.session_log.read(latest_run)) == before:
            await whole.store.next_fact()
    return found


async def test_an_edit_is_a_branch_beside_the_message_with_a_reply_of_its_own(whole: Whole):
    session_id = await whole.stage.session()
    first = await whole.store.reply(session_id, "u1", "a1")
    second = await whole.store.reply(session_id, "u2", "a2")

    turn = await edited(whole, second.user_message_id or "", "u2'", "a2'")

    assert turn["user_message"]["parent_id"] == first.assistant_message_id
    assert turn["user_message"]["content"] == "u2'"
    assert turn["assistant_message"]["parent_id"] == turn["user_message"]["id"]
    assert await whole.shown(session_id) == ["u1", "a1", "u2'", "a2'"]
    _, page = await whole.call("GET", f"/messages/{session_id}?branches=all")
    assert [m["content"] for m in page["items"]] == ["u1", "a1", "u2", "u2'", "a2", "a2'"]


async def test_an_edit_is_streamed_like_a_message_and_its_key_is_good_once(whole: Whole):
    session_id = await whole.stage.session()
    old = await whole.store.reply(session_id, "u1", "a1")
    url = f"/api/v1/chat/messages/{old.user_message_id}/edit?stream=true"
    options: dict[str, Any] = {"json": {"content": "u1'"}, "headers": {"Idempotency-Key": "k"}}

    streams: list[list[Any]] = []
    for _ in range(2):
        async with whole.stage.http.post(url, **options) as response:
            assert response.status == 200
            events: list[Any] = []
            async for event, _cursor in events_of(response):
                events.append(event)
                if event["type"] == "message_start" and not streams:
                    await whole.answered(event["run_id"], "a1'")
        streams.append(events)
    status, _ = await whole.call(
        "POST",
        f"/messages/{old.user_message_id}/edit",
        json={"content": "other"},
        headers={"Idempotency-Key": "k"},
    )

    assert [event["type"] for event in streams[0]] == ["message_start", "chunk", "message_complete"]
    assert streams[1] == streams[0]
    assert status == 422
    assert await whole.shown(session_id) == ["u1'", "a1'"]


async def test_an_edit_of_a_busy_session_waits_and_stands_where_the_old_one_does(whole: Whole):
    session_id = await whole.stage.session()
    old = await whole.store.reply(session_id, "u1", "a1")
    busy = (await whole.store.send(session_id, "u2")).run
    before = await whole.store.store.session_log.read(latest_run)
    editing = asyncio.create_task(
        whole.call("POST", f"/messages/{old.user_message_id}/edit", json={"content": "u1'"})
    )
    run_id = await next_run(whole, before)
    waiting = await whole.shown(session_id)

    await whole.answered(busy.id, "a2")
    await whole.store.until(run_id, lambda run: run.last_seq > run.first_seq)
    await whole.answered(run_id, "a1'")

    assert (await editing)[0] == 201
    assert waiting == ["u1", "a1", "u2", "u1'"]
    assert await whole.shown(session_id) == ["u1'", "a1'"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{", "$"),
        (b"{}", "$.content"),
        (b'{"content": 1}', "$.content"),
        (b'{"content": " "}', "$.content"),
        (b'{"content": "x", "attachments": "f"}', "$.attachments"),
        (b'{"content": "x", "model": "' + b"m" * 201 + b'"}', "$.model"),
    ],
)
async def test_an_edit_that_does_not_fit_is_refused(whole: Whole, body: bytes, path: str):
    session_id = await whole.stage.session()
    old = await whole.store.reply(session_id, "u1", "a1")

    status, problem = await whole.call("POST", f"/messages/{old.user_message_id}/edit", data=body)

    assert (status, problem["path"]) == (400, path)
    assert await whole.shown(session_id) == ["u1", "a1"]


async def test_only_what_was_said_and_sent_can_be_edited(whole: Whole):
    session_id = await whole.stage.session()
    old = await whole.store.reply(session_id, "u1", "a1")
    await whole.store.send(session_id, "u2")
    waiting = await whole.store.send(session_id, "u3")

    for message_id, wanted in (
        (old.assistant_message_id, 409),
        (waiting.user_message.id, 409),
        (new_id(), 404),
        ("no-id", 404),
    ):
        path = f"/messages/{message_id}/edit"
        status, _ = await whole.call("POST", path, json={"content": "x"})
        assert status == wanted, message_id


# -- forks ------------------------------------------------------------------------


async def test_a_fork_lives_on_without_the_session_that_it_came_from(whole: Whole):
    session_id = await whole.stage.session(title="Cats", system_prompt="Purr.", temperature=0.1)
    first = await whole.store.reply(session_id, "u1", "a1")
    await whole.store.reply(session_id, "u2", "a2")

    status, fork = await whole.call(
        "POST", f"/sessions/{session_id}/fork", json={"message_id": first.assistant_message_id}
    )
    await whole.call("DELETE", f"/sessions/{session_id}")
    await whole.store.reply(fork["id"], "u3", "a3")

    assert status == 201
    assert (fork["title"], fork["system_prompt"], fork["temperature"]) == ("Cats", "Purr.", 0.1)
    assert fork["message_count"] == 2
    assert await whole.shown(fork["id"]) == ["u1", "a1", "u3", "a3"]
    _, page = await whole.call("GET", f"/messages/{fork['id']}")
    assert page["items"][0]["id"] != first.user_message_id
    assert page["items"][1]["parent_id"] == page["items"][0]["id"]


async def test_a_fork_needs_a_message_of_the_sessions_own(whole: Whole):
    session_id, other = await whole.stage.session(), await whole.stage.session()
    elsewhere = await whole.store.reply(other, "v1", "b1")

    for body, wanted in (
        ({"message_id": elsewhere.user_message_id}, 404),
        ({"message_id": new_id()}, 404),
        ({"message_id": "no-id"}, 404),
        ({}, 400),
        ({"message_id": 7}, 400),
    ):
        status, _ = await whole.call("POST", f"/sessions/{session_id}/fork", json=body)
        assert status == wanted, body
    _, page = await whole.call("GET", "/sessions")
    assert page["total"] == 2


# -- the active branch ------------------------------------------------------------


async def test_another_branch_becomes_the_active_one_up_to_its_newest_message(whole: Whole):
    session_id = await whole.stage.session()
    old = await whole.store.reply(session_id, "u1", "a1")
    await whole.store.reply(session_id, "u2", "a2")
    await edited(whole, old.user_message_id or "", "u1'", "a1'")

    status, session = await whole.call(
        "PUT", f"/sessions/{session_id}/active", json={"message_id": old.user_message_id}
    )

    assert (status, session["message_count"]) == (200, 4)
    assert await whole.shown(session_id) == ["u1", "a1", "u2", "a2"]
    await whole.store.reply(session_id, "u3", "a3")
    assert await whole.shown(session_id) == ["u1", "a1", "u2", "a2", "u3", "a3"]


async def test_no_branch_is_chosen_while_a_reply_is_being_written(whole: Whole):
    session_id = await whole.stage.session()
    old = await whole.store.reply(session_id, "u1", "a1")
    await whole.store.send(session_id, "u2")

    status, problem = await whole.call(
        "PUT", f"/sessions/{session_id}/active", json={"message_id": old.user_message_id}
    )

    assert (status, problem["code"]) == (409, "conflict")


async def test_native_sockets_are_told_what_is_shown_when_the_branch_changes(whole: Whole):
    session_id = await whole.stage.session()
    old = await whole.store.reply(session_id, "u1", "a1")
    ws = await whole.stage.open(PATH)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    await frame(ws)

    await edited(whole, old.user_message_id or "", "u1'", "a1'")
    resync, start, chunk, complete = await frames(ws, 4)
    body = {"message_id": old.assistant_message_id}
    await whole.call("PUT", f"/sessions/{session_id}/active", json=body)
    chosen = await frame(ws)
    await whole.call("PUT", f"/messages/{old.assistant_message_id}/feedback", json={"rating": "up"})
    rated = await frame(ws)

    assert resync["type"] == "resync"
    assert resync["messages"][0] == start["user_message"]
    assert [f["type"] for f in (start, chunk, complete)] == [
        "message_start",
        "chunk",
        "message_complete",
    ]
    assert (chosen["type"], chosen["session_id"]) == ("resync", session_id)
    assert [m["content"] for m in chosen["messages"]] == ["u1", "a1"]
    assert [m["feedback"] for m in rated["messages"]] == [None, {"rating": "up"}]

    again = await whole.stage.open(PATH)
    for cursor, missed in ((rated["cursor"], []), (chosen["cursor"], ["resync"])):
        await again.send_json({"type": "subscribe", "session_id": session_id, "cursor": cursor})
        assert (await frame(again))["type"] == "subscribed"
        seen = await frames(again, len(missed))
        assert [f["type"] for f in seen] == missed


# -- feedback ---------------------------------------------------------------------


async def test_a_reply_is_rated_and_the_rating_taken_back(whole: Whole):
    session_id = await whole.stage.session()
    run = await whole.store.reply(session_id, "u1", "a1")
    path = f"/messages/{run.assistant_message_id}/feedback"

    status, rated = await whole.call("PUT", path, json={"rating": "down", "comment": "Wrong."})
    _, taken_back = await whole.call("PUT", path, json={"rating": None})

    assert status == 200
    assert rated["feedback"] == {"rating": "down", "comment": "Wrong."}
    assert rated["content"] == "a1"
    assert taken_back["feedback"] is None


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.rating"),
        ({"rating": "sideways"}, "$.rating"),
        ({"rating": 5}, "$.rating"),
        ({"rating": "up", "comment": 5}, "$.comment"),
        ({"rating": "up", "comment": "x" * 10_001}, "$.comment"),
    ],
)
async def test_feedback_that_does_not_fit_is_refused(whole: Whole, body: Any, path: str):
    session_id = await whole.stage.session()
    run = await whole.store.reply(session_id, "u1", "a1")

    status, problem = await whole.call(
        "PUT", f"/messages/{run.assistant_message_id}/feedback", data=json.dumps(body)
    )

    assert (status, problem["path"]) == (400, path)


async def test_only_replies_are_rated(whole: Whole):
    session_id = await whole.stage.session()
    run = await whole.store.reply(session_id, "u1", "a1")

    for message_id, wanted in ((run.user_message_id, 409), (new_id(), 404), ("x", 404)):
        path = f"/messages/{message_id}/feedback"
        assert (await whole.call("PUT", path, json={"rating": "up"}))[0] == wanted
