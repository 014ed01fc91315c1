"""A reply that was cut goes on: the same message grows, and every client is told the same."""

import asyncio
import hashlib
import json
from typing import Any

import pytest

from shared.events import Fault, Thoughts
from shared.ids import new_id
from shared.records import Run
from tests.contract.conftest import Whole
from tests.support.absent import ABSENT_ID
from tests.support.native_client import events_of
from tests.support.stage import DEADLINE, frame, frames

CUT = "Once upon a"
WHOLE = "Once upon a midnight dreary"
Json = dict[str, Any]


async def a_cut_reply(whole: Whole, text: str = CUT, **fields: Any) -> Run:
    """The run of a reply that its limit of tokens cut."""
    session_id = await whole.stage.session(on_busy=fields.pop("on_busy", "queue"))
    return await whole.store.reply(
        session_id, "A story.", text, **{"stop_reason": "max_tokens", "model": "demo", **fields}
    )


def path_of(reply: Run) -> str:
    return f"/messages/{reply.assistant_message_id}/continue"


async def shown(whole: Whole, reply: Run) -> Json:
    """The reply as the list of messages has it."""
    _, page = await whole.call("GET", f"/messages/{reply.session_id}?branches=all")
    return next(m for m in page["items"] if m["id"] == reply.assistant_message_id)


async def next_run(whole: Whole, reply: Run) -> str:
    """The run that goes on with the reply."""
    query = f"SELECT id FROM runs WHERE assistant_message_id = '{reply.assistant_message_id}'"
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await whole.store.store.session_log.read(
                lambda connection: set(connection.exec_driver_sql(query).scalars())
            )
            if found - {reply.id}:
                return str(max(found - {reply.id}))
            await whole.store.next_fact()


async def streamed(whole: Whole, path: str, **options: Any) -> tuple[list[Json], list[str]]:
    """(events, cursors) of a stream, to its end."""
    method = options.pop("method", "POST")
    url = f"/api/v1/chat{path}"
    async with whole.stage.http.request(method, url, **options) as response:
        assert response.status == 200, await response.text()
        events = [each async for each in events_of(response)]
    return [event for event, _ in events], [cursor for _, cursor in events]


def text_of(events: list[Json]) -> str:
    """What a client has that puts the chunks together."""
    text = ""
    for event in events:
        text = "" if event["type"] == "reset" else text + event.get("content", "")
    return text


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def gone_on(whole: Whole, reply: Run, text: str = WHOLE, **fields: Any) -> list[Json]:
    """Go on with a reply to its end, as a worker does; answers what the stream told."""
    events: list[Json] = []
    run = reply
    url = f"/api/v1/chat{path_of(reply)}?stream=true"
    async with whole.stage.http.post(url) as response:
        assert response.status == 200, await response.text()
        async for event, _ in events_of(response):
            events.append(event)
            if event["type"] == "message_start":
                run = await whole.store.run(event["run_id"])
                await whole.store.write(run, await whole.store.claim(run), CUT)
            elif len(events) == 2:
                how = {"model": "demo", "stop_reason": "end_turn", **fields}
                await whole.store.end(run, text, **how)
    return events


# -- going on -----------------------------------------------------------------------


async def test_a_cut_reply_goes_on_and_its_message_grows(whole: Whole):
    reply = await a_cut_reply(whole)
    before = await shown(whole, reply)

    events = await gone_on(whole, reply)

    after = await shown(whole, reply)
    assert [e["type"] for e in events if e["type"] != "chunk"] == [
        "message_start",
        "message_complete",
    ]
    assert events[0]["assistant_message_id"] == reply.assistant_message_id
    assert events[0]["user_message"]["content"] == "A story."
    assert [e["content"] for e in events if e["type"] == "chunk"] == [CUT, WHOLE[len(CUT) :]]
    assert (events[-1]["sha256"], events[-1]["message"]) == (sha256(WHOLE), after)
    assert after == before | {
        "content": WHOLE,
        "tokens": 10,
        "run_id": events[0]["run_id"],
        "stop_reason": "end_turn",
    }
    assert await whole.shown(reply.session_id) == ["A story.", WHOLE]


async def test_without_a_stream_both_messages_come_when_it_has_ended(whole: Whole):
    reply = await a_cut_reply(whole)
    continuing = asyncio.create_task(whole.call("POST", path_of(reply)))

    await whole.answered(await next_run(whole, reply), WHOLE)

    status, turn = await continuing
    assert status == 201
    assert turn["user_message"]["content"] == "A story."
    assert turn["assistant_message"] == await shown(whole, reply)


async def test_a_reply_goes_on_as_often_as_it_is_cut(whole: Whole):
    reply = await a_cut_reply(whole)

    first = await gone_on(whole, reply, stop_reason="max_tokens")
    again = await whole.store.run(first[0]["run_id"])
    second = await gone_on(whole, again, f"{WHOLE}, while I pondered", stop_reason="max_length")

    assert (await shown(whole, reply))["tokens"] == 15
    assert text_of(second) == f"{WHOLE}, while I pondered"
    assert second[-1]["message"]["stop_reason"] == "max_length"


async def test_a_cancelled_reply_goes_on_from_where_it_was_stopped(whole: Whole):
    reply = await a_cut_reply(whole, stop_reason=None, status="cancelled")

    events = await gone_on(whole, reply)

    assert (events[-1]["message"]["status"], text_of(events)) == ("completed", WHOLE)


async def test_a_run_says_how_it_ended_and_has_the_whole_text(whole: Whole):
    reply = await a_cut_reply(whole)
    events = await gone_on(whole, reply)

    _, run = await whole.call("GET", f"/runs/{events[0]['run_id']}")

    assert (run["status"], run["stop_reason"], run["length"]) == ("completed", "end_turn", 27)
    assert (run["sha256"], run["usage"]["output_tokens"]) == (sha256(WHOLE), 5)


async def test_what_was_asked_for_with_the_reply_counts_for_its_continuation(whole: Whole):
    session_id = await whole.stage.session(model="demo")
    first = await whole.store.send(
        session_id, "A story.", model="other/model", temperature=0.1, max_tokens=3, system="Be Poe."
    )
    await whole.store.claim(first.run)
    await whole.store.end(first.run, CUT, stop_reason="max_tokens")
    continuing = asyncio.create_task(whole.call("POST", path_of(first.run)))

    run_id = await next_run(whole, first.run)

    query = f"SELECT turn FROM runs WHERE id = '{run_id}'"
    turn = json.loads(
        await whole.store.store.session_log.read(lambda c: c.exec_driver_sql(query).scalar_one())
    )
    wishes = ("model", "temperature", "max_tokens", "system", "content", "client_id")
    assert [turn[name] for name in wishes] == ["other/model", 0.1, 3, "Be Poe.", None, None]
    await whole.answered(run_id, WHOLE)
    await continuing


# -- ends that bring nothing --------------------------------------------------------


async def test_a_continuation_that_fails_leaves_the_message_as_it_was(whole: Whole):
    reply = await a_cut_reply(whole)
    before = await shown(whole, reply)
    fault = Fault(code="provider_error", message="It said no.", retryable=True)

    events = await gone_on(whole, reply, f"{CUT} mid", status="failed", error=fault)

    assert events[-1] == {
        "type": "error",
        "message": "It said no.",
        "code": "provider_error",
        "retryable": True,
    }
    assert await shown(whole, reply) == before
    again = await gone_on(whole, reply)
    assert text_of(again) == WHOLE


async def test_a_continuation_cancelled_in_its_middle_keeps_what_there_is(whole: Whole):
    reply = await a_cut_reply(whole)

    events = await gone_on(whole, reply, f"{CUT} mid", status="cancelled", stop_reason=None)

    after = await shown(whole, reply)
    assert (after["content"], after["status"], after["stop_reason"]) == (
        f"{CUT} mid",
        "cancelled",
        None,
    )
    assert (events[-1]["message"], text_of(events)) == (after, f"{CUT} mid")
    assert events[-1]["sha256"] == sha256(f"{CUT} mid")


@pytest.mark.parametrize("text", [CUT, ""])
async def test_one_that_is_cancelled_before_its_first_word_leaves_it_as_it_was(
    whole: Whole, text: str
):
    reply = await a_cut_reply(whole)
    before = await shown(whole, reply)

    events = await gone_on(whole, reply, text, status="cancelled", stop_reason=None)

    assert events[-1]["type"] == "message_complete"
    assert events[-1]["message"] == before == await shown(whole, reply)
    assert (text_of(events), events[-1]["sha256"]) == (CUT, sha256(CUT))
    url = f"/runs/{events[0]['run_id']}/stream"
    await gone_on(whole, reply)
    late, _ = await streamed(whole, url, method="GET")
    assert (text_of(late), late[-1]) == (CUT, events[-1])  # as it was, though it grew since


async def test_one_that_waits_and_is_cancelled_leaves_it_as_it_was(whole: Whole):
    reply = await a_cut_reply(whole)
    regenerating = asyncio.create_task(
        whole.call("POST", f"/messages/{reply.assistant_message_id}/regenerate")
    )
    async with asyncio.timeout(DEADLINE):
        while len(await unfinished(whole, reply.session_id)) < 1:
            await whole.store.next_fact()
    (busy,) = await unfinished(whole, reply.session_id)
    before = await shown(whole, reply)
    streaming = asyncio.create_task(streamed(whole, f"{path_of(reply)}?stream=true"))
    run_id = await next_run(whole, reply)

    await whole.call("POST", f"/runs/{run_id}/cancel")

    events, _ = await streaming
    assert (events[-1]["message"], text_of(events)) == (before, CUT)
    assert events[0]["user_message"]["status"] == "completed"
    await whole.answered(busy, "Another one.")
    await regenerating
    assert await whole.shown(reply.session_id) == ["A story.", "Another one."]


async def unfinished(whole: Whole, session_id: str) -> list[str]:
    query = f"SELECT id FROM runs WHERE session_id = '{session_id}' AND ended_at IS NULL"
    return await whole.store.store.session_log.read(
        lambda connection: list(connection.exec_driver_sql(query).scalars())
    )


# -- what cannot go on --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields", "sentence"),
    [
        (CUT, {"stop_reason": "end_turn"}, "This reply is complete."),
        (CUT, {"stop_reason": None}, "This reply is complete."),
        (CUT, {"stop_reason": "refusal"}, "This reply is complete."),
        (CUT, {"status": "failed"}, "This reply failed; ask for it anew instead."),
        ("", {"status": "cancelled"}, "There is nothing here to go on from"),
    ],
)
async def test_a_reply_that_was_not_cut_cannot_go_on(
    whole: Whole, text: str, fields: Json, sentence: str
):
    reply = await a_cut_reply(whole, text, **fields)

    status, problem = await whole.call("POST", path_of(reply))

    assert (status, problem["code"]) == (409, "conflict")
    assert problem["detail"].startswith(sentence)
    assert await unfinished(whole, reply.session_id) == []


async def test_only_the_last_message_of_a_branch_can_go_on_and_only_a_reply(whole: Whole):
    reply = await a_cut_reply(whole)
    following = await whole.store.reply(reply.session_id, "And then?", CUT)

    refused = await whole.call("POST", path_of(reply))
    question = await whole.call("POST", f"/messages/{following.user_message_id}/continue")

    assert (refused[0], question[0]) == (409, 409)
    assert refused[1]["detail"].startswith("The conversation went on after this reply")
    assert question[1]["detail"] == "Only a reply can go on; this message is yours."


async def test_a_reply_of_another_branch_goes_on_and_is_the_active_one_then(whole: Whole):
    reply = await a_cut_reply(whole)
    regenerating = asyncio.create_task(
        whole.call("POST", f"/messages/{reply.assistant_message_id}/regenerate")
    )
    async with asyncio.timeout(DEADLINE):
        while not (found := await unfinished(whole, reply.session_id)):
            await whole.store.next_fact()
    await whole.answered(found[0], "Another one.")
    await regenerating

    await gone_on(whole, reply)

    assert await whole.shown(reply.session_id) == ["A story.", WHOLE]


async def test_two_at_once_are_one_and_a_refusal(whole: Whole):
    reply = await a_cut_reply(whole)
    continuing = [asyncio.create_task(whole.call("POST", path_of(reply))) for _ in range(2)]

    await whole.answered(await next_run(whole, reply), WHOLE)

    answers = sorted(await asyncio.gather(*continuing), key=lambda answer: answer[0])
    assert [status for status, _ in answers] == [201, 409]
    assert answers[0][1]["assistant_message"]["content"] == WHOLE
    assert answers[1][1]["detail"] in (
        "This reply is being written; try again when it is complete.",
        "This reply is complete.",
    )


async def test_two_at_once_with_one_key_are_one_turn(whole: Whole):
    reply = await a_cut_reply(whole)
    key = {"Idempotency-Key": new_id()}
    continuing = [
        asyncio.create_task(whole.call("POST", path_of(reply), headers=key)) for _ in range(2)
    ]

    await whole.answered(await next_run(whole, reply), WHOLE)

    (one, first), (other, second) = await asyncio.gather(*continuing)
    again = await whole.call("POST", path_of(reply), headers=key)
    assert (one, other, first) == (201, 201, second)
    assert again == (201, first)
    elsewhere = await a_cut_reply(whole)
    assert (await whole.call("POST", path_of(elsewhere), headers=key))[0] == 422


@pytest.mark.parametrize("message_id", ["nonsense", ABSENT_ID])
async def test_what_is_not_there_cannot_go_on(whole: Whole, message_id: str):
    status, problem = await whole.call("POST", f"/messages/{message_id}/continue")

    assert (status, problem["code"]) == (404, "not_found")


async def test_a_session_that_takes_no_messages_takes_no_continuation(whole: Whole):
    reply = await a_cut_reply(whole)
    await whole.call("PATCH", f"/sessions/{reply.session_id}", json={"status": "inactive"})

    status, problem = await whole.call("POST", path_of(reply))

    assert (status, problem["detail"]) == (
        409,
        "This session is inactive; make it active to go on with it.",
    )


# -- busy sessions ------------------------------------------------------------------


async def busy_beside(whole: Whole, reply: Run) -> tuple[str, "asyncio.Task[tuple[int, Any]]"]:
    """A sibling of the reply that is being written: its run, and who waits for it."""
    regenerating = asyncio.create_task(
        whole.call("POST", f"/messages/{reply.assistant_message_id}/regenerate")
    )
    async with asyncio.timeout(DEADLINE):
        while not (found := await unfinished(whole, reply.session_id)):
            await whole.store.next_fact()
    return found[0], regenerating


async def test_a_continuation_waits_its_turn_in_a_busy_session(whole: Whole):
    reply = await a_cut_reply(whole)
    busy, regenerating = await busy_beside(whole, reply)
    continuing = asyncio.create_task(whole.call("POST", path_of(reply)))
    run_id = await next_run(whole, reply)
    waiting = await whole.store.run(run_id)

    await whole.answered(busy, "Another one.")
    await whole.store.until(run_id, lambda run: run.last_seq > waiting.last_seq)
    await whole.answered(run_id, WHOLE)

    assert (await regenerating)[0] == 201
    assert (await continuing)[1]["assistant_message"] == await shown(whole, reply)
    assert await whole.shown(reply.session_id) == ["A story.", WHOLE]


async def test_a_continuation_does_not_go_before_a_message_that_waits(whole: Whole):
    reply = await a_cut_reply(whole)
    busy, regenerating = await busy_beside(whole, reply)
    await whole.store.send(reply.session_id, "And then?")

    status, problem = await whole.call("POST", path_of(reply))

    assert status == 409
    assert problem["detail"].startswith("The conversation went on after this reply")
    await whole.answered(busy, "Another one.")
    await regenerating


async def test_a_busy_session_may_reject_it_or_be_interrupted(whole: Whole):
    reply = await a_cut_reply(whole, on_busy="reject")
    busy, regenerating = await busy_beside(whole, reply)
    rejected = await whole.call("POST", path_of(reply))
    await whole.call("PATCH", f"/sessions/{reply.session_id}", json={"on_busy": "interrupt"})

    continuing = asyncio.create_task(whole.call("POST", path_of(reply)))
    run_id = await next_run(whole, reply)
    waiting = await whole.store.run(run_id)
    await whole.store.until(run_id, lambda run: run.last_seq > waiting.last_seq)
    await whole.answered(run_id, WHOLE)

    assert rejected[0] == 409
    assert (await whole.store.run(busy)).status == "cancelled"
    assert (await continuing)[0] == 201
    await regenerating


# -- whoever looks on -----------------------------------------------------------------


async def test_sockets_see_the_whole_text_grow_again(whole: Whole):
    reply = await a_cut_reply(whole)
    native = await whole.stage.open("/api/v1/chat/ws")
    await native.send_json({"type": "subscribe", "session_id": reply.session_id})
    channels = await whole.stage.open(f"/ws/ai-chat/session/{reply.session_id}/")
    await frame(native)
    await frame(channels)

    await gone_on(whole, reply)

    seen = await frames(native, 3)
    while seen[-1]["type"] != "message_complete":
        seen.append(await frame(native))
    after = await shown(whole, reply)
    assert [seen[0]["type"], seen[1]["type"]] == ["resync", "message_start"]
    assert [m["content"] for m in seen[0]["messages"]] == ["A story.", CUT]
    assert (text_of(seen[1:]), seen[-1]["message"]) == (WHOLE, after)
    typing, *chunks = await frames(channels, 2)
    while chunks[-1]["type"] != "ai_message_complete":
        chunks.append(await frame(channels))
    assert typing["type"] == "ai_typing"
    assert chunks[0]["full_content"].startswith(CUT)
    assert chunks[-2]["full_content"] == WHOLE
    assert (chunks[-1]["message"]["id"], chunks[-1]["message"]["content"]) == (after["id"], WHOLE)


async def test_who_comes_in_its_middle_is_told_all_of_the_text_so_far(whole: Whole):
    reply = await a_cut_reply(whole)
    continuing = asyncio.create_task(whole.call("POST", path_of(reply)))
    run = await whole.store.run(await next_run(whole, reply))
    attempt = await whole.store.claim(run)
    await whole.store.write(run, attempt, f"{CUT} mid")

    socket = await whole.stage.open("/api/v1/chat/ws")
    await socket.send_json({"type": "subscribe", "session_id": reply.session_id})
    seen = await frames(socket, 3)
    await whole.store.end(run, WHOLE, model="demo")
    seen += await frames(socket, 2)

    types = ["subscribed", "message_start", "chunk", "chunk", "message_complete"]
    assert [event["type"] for event in seen] == types
    assert seen[1]["assistant_message_id"] == reply.assistant_message_id
    assert (seen[2]["content"], text_of(seen)) == (f"{CUT} mid", WHOLE)
    assert seen[-1]["message"] == (await continuing)[1]["assistant_message"]


async def test_a_stream_of_it_can_be_taken_up_from_any_cursor(whole: Whole):
    reply = await a_cut_reply(whole)
    await gone_on(whole, reply)
    run_id = (await shown(whole, reply))["run_id"]
    url = f"/runs/{run_id}/stream"
    events, cursors = await streamed(whole, url, method="GET")
    await whole.call(
        "PUT", f"/messages/{reply.assistant_message_id}/feedback", json={"rating": "up"}
    )

    for number, cursor in enumerate(cursors[:-1], start=1):
        rest, _ = await streamed(whole, url, method="GET", headers={"Last-Event-ID": cursor})
        assert rest[-1] == events[-1]
        assert text_of(events[:number]) + text_of(rest) == WHOLE


async def test_a_recording_of_it_is_what_was_told(whole: Whole):
    reply = await a_cut_reply(whole)
    await gone_on(whole, reply)
    run_id = (await shown(whole, reply))["run_id"]

    live, _ = await streamed(whole, f"/runs/{run_id}/stream", method="GET")
    replayed, _ = await streamed(whole, f"{path_of(reply)}?replay={run_id}&speed=max")

    assert (text_of(replayed), replayed[-1]) == (WHOLE, live[-1])
    assert replayed[0] == live[0]


# -- thoughts -----------------------------------------------------------------------


async def test_thoughts_are_apart_from_the_text(whole: Whole):
    thoughts = Thoughts(text="A raven, perhaps.", blocks=[{"signature": "s"}])
    reply = await a_cut_reply(whole, thoughts=thoughts)
    url = f"/runs/{reply.id}/stream"

    without, _ = await streamed(whole, url, method="GET")
    events, cursors = await streamed(whole, f"{url}?thoughts=1", method="GET")
    replayed, _ = await streamed(whole, f"{url}?thoughts=1&replay={reply.id}", method="GET")

    message = await shown(whole, reply)
    assert (message["content"], message["thoughts"]) == (CUT, "A raven, perhaps.")
    assert [event["type"] for event in without] == ["message_start", "chunk", "message_complete"]
    assert [event for event in events if event["type"] != "thought"] == without
    assert events[-2] == {"type": "thought", "content": "A raven, perhaps."}
    assert replayed == events
    headers = {"Last-Event-ID": cursors[-2]}
    rest, _ = await streamed(whole, f"{url}?thoughts=1", method="GET", headers=headers)
    assert rest == events[-2:]


async def test_a_message_is_streamed_with_its_thoughts(whole: Whole):
    session_id = await whole.stage.session()
    events: list[Json] = []
    body = {"session_id": session_id, "content": "A story."}
    url = "/api/v1/chat/messages?stream=true&thoughts=true"
    async with whole.stage.http.post(url, json=body) as response:
        async for event, _ in events_of(response):
            events.append(event)
            if event["type"] == "message_start":
                run = await whole.store.run(event["run_id"])
                await whole.store.claim(run)
                await whole.store.end(run, CUT, thoughts=Thoughts(text="Hm."))

    assert [event["type"] for event in events[-3:]] == ["chunk", "thought", "message_complete"]
    assert events[-1]["message"]["thoughts"] == "Hm."
