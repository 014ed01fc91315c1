"""A session's log as its owner reads it: from the start or a place, to its end or further."""

import asyncio
import json
from typing import Any

import pytest

from tests.contract.conftest import Whole
from tests.support.absent import ABSENT_ID
from tests.support.native_client import events_of
from tests.support.stage import DEADLINE

URL = "/api/v1/chat/sessions/{}/events"


async def lines(whole: Whole, session_id: str, query: str = "") -> list[dict[str, Any]]:
    async with whole.stage.http.get(URL.format(session_id) + query) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_each_fact_is_a_line_with_its_place_in_the_log(whole: Whole):
    session_id = await whole.stage.session(title="T")
    run = await whole.store.reply(session_id, "u1", "a1")

    facts = await lines(whole, session_id)

    assert [fact["type"] for fact in facts] == ["session.created", "todo.chat", "claim", "final"]
    user = whole.store.user
    assert facts[0]["subject"] == f"evt.{user}.{session_id}._.session.created"
    assert facts[3]["subject"] == f"evt.{user}.{session_id}.{run.id}.final"
    assert [fact["seq"] for fact in facts] == sorted(fact["seq"] for fact in facts)
    assert facts[3]["at"] == facts[3]["fact"]["at"]
    assert facts[3]["fact"]["text"] == "a1"


async def test_it_begins_at_a_sequence_or_behind_a_cursor(whole: Whole):
    session_id = await whole.stage.session()
    await whole.store.reply(session_id, "u1", "a1")
    everything = await lines(whole, session_id)
    cursors: list[str] = []
    async with whole.stage.http.get(
        URL.format(session_id), headers={"Accept": "text/event-stream"}
    ) as answer:
        async for event, cursor in events_of(answer):
            assert event == everything[len(cursors)]
            cursors.append(cursor)

    from_seq = await lines(whole, session_id, f"?from={everything[2]['seq']}")
    from_cursor = await lines(whole, session_id, f"?from={cursors[1]}")
    from_elsewhere = await lines(whole, session_id, "?from=000000000000-3-0-0")
    from_end = await lines(whole, session_id, f"?from={cursors[-1]}")

    assert from_seq == from_cursor == everything[2:]
    assert from_elsewhere == everything
    assert from_end == []


async def test_it_is_the_same_out_of_the_cold_log(whole: Whole):
    session_id = await whole.stage.session()
    for number in range(30):  # more than a feed keeps
        await whole.store.reply(session_id, f"u{number}", "a")
    hot = await lines(whole, session_id)

    await whole.store.store.hot.drop_before(whole.store.store.archive.archived + 1)

    assert len(hot) == 91
    assert await lines(whole, session_id) == hot


async def test_whoever_follows_is_told_what_happens_until_the_session_goes(whole: Whole):
    session_id = await whole.stage.session()

    async def follow() -> list[str]:
        async with whole.stage.http.get(URL.format(session_id) + "?follow=true") as answer:
            kinds: list[str] = []
            async for line in answer.content:
                kinds.append(json.loads(line)["type"])
                if len(kinds) == 1:
                    began.set()
            return kinds

    began = asyncio.Event()
    following = asyncio.create_task(follow())
    async with asyncio.timeout(DEADLINE):
        await began.wait()
        await whole.store.reply(session_id, "u1", "a1")
        await whole.call("PATCH", f"/sessions/{session_id}", json={"title": "T"})
        await whole.call("DELETE", f"/sessions/{session_id}")
        kinds = await following

    wanted = ["session.created", "todo.chat", "claim", "final", "session.updated"]
    assert kinds == [*wanted, "session.deleted"]


@pytest.mark.parametrize(
    ("query", "path"), [("from=x", "$.from"), ("from=1.5", "$.from"), ("follow=7", "$.follow")]
)
async def test_a_place_that_is_none_is_refused(whole: Whole, query: str, path: str):
    session_id = await whole.stage.session()

    status, problem = await whole.call("GET", f"/sessions/{session_id}/events?{query}")

    assert (status, problem["path"]) == (400, path)


@pytest.mark.parametrize("session_id", [ABSENT_ID, "no-id", "%2A"])
async def test_there_is_no_log_of_what_is_not_there(whole: Whole, session_id: str):
    assert (await whole.call("GET", f"/sessions/{session_id}/events"))[0] == 404
