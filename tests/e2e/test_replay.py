"""What live clients read while a worker was killed can be watched again, and run again."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from shared.commands import GetJob
from shared.events import RunClaimed
from shared.ids import LOCAL_USER
from shared.store_client import StoreClient
from tests.support.command_line import run_command
from tests.support.log_checks import read_runs, wait_until_all_ended, wait_until_ended
from tests.support.native_client import Reply
from tests.support.running import Running, short_lease

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEADLINE = 60.0


def joined(frames: list[dict[str, Any]], cursor: str) -> list[dict[str, Any]]:
    """Frames without what depends on how often a client got to read: pieces are put together."""
    found: list[dict[str, Any]] = []
    for frame in frames:
        frame = {key: value for key, value in frame.items() if key != cursor}
        piece = frame["type"] in ("chunk", "ai_message_chunk") and frame["content"]
        if piece and found and found[-1]["type"] == frame["type"] and found[-1]["content"]:
            frame["content"] = found.pop()["content"] + frame["content"]
        found.append(frame)
    return found


def apart(frames: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The frames that are no text, in their order, and all of the text.

    Facts and text go two ways to a client, so where between two pieces of a text
    another message falls is told by clocks (docs/replay.md).
    """
    others = [frame for frame in frames if frame["type"] != "chunk"]
    return others, "".join(frame["content"] for frame in frames if frame["type"] == "chunk")


async def watch(
    on: Running,
    path: str,
    subscribe: dict[str, str] | None,
    greeted: asyncio.Event | None = None,
    *,
    replies: int = 1,
) -> list[dict[str, Any]]:
    """Everything that a socket says up to the end of so many replies."""
    found: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as http, http.ws_connect(on.system.url + path) as ws:
        if subscribe is not None:
            await ws.send_json(subscribe)
        async with asyncio.timeout(DEADLINE):
            async for message in ws:
                found.append(json.loads(message.data))
                if greeted is not None:
                    greeted.set()
                replies -= found[-1]["type"] in ("message_complete", "ai_message_complete")
                if not replies:
                    return found
    raise AssertionError(found)


@short_lease
async def test_a_reply_whose_worker_was_killed_is_replayed_in_two_dialects_as_it_was_read(
    own_natterlog: Running,
):
    session_id = await own_natterlog.client.session()
    subscribe = {"type": "subscribe", "session_id": session_id}
    paths = {"/api/v1/chat/ws": subscribe, f"/ws/ai-chat/session/{session_id}/": None}
    greeted = [asyncio.Event() for _ in paths]
    sockets = [
        asyncio.create_task(watch(own_natterlog, path, first, greeting))
        for (path, first), greeting in zip(paths.items(), greeted, strict=True)
    ]
    await asyncio.gather(*(greeting.wait() for greeting in greeted))
    reply = Reply()
    await own_natterlog.client.start(reply, session_id, "tokens=60 rate=30")
    await own_natterlog.client.follow(reply, until=80)
    worker = own_natterlog.system.one("llm-worker")
    await worker.kill()
    await worker.start()
    await own_natterlog.client.follow(reply)
    native, channels = await asyncio.gather(*sockets)
    await wait_until_all_ended(own_natterlog.bus)

    replayed: dict[str, list[dict[str, Any]]] = {}
    for dialect in ("assistant-socket", "channels"):
        code, out, err = await run_command(
            own_natterlog, "replay", reply.run_id, "--speed", "max", "--dialect", dialect
        )
        assert (code, err) == (0, "")
        replayed[dialect] = [json.loads(line) for line in out.splitlines()]
    again = await watch(
        own_natterlog, f"/api/v1/chat/ws?replay={reply.run_id}&speed=max", subscribe
    )

    assert reply.resets == 1
    assert joined(replayed["channels"], "") == joined(channels, "")
    assert joined(replayed["assistant-socket"][1:], "cursor") == joined(native[1:], "cursor")
    assert again == replayed["assistant-socket"]


async def test_other_branches_ratings_and_waiting_messages_are_replayed_as_they_were_told(
    natterlog: Running,
):
    client = natterlog.client
    session_id = await client.session()
    subscribed = asyncio.Event()
    subscribe = {"type": "subscribe", "session_id": session_id}
    path = "/api/v1/chat/ws"
    watching = asyncio.create_task(watch(natterlog, path, subscribe, subscribed, replies=5))
    await asyncio.wait_for(subscribed.wait(), DEADLINE)
    first = await client.send(session_id, "One tokens=3")
    second = await client.send(session_id, "Two tokens=3")
    assert first.end is not None
    reply = first.end["message"]["id"]
    status, answer = await client.call("POST", f"/messages/{reply}/regenerate")
    assert status == 201, answer
    await client.call("PUT", f"/messages/{reply}/feedback", json={"rating": "up", "comment": "!"})
    branch = {"message_id": (second.end or {})["message"]["id"]}
    status, answer = await client.call("PUT", f"/sessions/{session_id}/active", json=branch)
    assert status == 200, answer
    slow, waiting = Reply(), Reply()
    await client.start(slow, session_id, "Three tokens=30 rate=30")
    await client.start(waiting, session_id, "Four tokens=3")
    await client.call("PUT", f"/messages/{reply}/feedback", json={"rating": None})
    live = await watching

    played = await run_command(
        natterlog, "replay", session_id, "--speed", "max", "--dialect", "assistant-socket"
    )

    replayed = [json.loads(line) for line in played.out.splitlines()]
    assert (played.code, played.err) == (0, "")
    shown = [frame["messages"] for frame in live if frame["type"] == "resync"]
    assert [[message["content"][:4] for message in each][::2] for each in shown] == [
        ["One "],
        ["One "],
        ["One ", "Two "],
        ["One ", "Two ", "Thre"],
    ]
    assert shown[-1][-1]["status"] == "waiting"
    assert apart(joined(replayed[1:], "cursor")) == apart(joined(live[1:], "cursor"))


async def test_a_recorded_model_answers_with_the_recorded_faults_and_asks_no_provider(
    natterlog: Running,
):
    old = await natterlog.client.session()
    original = await natterlog.client.send(old, "tokens=12 rate=60 fault=drop@6x1")
    calls = len(natterlog.fake.seen)

    new = await natterlog.client.session(model=f"recorded/{original.run_id}@max")
    again = await natterlog.client.send(new, "Whatever.")

    assert (again.text, again.resets) == (original.text, original.resets) == (original.text, 1)
    assert len(natterlog.fake.seen) == calls
    runs = await read_runs(natterlog.bus)
    first, second = (runs[run_id].claims[1].fact for run_id in (original.run_id, again.run_id))
    assert isinstance(first, RunClaimed)
    assert isinstance(second, RunClaimed)
    assert first.previous is not None
    assert second.previous is not None
    assert second.previous.text == first.previous.text
    assert second.previous.fault == first.previous.fault
    assert first.previous.fault is not None


async def test_a_reply_is_run_again_beside_its_session_with_the_same_prompt(natterlog: Running):
    session_id = await natterlog.client.session(system_prompt="Be kind.", temperature=0.5)
    await natterlog.client.send(session_id, "The first. tokens=3")
    reply = await natterlog.client.send(session_id, "The second. tokens=4")
    before = await natterlog.client.call("GET", f"/messages/{session_id}")
    listed = await natterlog.client.call("GET", "/sessions")
    natterlog.fake.reset()

    code, out, _ = await run_command(
        natterlog, "rerun", reply.run_id, "--temperature", "0", "--json"
    )

    assert code == 0
    diff = json.loads(out)
    (seen,) = natterlog.fake.seen
    assert seen.message == "The second. tokens=4"
    assert [m["role"] for m in seen.body["messages"]] == ["system", "user", "assistant", "user"]
    assert (seen.body["temperature"], seen.body["messages"][0]["content"]) == (0, "Be kind.")
    assert diff["old"]["text"] == reply.text
    assert "".join(p["text"] for p in diff["words"] if p["kind"] != "gone") == diff["new"]["text"]
    assert await natterlog.client.call("GET", f"/messages/{session_id}") == before
    assert await natterlog.client.call("GET", "/sessions") == listed
    _, new = await natterlog.client.call("GET", f"/sessions/{diff['new_session']}")
    assert (new["mode"], new["temperature"], new["message_count"]) == ("adhoc", 0, 2)


@pytest.mark.parametrize("kind", ["document", "content"])
async def test_a_job_is_done_again_beside_the_old_one(natterlog: Running, kind: str):
    run_id = await a_job(natterlog, kind)
    (before,) = (await wait_until_ended(natterlog.bus, run_id)).finals
    natterlog.fake.reset()

    code, out, err = await run_command(natterlog, "rerun", run_id, "--temperature", "0", "--json")

    assert code == 0, err
    diff = json.loads(out)
    seen = natterlog.fake.seen[0]
    (again,) = (await wait_until_ended(natterlog.bus, diff["new_run"])).finals
    assert ("Some words." in seen.message) == (kind == "document")
    assert seen.body["temperature"] == 0
    assert diff["old"]["text"] == before.text
    assert diff["new"]["text"] == again.text
    assert diff["new"]["status"] == diff["old"]["status"]
    assert diff["new_session"] != diff["old_run"]


async def a_job(natterlog: Running, kind: str) -> str:
    """A job of that kind that was just accepted; answers its run."""
    async with aiohttp.ClientSession(natterlog.system.url) as http:
        if kind == "document":
            form = aiohttp.FormData({"prompt": "What is it? tokens=4"})
            form.add_field("file", b"Some words.", filename="notes.txt")
            async with http.post("/api/upload", data=form) as answer:
                return (await answer.json())["data"]["job_id"]
        topic = {"topic": "Tea", "query": "tokens=4", "platform": "Twitter"}
        async with http.post("/chat/start", json=topic) as answer:
            session_id = (await answer.json())["session_id"]
    found = await StoreClient(natterlog.bus).ask(GetJob(user_id=LOCAL_USER, session_id=session_id))
    return found.job.run.id


async def test_what_cannot_be_replayed_or_run_again_is_said_in_a_line(natterlog: Running):
    session_id = await natterlog.client.session()
    reply = await natterlog.client.send(session_id, "tokens=3")

    results = [
        await run_command(natterlog, "replay", "nothing"),
        await run_command(natterlog, "replay", reply.run_id, "--speed", "fast"),
        await run_command(natterlog, "replay", reply.run_id, "--dialect", "documents"),
        await run_command(natterlog, "replay", reply.run_id, "--from", "nowhere"),
        await run_command(natterlog, "rerun", session_id),
        await run_command(natterlog, "rerun", reply.run_id, "--temperature", "3"),
    ]

    assert [code for code, _, _ in results] == [3, 1, 1, 1, 1, 2]
    assert [out for _, out, _ in results] == [""] * 6
    starts = [err.splitlines()[-1].split(":")[0] for _, _, err in results]
    assert starts == ["natterlog replay"] * 4 + ["natterlog rerun"] * 2
