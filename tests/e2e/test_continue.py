"""Replies that were cut go on, whatever is killed, stopped or refused meanwhile."""

import asyncio
import json
from typing import Any

import pytest

from services.llm_worker.tasks import GO_ON
from tests.e2e.test_replay import DEADLINE, joined, watch
from tests.support.command_line import run_command
from tests.support.fake_provider import check_unspliced
from tests.support.fake_script import Script
from tests.support.log_checks import check_run, wait_until_all_ended
from tests.support.native_client import Reply
from tests.support.running import Running, short_lease

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def a_cut_reply(natterlog: Running, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A session, and the reply in it that its limit of tokens cut."""
    session_id = await natterlog.client.session(**fields)
    reply = await natterlog.client.send(session_id, "A story. tokens=8 stop=length")
    assert reply.end is not None
    return session_id, reply.end["message"]


async def last_of(natterlog: Running, session_id: str) -> dict[str, Any]:
    _, page = await natterlog.client.call("GET", f"/messages/{session_id}")
    return page["items"][-1]


def check_whole(reply: Reply, cut: dict[str, Any]) -> int:
    """It begins with what was there, and goes on with one answer of the provider's, unspliced."""
    reply.check()
    assert reply.text.startswith(cut["content"])
    _, tokens = check_unspliced(reply.text[len(cut["content"]) :])
    return tokens


async def test_a_reply_that_its_limit_cut_goes_on_to_its_end(natterlog: Running):
    session_id, cut = await a_cut_reply(natterlog)
    natterlog.fake.next.append(Script(tokens=12, rate=200))
    reply = Reply()

    await natterlog.client.go_on(reply, cut["id"])
    await natterlog.client.follow(reply)

    assert check_whole(reply, cut) == 12
    assert reply.end is not None
    grown = await last_of(natterlog, session_id)
    assert grown == reply.end["message"]
    assert grown == cut | {
        "content": reply.text,
        "tokens": 20,
        "latency_ms": grown["latency_ms"],
        "stop_reason": "end_turn",
        "run_id": reply.run_id,
    }
    assert cut["stop_reason"] == "max_tokens"
    sent = natterlog.fake.seen[-1].body["messages"]
    assert [(m["role"], m["content"]) for m in sent] == [
        ("user", "A story. tokens=8 stop=length"),
        ("assistant", cut["content"]),
        ("user", GO_ON),
    ]
    status, run = await natterlog.client.call("GET", f"/runs/{reply.run_id}")
    assert (status, run["stop_reason"], run["length"]) == (200, "end_turn", len(reply.text))
    following = await natterlog.client.send(session_id, "And then? tokens=3")
    following.check()
    assert natterlog.fake.seen[-1].body["messages"][1]["content"] == reply.text


@short_lease
async def test_a_worker_killed_in_its_middle_starts_over_with_the_old_text(own_natterlog: Running):
    session_id, cut = await a_cut_reply(own_natterlog)
    own_natterlog.fake.default = Script(tokens=60, rate=30)
    reply = Reply()
    await own_natterlog.client.go_on(reply, cut["id"])
    await own_natterlog.client.follow(reply, until=len(cut["content"]) + 60)
    worker = own_natterlog.system.one("llm-worker")

    await worker.kill()
    await worker.start()
    await own_natterlog.client.follow(reply)

    assert (check_whole(reply, cut), reply.resets) == (60, 1)
    assert await last_of(own_natterlog, session_id) == (reply.end or {})["message"]
    runs = await wait_until_all_ended(own_natterlog.bus)
    check_run(runs[reply.run_id])
    assert runs[reply.run_id].previous(1).text.startswith(cut["content"])


async def test_a_cancel_in_its_middle_keeps_what_there_is_and_it_can_go_on(natterlog: Running):
    session_id, cut = await a_cut_reply(natterlog)
    natterlog.fake.next.append(Script(tokens=5000, rate=50))
    reply, again = Reply(), Reply()
    await natterlog.client.go_on(reply, cut["id"])
    await natterlog.client.follow(reply, until=len(cut["content"]) + 30)

    await natterlog.client.call("POST", f"/runs/{reply.run_id}/cancel")
    await natterlog.client.follow(reply)
    stopped = await last_of(natterlog, session_id)
    natterlog.fake.next.append(Script(tokens=4))
    await natterlog.client.go_on(again, cut["id"])
    await natterlog.client.follow(again)

    assert check_whole(reply, cut) > 1
    assert (stopped, stopped["status"]) == ((reply.end or {})["message"], "cancelled")
    assert (stopped["content"], stopped["stop_reason"]) == (reply.text, None)
    assert check_whole(again, stopped) == 4
    assert (again.end or {})["message"]["status"] == "completed"


async def test_a_cancel_before_its_first_word_leaves_the_reply_as_it_was(natterlog: Running):
    session_id, cut = await a_cut_reply(natterlog)
    natterlog.fake.next.append(Script(delay=60))
    reply = Reply()
    await natterlog.client.go_on(reply, cut["id"])
    await natterlog.client.follow(reply, until=len(cut["content"]))

    await natterlog.client.call("POST", f"/runs/{reply.run_id}/cancel")
    await natterlog.client.follow(reply)

    reply.check()
    assert (reply.end or {})["message"] == cut == await last_of(natterlog, session_id)


async def test_a_continuation_that_fails_leaves_the_reply_as_it_was(natterlog: Running):
    session_id, cut = await a_cut_reply(natterlog)
    natterlog.fake.default = Script(tokens=20, rate=200, fault="drop@6")
    reply = Reply()

    await natterlog.client.go_on(reply, cut["id"])
    await natterlog.client.follow(reply)

    assert (reply.end or {})["type"] == "error"
    assert reply.text.startswith(cut["content"])
    assert await last_of(natterlog, session_id) == cut
    runs = await wait_until_all_ended(natterlog.bus)
    check_run(runs[reply.run_id])
    assert runs[reply.run_id].final.status == "failed"


async def test_two_clicks_are_one_continuation(natterlog: Running):
    session_id, cut = await a_cut_reply(natterlog)
    natterlog.fake.default = Script(tokens=6, rate=50)
    path, key = f"/messages/{cut['id']}/continue", {"Idempotency-Key": cut["id"]}
    before = len(natterlog.fake.seen)

    same = await asyncio.gather(
        *(natterlog.client.call("POST", path, headers=key) for _ in range(3))
    )
    other = await natterlog.client.call("POST", path)

    assert [status for status, _ in same] == [201, 201, 201]
    assert same[0][1] == same[1][1] == same[2][1]
    assert (other[0], other[1]["detail"]) == (409, "This reply is complete.")
    assert len(natterlog.fake.seen) == before + 1
    assert await last_of(natterlog, session_id) == same[0][1]["assistant_message"]


async def test_a_session_in_which_a_reply_went_on_is_replayed_byte_for_byte(natterlog: Running):
    session_id = await natterlog.client.session()
    subscribe = {"type": "subscribe", "session_id": session_id}
    paths = {"/api/v1/chat/ws": subscribe, f"/ws/ai-chat/session/{session_id}/": None}
    greeted = [asyncio.Event() for _ in paths]
    sockets = [
        asyncio.create_task(watch(natterlog, path, first, greeting, replies=3))
        for (path, first), greeting in zip(paths.items(), greeted, strict=True)
    ]
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(greeting.wait() for greeting in greeted))
    first = await natterlog.client.send(session_id, "A story. tokens=8 stop=length")
    cut = (first.end or {})["message"]["id"]
    for tokens, stop in ((9, "length"), (5, "stop")):
        natterlog.fake.next.append(Script(tokens=tokens, rate=60, stop=stop))
        reply = Reply()
        await natterlog.client.go_on(reply, cut)
        await natterlog.client.follow(reply)
    live = await asyncio.gather(*sockets)

    replayed: list[list[dict[str, Any]]] = []
    for dialect in ("assistant-socket", "channels"):
        replay = await run_command(
            natterlog, "replay", session_id, "--speed", "max", "--dialect", dialect
        )
        assert (replay.code, replay.err) == (0, "")
        replayed.append([json.loads(line) for line in replay.out.splitlines()])

    assert joined(replayed[0][1:], "cursor") == joined(live[0][1:], "cursor")
    assert joined(replayed[1], "") == joined(live[1], "")
    ends = [event for event in live[0] if event["type"] == "message_complete"]
    assert {end["message"]["id"] for end in ends} == {cut}
    assert [len(end["message"]["content"].split()) for end in ends] == [8, 17, 22]


async def test_the_recorder_tells_of_it_and_the_tables_are_what_the_log_says(natterlog: Running):
    session_id, cut = await a_cut_reply(natterlog)
    natterlog.fake.next.append(Script(tokens=6))
    reply = Reply()
    await natterlog.client.go_on(reply, cut["id"])
    await natterlog.client.follow(reply)
    before = await last_of(natterlog, session_id)
    await wait_until_all_ended(natterlog.bus)

    shown = await run_command(natterlog, "runs", "show", reply.run_id, "--prompt", "--json")
    listed = await run_command(natterlog, "runs", "ls", "--session", session_id)
    summed = await run_command(
        natterlog, "runs", "sum", "--session", session_id, "--by", "stop", "--json"
    )
    checked = await run_command(natterlog, "rebuild", "--check")
    rebuilt = await run_command(natterlog, "rebuild")

    story, [prompt] = shown.json["story"], shown.json["prompts"]
    assert (story["continues"], story["end"]["stop_reason"]) == (len(cut["content"]), "end_turn")
    assert [part["text"] for part in prompt["parts"]] == [
        "A story. tokens=8 stop=length",
        cut["content"],
        GO_ON,
    ]
    assert "max_tokens, fake" in listed.out
    keys = sorted(json.loads(line)["key"] for line in summed.out.splitlines())
    assert keys == ["end_turn", "max_tokens"]
    assert (checked.code, "no differences" in checked.out) == (0, True)
    assert rebuilt.code == 0
    assert await last_of(natterlog, session_id) == before


async def test_a_run_that_went_on_is_run_again_whole(natterlog: Running):
    _, cut = await a_cut_reply(natterlog)
    natterlog.fake.next.append(Script(tokens=6))
    reply = Reply()
    await natterlog.client.go_on(reply, cut["id"])
    await natterlog.client.follow(reply)
    await wait_until_all_ended(natterlog.bus)

    rerun = await run_command(natterlog, "rerun", reply.run_id, "--json")

    assert rerun.code == 0, rerun.err
    assert "That run went on with a reply that was cut" in rerun.err
    assert rerun.json["old"]["text"] == reply.text
    assert check_unspliced(rerun.json["new"]["text"])[1] == 8
    assert (rerun.json["old"]["stop_reason"], rerun.json["new"]["stop_reason"]) == (
        "end_turn",
        "max_tokens",
    )


async def test_a_recorded_session_goes_on_where_the_recorded_one_went_on(natterlog: Running):
    session_id, cut = await a_cut_reply(natterlog)
    natterlog.fake.next.append(Script(tokens=6))
    reply, again = Reply(), Reply()
    await natterlog.client.go_on(reply, cut["id"])
    await natterlog.client.follow(reply)
    await wait_until_all_ended(natterlog.bus)
    calls = len(natterlog.fake.seen)

    recorded = await natterlog.client.session(model=f"recorded/{session_id}@max")
    first = await natterlog.client.send(recorded, "A story.")
    await natterlog.client.go_on(again, (first.end or {})["message"]["id"])
    await natterlog.client.follow(again)

    assert (first.text, (first.end or {})["message"]["stop_reason"]) == (
        cut["content"],
        "max_tokens",
    )
    assert (again.text, len(natterlog.fake.seen)) == (reply.text, calls)
