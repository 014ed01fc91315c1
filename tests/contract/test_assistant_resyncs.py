"""What the native socket says of a moment is as of that moment, however late the store answers."""

from typing import Any

import aiohttp

from shared.commands import ListMessages
from tests.contract.conftest import Whole
from tests.support.stage import frame, frames

PATH = "/api/v1/chat/ws"


async def subscribed(
    whole: Whole, session_id: str, cursor: str | None = None
) -> aiohttp.ClientWebSocketResponse:
    ws = await whole.stage.open(PATH)
    await ws.send_json({"type": "subscribe", "session_id": session_id, "cursor": cursor})
    return ws


def contents(resync: dict[str, Any]) -> list[str]:
    assert resync["type"] == "resync"
    return [message["content"] for message in resync["messages"]]


async def test_a_resync_holds_nothing_that_came_after_what_it_tells_of(whole: Whole):
    session_id = await whole.store.create()
    rated = (await whole.store.reply(session_id, "u1", "a1")).assistant_message_id
    ws = await subscribed(whole, session_id)
    await frame(ws)
    held = whole.between.hold(ListMessages)

    await whole.call("PUT", f"/messages/{rated}/feedback", json={"rating": "up"})
    await held.came()
    await whole.store.reply(session_id, "u2", "a2")
    await whole.call("PUT", f"/messages/{rated}/feedback", json={"rating": None})
    held.let_go()
    first, start, chunk, complete, last = await frames(ws, 5)

    assert contents(first) == ["u1", "a1"]
    assert first["messages"][1]["feedback"] == {"rating": "up"}
    assert [f["type"] for f in (start, chunk, complete)] == [
        *("message_start", "chunk", "message_complete"),
    ]
    assert contents(last) == ["u1", "a1", "u2", "a2"]
    assert last["messages"][1]["feedback"] is None


async def test_another_branch_is_shown_as_it_was_when_it_was_chosen(whole: Whole):
    session_id = await whole.store.create()
    first = (await whole.store.reply(session_id, "u1", "a1")).assistant_message_id
    second = (await whole.store.reply(session_id, "u2", "a2")).assistant_message_id
    ws = await subscribed(whole, session_id)
    await frame(ws)
    held = whole.between.hold(ListMessages)

    async with whole.stage.http.post(f"/api/v1/chat/messages/{first}/regenerate?stream=1") as reply:
        run_id = reply.headers["X-Run-Id"]
        await held.came()
        await whole.answered(run_id, "a1'")
        await whole.call("PUT", f"/sessions/{session_id}/active", json={"message_id": second})
        held.let_go()
        shown = await frames(ws, 5)

    assert contents(shown[0]) == ["u1"]
    assert [f["type"] for f in shown[1:4]] == ["message_start", "chunk", "message_complete"]
    assert shown[1]["user_message"]["content"] == "u1"
    assert contents(shown[4]) == ["u1", "a1", "u2", "a2"]


async def test_whoever_comes_with_a_lost_cursor_misses_nothing_of_what_goes_on_meanwhile(
    whole: Whole,
):
    session_id = await whole.store.create()
    await whole.store.reply(session_id, "u1", "a1")
    running = (await whole.store.send(session_id, "u2")).run
    await whole.store.claim(running)
    held = whole.between.hold(ListMessages)

    ws = await subscribed(whole, session_id, "000000000000-1-0-0")
    await held.came()
    await whole.store.end(running, "a2")
    await whole.store.reply(session_id, "u3", "a3")
    held.let_go()
    seen = await frames(ws, 8)

    assert [f["type"] for f in seen] == [
        *("subscribed", "resync"),
        *("message_start", "chunk", "message_complete"),
        *("message_start", "chunk", "message_complete"),
    ]
    assert contents(seen[1]) == ["u1", "a1", "u2"]
    assert [seen[n]["user_message"]["content"] for n in (2, 5)] == ["u2", "u3"]
    assert [seen[n]["content"] for n in (3, 6)] == ["a2", "a3"]


async def test_a_reply_that_is_asked_for_anew_names_its_question_in_whatever_branch_it_is(
    whole: Whole,
):
    session_id = await whole.store.create()
    first = last = await whole.store.reply(session_id, "u0", "a0")
    for number in range(1, 30):
        last = await whole.store.reply(session_id, f"u{number}", f"a{number}")
    ws = await subscribed(whole, session_id)
    cursor = (await frame(ws))["cursor"]
    await ws.close()
    async with whole.stage.http.post(
        f"/api/v1/chat/messages/{first.assistant_message_id}/regenerate?stream=1"
    ) as reply:
        await whole.answered(reply.headers["X-Run-Id"], "a0'")
    body = {"message_id": last.assistant_message_id}
    await whole.call("PUT", f"/sessions/{session_id}/active", json=body)

    back = await subscribed(whole, session_id, cursor)
    _, resync, start = await frames(back, 3)

    assert contents(resync) == ["u0"]
    assert start["user_message"]["id"] == first.user_message_id
    assert start["user_message"]["content"] == "u0"


async def test_a_session_that_is_erased_while_a_socket_catches_up_is_told_to_be_gone(
    whole: Whole,
):
    session_id = await whole.store.create()
    rated = (await whole.store.reply(session_id, "u1", "a1")).assistant_message_id
    ws = await subscribed(whole, session_id)
    await frame(ws)
    held = whole.between.hold(ListMessages)

    await whole.call("PUT", f"/messages/{rated}/feedback", json={"rating": "up"})
    await held.came()
    status, _ = await whole.call("DELETE", f"/sessions/{session_id}")
    held.let_go()
    gone = await frame(ws)

    assert status == 204
    assert (gone["type"], gone["code"]) == ("error", "not_found")
