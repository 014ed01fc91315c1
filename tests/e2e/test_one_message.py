"""One message, all the way, as docs/walkthrough.md tells it."""

import hashlib

import pytest

from shared.events import RunClaimed, RunEnded, TodoChat
from tests.support.log_checks import read_runs
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_one_message_all_the_way(natterlog: Running):
    client = natterlog.client

    # The front end opens a session and sends a message; the reply streams back.
    session_id = await client.session(title="A first conversation")
    reply = await client.send(session_id, "Hello! tokens=12 rate=100")

    # What came over the wire is whole: start, pieces, end with the digest of the text.
    kinds = [event["type"] for event in reply.events]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_complete"
    assert set(kinds[1:-1]) == {"chunk"}
    reply.check()

    # The log tells the same story in three facts: accepted, claimed, ended.
    run = (await read_runs(natterlog.bus))[reply.run_id]
    todo, claim, final = run.links
    assert isinstance(todo.fact, TodoChat)
    assert isinstance(claim.fact, RunClaimed)
    assert isinstance(final.fact, RunEnded)
    assert todo.fact.turn.content == "Hello! tokens=12 rate=100"
    assert claim.fact.todo == todo.seq
    assert final.fact.attempt == claim.seq
    assert final.fact.text == reply.text
    assert final.fact.sha256 == hashlib.sha256(reply.text.encode()).hexdigest()
    assert final.fact.timeline[-1][1] <= final.fact.length

    # The store has projected it: two messages, the run, the count.
    status, page = await client.call("GET", f"/messages/{session_id}")
    assert status == 200
    question, answer = page["items"]
    assert (question["role"], question["content"]) == ("user", "Hello! tokens=12 rate=100")
    assert (answer["role"], answer["content"]) == ("assistant", reply.text)
    assert answer["parent_id"] == question["id"]
    _, shown = await client.call("GET", f"/runs/{reply.run_id}")
    assert (shown["status"], shown["sha256"]) == ("completed", final.fact.sha256)
    _, session = await client.call("GET", f"/sessions/{session_id}")
    assert session["message_count"] == 2


async def test_the_next_message_knows_what_was_said_before(natterlog: Running):
    session_id = await natterlog.client.session(system_prompt="Be brief.")
    first = await natterlog.client.send(session_id, "one tokens=3")

    await natterlog.client.send(session_id, "two tokens=3")

    messages = natterlog.fake.seen[-1].body["messages"]
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "Be brief."),
        ("user", "one tokens=3"),
        ("assistant", first.text),
        ("user", "two tokens=3"),
    ]


async def test_without_a_stream_the_answer_is_both_messages(natterlog: Running):
    session_id = await natterlog.client.session()

    status, body = await natterlog.client.call(
        "POST", "/messages", json={"session_id": session_id, "content": "tokens=5"}
    )

    assert status == 201
    assert body["user_message"]["content"] == "tokens=5"
    assert body["assistant_message"]["status"] == "completed"
    assert body["assistant_message"]["content"]
