"""What each dialect does when a message comes again: nothing begins twice, nobody is left behind.

Two things are told apart here: the store's answer was lost, so the gateway asked once more
(the client knows nothing of it); and the client itself sent the message again.
"""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from services.store.queries import unfinished_runs
from shared import store_client
from shared.commands import (
    CancelRun,
    CreateJob,
    EditMessage,
    ListMessages,
    Regenerate,
    SendMessage,
)
from shared.events import Fault
from shared.ids import new_id
from shared.records import Run
from tests.contract.conftest import Whole
from tests.support.stage import DEADLINE, frame, frames

NATIVE = "/api/v1/chat/ws"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway does not wait long for an answer."""
    monkeypatch.setattr(store_client, "_LOOK", 0.3)
    monkeypatch.setattr(store_client, "_LATE", 0.3)
    monkeypatch.setattr(store_client, "TIMEOUT", 2.0)


async def nothing_more(ws: Any) -> None:
    """A ping's answer is the next thing that comes."""
    await ws.send_json({"type": "ping"})
    assert await frame(ws) == {"type": "pong"}


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


# -- the store's answer was lost -----------------------------------------------------


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("client_id", [None, "c1"])
async def test_a_native_socket_is_told_of_a_start_once_although_the_store_was_asked_twice(
    whole: Whole, client_id: str | None
):
    session_id = await whole.store.create()
    ws = await whole.stage.open(NATIVE)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    await frame(ws)
    whole.between.lose(SendMessage)

    await ws.send_json(
        {"type": "send", "session_id": session_id, "content": "Hi", "client_id": client_id}
    )
    start = await frame(ws)
    run = await begun(whole, session_id)
    await whole.store.write(run, await whole.store.claim(run), "Half")
    chunk = await frame(ws)
    await whole.between.came(SendMessage, 2)
    await whole.store.end(run, "Half and half")
    events = await frames(ws, 2)

    assert (start["type"], chunk["content"]) == ("message_start", "Half")
    assert kinds(events) == ["chunk", "message_complete"]
    await nothing_more(ws)
    assert whole.between.requests[SendMessage] == 2


@pytest.mark.usefixtures("hasty")
async def test_a_native_socket_that_shows_a_turn_is_not_told_that_nobody_knows_of_it(
    whole: Whole,
):
    session_id = await whole.store.create()
    ws = await whole.stage.open(NATIVE)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    await frame(ws)
    whole.between.lose(SendMessage, 9)

    await ws.send_json(
        {"type": "send", "session_id": session_id, "content": "Hi", "client_id": "c1"}
    )
    start = await frame(ws)
    await ws.send_json({"type": "send", "session_id": session_id, "content": "Ho"})
    unknown = [await frame(ws), await frame(ws)]

    assert (start["type"], start["client_id"]) == ("message_start", "c1")
    assert sorted(kinds(unknown)) == ["error", "message_start"]  # without an id nobody knows
    await nothing_more(ws)


@pytest.mark.usefixtures("hasty")
async def test_a_channels_socket_is_told_of_a_message_once_although_the_store_was_asked_twice(
    whole: Whole,
):
    session_id = await whole.store.create()
    ws = await whole.stage.open(f"/ws/ai-chat/session/{session_id}/")
    await frame(ws)
    whole.between.lose(SendMessage)

    await ws.send_json({"type": "send_message", "message": "Hi", "client_id": "c1"})
    events = await frames(ws, 2)
    await ws.send_json({"type": "send_message", "message": "Ho", "client_id": "c2"})
    more = await frame(ws)

    assert kinds(events) == ["user_message", "ai_typing"]
    assert (more["type"], more["client_id"]) == ("user_message", "c2")
    assert whole.between.requests[SendMessage] == 3


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", [SendMessage, EditMessage, Regenerate])
async def test_a_request_whose_answer_was_lost_begins_one_run_and_counts_once(
    whole: Whole, kind: type[Any]
):
    session_id = await whole.store.create()
    old = await whole.store.reply(session_id, "u1", "a1")
    path, body = {
        SendMessage: ("", {"session_id": session_id, "content": "u2"}),
        EditMessage: (f"/{old.user_message_id}/edit", {"content": "u1'"}),
        Regenerate: (f"/{old.assistant_message_id}/regenerate", None),
    }[kind]
    whole.between.lose(kind)

    url = f"/api/v1/chat/messages{path}?stream=1"
    async with whole.stage.http.post(url, json=body) as answer:
        await whole.answered(answer.headers["X-Run-Id"], "a2")
        text = await answer.text()

    assert whole.between.requests[kind] == 2
    assert text.count('"message_start"') == text.count('"message_complete"') == 1
    assert await runs_of(whole, session_id) == 2


@pytest.mark.usefixtures("hasty")
async def test_an_upload_whose_answer_was_lost_is_one_job(whole: Whole):
    whole.between.lose(CreateJob)
    form = aiohttp.FormData()
    form.add_field("prompt", "What is it?")
    form.add_field("file", b"Some words.", filename="notes.txt")

    async with whole.stage.http.post("/api/upload", data=form) as answer:
        job_id = (await answer.json())["data"]["job_id"]
    async with whole.stage.http.get("/api/jobs") as answer:
        jobs = (await answer.json())["data"]["jobs"]

    assert [job["job_id"] for job in jobs] == [job_id]
    assert whole.between.requests[CreateJob] == 2


# -- the client sent it again --------------------------------------------------------


async def test_a_message_sent_again_in_the_middle_of_its_reply_restarts_nothing(whole: Whole):
    session_id = await whole.store.create()
    ws = await whole.stage.open(NATIVE)
    message = {"type": "send", "session_id": session_id, "content": "Hi", "client_id": "c1"}
    await ws.send_json(message)
    _, start = await frames(ws, 2)
    run = await whole.store.run(start["run_id"])
    attempt = await whole.store.claim(run)
    await whole.store.write(run, attempt, "Half")
    await frame(ws)

    await ws.send_json(message)
    again = await frame(ws)
    await whole.store.end(run, "Half and half")
    rest = await frames(ws, 2)

    assert (again["type"], again["client_id"]) == ("resync", "c1")
    assert [(m["content"], m["status"]) for m in again["messages"]] == [("Hi", "completed")]
    assert again["cursor"].split("-")[1:] == [str(attempt), str(attempt), "4"]
    assert kinds(rest) == ["chunk", "message_complete"]
    assert rest[0]["content"] == " and half"
    await nothing_more(ws)


async def test_a_message_sent_again_after_its_end_is_shown_with_its_reply(whole: Whole):
    session_id = await whole.store.create()
    first = await whole.stage.open(NATIVE)
    message = {"type": "send", "session_id": session_id, "content": "Hi", "client_id": "c1"}
    await first.send_json(message)
    run_id = (await frames(first, 2))[1]["run_id"]
    await whole.answered(run_id, "Hello")
    following, stranger = await whole.stage.open(NATIVE), await whole.stage.open(NATIVE)
    await following.send_json({"type": "subscribe", "session_id": session_id})
    await frame(following)

    for ws in (following, stranger):
        await ws.send_json(message)
    shown, events = await frame(following), await frames(stranger, 4)

    assert (shown["type"], shown["client_id"]) == ("resync", "c1")
    assert [m["content"] for m in shown["messages"]] == ["Hi", "Hello"]
    assert kinds(events) == ["subscribed", "message_start", "chunk", "message_complete"]
    assert (events[1]["client_id"], events[2]["content"]) == ("c1", "Hello")
    for ws in (following, stranger):
        await nothing_more(ws)


async def test_a_message_sent_again_while_it_waits_is_shown_to_wait(whole: Whole):
    session_id = await whole.store.create()
    await whole.store.send(session_id, "u1")
    ws = await whole.stage.open(NATIVE)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    await frames(ws, 2)
    message = {"type": "send", "session_id": session_id, "content": "u2", "client_id": "c2"}
    await ws.send_json(message)
    await frame(ws)

    await ws.send_json(message)
    again = await frame(ws)

    assert again["client_id"] == "c2"
    shown = [(m["content"], m["status"]) for m in again["messages"]]
    assert shown == [("u1", "completed"), ("u2", "waiting")]


async def test_a_message_sent_again_before_a_socket_came_to_it_is_told_once(whole: Whole):
    session_id = await whole.store.create()
    rated = (await whole.store.reply(session_id, "u1", "a1")).assistant_message_id
    ws = await whole.stage.open(NATIVE)
    await ws.send_json({"type": "subscribe", "session_id": session_id})
    await frame(ws)
    held = whole.between.hold(ListMessages)
    await whole.call("PUT", f"/messages/{rated}/feedback", json={"rating": "up"})
    await held.came()
    message = {"type": "send", "session_id": session_id, "content": "u2", "client_id": "c2"}

    for _ in range(2):
        await ws.send_json(message)
    await ws.send_json({"type": "cancel", "run_id": new_id()})
    await whole.between.came(CancelRun)  # by then what was sent before it is answered
    held.let_go()
    events = await frames(ws, 3)

    assert sorted(kinds(events)) == ["error", "message_start", "resync"]
    assert all("client_id" not in event for event in events if event["type"] == "resync")
    await nothing_more(ws)


async def test_a_key_sent_again_is_streamed_again_from_its_start(whole: Whole):
    session_id = await whole.store.create()
    url, key = "/api/v1/chat/messages?stream=1", {"Idempotency-Key": "k"}
    body = {"session_id": session_id, "content": "Hi"}
    async with whole.stage.http.post(url, json=body, headers=key) as first:
        run = await whole.store.run(first.headers["X-Run-Id"])
        await whole.store.write(run, await whole.store.claim(run), "Half")

        async with whole.stage.http.post(url, json=body, headers=key) as second:
            again = [await event(second) for _ in range(2)]
            await whole.store.end(run, "Half and half")
            again += [await event(second) for _ in range(2)]

    assert second.headers["X-Run-Id"] == run.id
    assert kinds(again) == ["message_start", "chunk", "chunk", "message_complete"]
    assert [e["content"] for e in again[1:3]] == ["Half", " and half"]


async def event(stream: aiohttp.ClientResponse) -> dict[str, Any]:
    """The stream's next event."""
    while True:
        line = await stream.content.readline()
        if line.startswith(b"data: "):
            return json.loads(line[6:])


async def test_a_channels_message_sent_again_is_echoed_and_its_reply_goes_on(whole: Whole):
    session_id = await whole.store.create()
    ws = await whole.stage.open(f"/ws/ai-chat/session/{session_id}/")
    message = {"type": "send_message", "message": "Hi", "client_id": "c1"}
    await ws.send_json(message)
    _, sent, _ = await frames(ws, 3)
    run = await begun(whole, session_id)
    await whole.store.write(run, await whole.store.claim(run), "Half")
    await frame(ws)

    await ws.send_json(message)
    echo = await frame(ws)
    await whole.store.end(run, "Half and half")
    chunk, complete = await frames(ws, 2)

    assert echo == sent
    assert (chunk["content"], chunk["full_content"]) == (" and half", "Half and half")
    assert complete["type"] == "ai_message_complete"
    await nothing_more(ws)


@pytest.mark.parametrize(
    ("status", "kinds_of_end"),
    [
        ("completed", ["ai_message_complete"]),
        ("cancelled", ["ai_message_cancelled", "ai_message_complete"]),
        ("failed", ["error"]),
    ],
)
async def test_a_channels_message_sent_again_over_another_line_is_told_its_end(
    whole: Whole, status: Any, kinds_of_end: list[str]
):
    session_id = await whole.store.create()
    url, message = f"/ws/ai-chat/session/{session_id}/", {"type": "send_message", "message": "Hi"}
    first = await whole.stage.open(url)
    await first.send_json(message | {"client_id": "c1"})
    await frames(first, 3)
    await first.close()
    run = await begun(whole, session_id)
    error = Fault(code="provider_error", message="It said no.") if status == "failed" else None
    await whole.answered(run.id, "Hello", status=status, error=error)

    second = await whole.stage.open(url)
    await second.send_json(message | {"client_id": "c1"})
    _, echo, *end = await frames(second, 2 + len(kinds_of_end))

    assert (echo["type"], echo["client_id"]) == ("user_message", "c1")
    assert kinds(end) == kinds_of_end
    await nothing_more(second)


async def begun(whole: Whole, session_id: str, count: int = 1) -> Run:
    """The session's run that goes on, once it has begun so many."""
    async with asyncio.timeout(DEADLINE):
        while True:
            going = await whole.store.store.session_log.read(unfinished_runs, session_id)
            if going and await runs_of(whole, session_id) == count:
                return going[0].record()
            await whole.store.next_fact()


async def runs_of(whole: Whole, session_id: str) -> int:
    """How many runs were begun in a session."""
    found = await whole.store.bus.facts_after("EVENTS", f"evt.*.{session_id}.*.todo.chat.0", 0)
    return len(found)


async def test_a_channels_request_sent_again_is_the_same_turn(whole: Whole):
    session_id = await whole.store.create()
    url = f"/ai-chat/api/sessions/{session_id}/send_message/"
    body = {"message": "Hi", "client_id": "c1"}

    async def send() -> Any:
        async with whole.stage.http.post(url, json=body) as answer:
            return answer.status, await answer.json()

    first, second = asyncio.create_task(send()), asyncio.create_task(send())
    run = await begun(whole, session_id)
    await whole.answered(run.id, "Hello")
    third = await send()

    assert await first == await second == third
    assert third[0] == 200
    assert await runs_of(whole, session_id) == 1


async def test_an_interview_prompt_sent_again_is_streamed_again_from_its_start(whole: Whole):
    session_id = await whole.store.create()
    body = {"prompt": "Hi", "session_id": session_id}

    async def send() -> tuple[str, list[str]]:
        headers = {"Idempotency-Key": "k"}
        async with whole.stage.http.post("/api/generate/", json=body, headers=headers) as answer:
            lines = (await answer.text()).splitlines()
            found = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
            return answer.headers["X-Run-Id"], [line["response"] for line in found]

    first = asyncio.create_task(send())
    run = await begun(whole, session_id)
    await whole.answered(run.id, "Hello")
    second = await send()

    assert await first == second == (run.id, ["Hello", ""])


async def test_a_reference_sent_again_while_its_job_runs_is_the_same_job(whole: Whole):
    order = {"topic": "Tea", "query": "Green", "platform": "Twitter", "session_id": "mine"}

    async def start() -> str:
        async with whole.stage.http.post("/chat/start", json=order) as answer:
            assert answer.status == 200
            return (await answer.json())["session_id"]

    first, second = await asyncio.gather(start(), start())

    assert first == second == await start()


# -- a turn that failed in passing ----------------------------------------------------

BUSY = Fault(code="provider_unavailable", message="Busy.", retryable=True)
NEVER = Fault(code="provider_error", message="It said no.", retryable=False)


async def post(whole: Whole, session_id: str, content: str = "Hi", key: str = "k") -> Any:
    """(status, body) of a message without a stream."""
    body = {"session_id": session_id, "content": content}
    return await whole.call("POST", "/messages", json=body, headers={"Idempotency-Key": key})


async def failed(whole: Whole, session_id: str, fault: Fault, count: int = 1) -> Any:
    """What is answered to a turn that fails so."""
    posting = asyncio.create_task(post(whole, session_id))
    run = await begun(whole, session_id, count)
    await whole.answered(run.id, "", status="failed", error=fault)
    return await posting


async def test_a_key_whose_turn_failed_in_passing_has_its_message_answered_anew(whole: Whole):
    session_id = await whole.store.create()
    first = await failed(whole, session_id, BUSY)
    second = await failed(whole, session_id, BUSY, 2)

    posting = asyncio.create_task(post(whole, session_id))
    run = await begun(whole, session_id, 3)
    prompt = await whole.store.context(run)
    await whole.answered(run.id, "Hello")
    status, turn = await posting
    again = await post(whole, session_id)

    assert [first[0], second[0], status] == [503, 503, 201]
    assert turn["assistant_message"]["content"] == "Hello"
    assert turn["assistant_message"]["parent_id"] == turn["user_message"]["id"]
    assert [message.content for message in prompt.messages] == ["Hi"]
    assert await whole.shown(session_id) == ["Hi", "Hello"]
    assert again == (201, turn)


async def test_a_key_whose_turn_failed_for_good_keeps_its_answer(whole: Whole):
    session_id = await whole.store.create()
    first = await failed(whole, session_id, NEVER)

    again = await post(whole, session_id)

    assert again == first
    assert first[0] == 502
    assert await runs_of(whole, session_id) == 1


async def test_many_who_send_a_failed_key_again_begin_one_run(whole: Whole):
    session_id = await whole.store.create()
    await failed(whole, session_id, BUSY)

    posting = [asyncio.create_task(post(whole, session_id)) for _ in range(5)]
    run = await begun(whole, session_id, 2)
    await whole.answered(run.id, "Hello")
    answers = [await answer for answer in posting]

    assert [status for status, _ in answers] == [201] * 5
    assert all(body == answers[0][1] for _, body in answers)
    assert await runs_of(whole, session_id) == 2


async def test_a_failed_key_with_another_body_is_refused_still(whole: Whole):
    session_id = await whole.store.create()
    await failed(whole, session_id, BUSY)

    status, problem = await post(whole, session_id, "Ho")

    assert (status, problem["code"]) == (422, "conflict")


async def test_where_the_conversation_went_on_a_failed_message_is_sent_at_its_end(whole: Whole):
    session_id = await whole.store.create()
    await failed(whole, session_id, BUSY)
    await whole.store.reply(session_id, "Something else", "Yes")

    posting = asyncio.create_task(post(whole, session_id))
    run = await begun(whole, session_id, 3)
    await whole.answered(run.id, "Hello")
    status, _ = await posting

    assert status == 201
    assert await whole.shown(session_id) == ["Hi", "", "Something else", "Yes", "Hi", "Hello"]


async def test_a_failed_message_sent_again_on_a_socket_is_answered_anew(whole: Whole):
    session_id = await whole.store.create()
    ws = await whole.stage.open(NATIVE)
    message = {"type": "send", "session_id": session_id, "content": "Hi", "client_id": "c1"}
    await ws.send_json(message)
    _, start = await frames(ws, 2)
    await whole.answered(start["run_id"], "", status="failed", error=BUSY)
    error = await frame(ws)

    await ws.send_json(message)
    resync, again = await frames(ws, 2)
    await whole.answered(again["run_id"], "Hello")
    rest = await frames(ws, 2)

    assert (error["type"], error["retryable"]) == ("error", True)
    assert [m["content"] for m in resync["messages"]] == ["Hi"]
    assert (again["type"], again["client_id"]) == ("message_start", "c1")
    assert again["user_message"] == start["user_message"]
    assert again["assistant_message_id"] != start["assistant_message_id"]
    assert kinds(rest) == ["chunk", "message_complete"]


async def test_a_failed_channels_message_sent_again_is_answered_anew(whole: Whole):
    session_id = await whole.store.create()
    ws = await whole.stage.open(f"/ws/ai-chat/session/{session_id}/")
    message = {"type": "send_message", "message": "Hi", "client_id": "c1"}
    await ws.send_json(message)
    _, sent, _ = await frames(ws, 3)
    run = await begun(whole, session_id)
    await whole.answered(run.id, "", status="failed", error=BUSY)
    await frame(ws)

    await ws.send_json(message)
    events = await frames(ws, 2)
    run = await begun(whole, session_id, 2)
    await whole.answered(run.id, "Hello")
    rest = await frames(ws, 2)

    assert sorted(kinds(events)) == ["ai_typing", "user_message"]
    assert sent in events
    assert kinds(rest) == ["ai_message_chunk", "ai_message_complete"]
    assert await whole.shown(session_id) == ["Hi", "Hello"]


@pytest.mark.parametrize("kind", ["edit", "regenerate"])
async def test_a_failed_edit_or_regeneration_runs_again_with_its_key(whole: Whole, kind: str):
    session_id = await whole.store.create()
    old = await whole.store.reply(session_id, "u1", "a1")
    message = old.user_message_id if kind == "edit" else old.assistant_message_id
    body = {"content": "u1'"} if kind == "edit" else None

    async def ask() -> Any:
        path, key = f"/messages/{message}/{kind}", {"Idempotency-Key": "k"}
        return await whole.call("POST", path, json=body, headers=key)

    sending = asyncio.create_task(ask())
    run = await begun(whole, session_id, 2)
    await whole.answered(run.id, "", status="failed", error=BUSY)
    first = await sending
    sending = asyncio.create_task(ask())
    run = await begun(whole, session_id, 3)
    await whole.answered(run.id, "Better")
    second, third = await sending, await ask()

    assert (first[0], second[0], third) == (503, 201, second)
    assert await whole.shown(session_id) == ["u1'" if kind == "edit" else "u1", "Better"]
    assert await runs_of(whole, session_id) == 3
