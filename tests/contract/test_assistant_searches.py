"""The native API's searches, and what calls came to, as clients ask for them."""

from typing import Any

import pytest

from tests.contract.conftest import Whole


async def test_hits_name_their_session_and_message_and_show_the_words(whole: Whole):
    session_id = await whole.stage.session()
    run = await whole.store.reply(session_id, "Where is the cat?", "On the roof.")

    status, page = await whole.call("GET", "/search?q=cat")

    message = (await whole.call("GET", f"/messages/{session_id}"))[1]["items"][0]
    assert status == 200
    assert page == {
        "items": [
            {
                "session_id": session_id,
                "message_id": run.user_message_id,
                "snippet": "Where is the cat?",
                "created_at": message["created_at"],
            }
        ],
        "next_cursor": None,
        "total": 1,
    }


async def test_a_search_goes_on_from_its_cursor_and_forgets_deleted_sessions(whole: Whole):
    sessions = [await whole.stage.session() for _ in range(3)]
    for session_id in sessions:
        await whole.store.reply(session_id, "the cat", "yes")

    _, first = await whole.call("GET", "/search?q=cat&limit=2")
    _, second = await whole.call("GET", f"/search?q=cat&limit=2&cursor={first['next_cursor']}")
    _, numbered = await whole.call("GET", "/search?q=cat&page=2&page_size=2")
    await whole.call("DELETE", f"/sessions/{sessions[0]}")
    _, left = await whole.call("GET", "/search?q=cat")

    found = [hit["session_id"] for hit in first["items"] + second["items"]]
    assert found == sessions[::-1]
    assert second["next_cursor"] is None
    assert numbered["items"] == second["items"]
    assert [hit["session_id"] for hit in left["items"]] == sessions[:0:-1]


@pytest.mark.parametrize(
    "query", ["", "?q=", "?q=%00", "?q=cat%00", "?q=%22%22", "?q=" + "x" * 1001]
)
async def test_a_search_for_nothing_is_a_bad_request(whole: Whole, query: str):
    status, problem = await whole.call("GET", f"/search{query}")

    assert (status, problem["path"]) == (400, "$.q")


@pytest.mark.parametrize(
    ("query", "wanted"), [("cursor=nothing", 404), ("limit=0", 400), ("limit=x", 400)]
)
async def test_a_page_that_is_none_is_refused(whole: Whole, query: str, wanted: int):
    assert (await whole.call("GET", f"/search?q=x&{query}"))[0] == wanted


@pytest.mark.parametrize("query", ["(", '"', "a AND", "NEAR(a b)", "*", "text:a", "-a", "^"])
async def test_no_query_is_a_failure(whole: Whole, query: str):
    status, _ = await whole.call("GET", "/search", params={"q": query})

    assert status in (200, 400)


async def test_a_nul_lists_no_sessions(whole: Whole):
    await whole.stage.session(title="Mine")

    status, problem = await whole.call("GET", "/sessions?q=%00")

    assert (status, problem["path"]) == (400, "$.q")


# -- usage ------------------------------------------------------------------------


async def spend(whole: Whole, session_id: str, **fields: Any) -> None:
    run = (await whole.store.send(session_id, "u")).run
    await whole.store.claim(run)
    await whole.store.end(run, "a", **fields)


async def test_usage_is_told_in_dollars_with_what_has_no_price(whole: Whole):
    session_id = await whole.stage.session()
    await spend(whole, session_id, provider="anthropic", model="claude", cost=1_500_000)
    await spend(whole, session_id, provider="ollama", model="llama")

    status, page = await whole.call("GET", "/usage?group_by=model")

    tokens = {"input_tokens": 3, "output_tokens": 5}
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    assert status == 200
    assert page["items"] == [
        {"model": "llama", "calls": 1, **tokens, **cached, "cost_usd": None}
        | {"unpriced_calls": 1, "unpriced_tokens": 8},
        {"model": "claude", "calls": 1, **tokens, **cached, "cost_usd": 0.0015}
        | {"unpriced_calls": 0, "unpriced_tokens": 0},
    ]
    assert page["totals"] == {
        "calls": 2,
        "input_tokens": 6,
        "output_tokens": 10,
        **cached,
        "cost_usd": 0.0015,
        "unpriced_calls": 1,
        "unpriced_tokens": 8,
    }
    assert (page["total"], page["next_cursor"]) == (2, None)


async def test_usage_of_deleted_sessions_stays_without_them(whole: Whole):
    kept, gone = await whole.stage.session(), await whole.stage.session()
    for session_id in (gone, kept):
        await spend(whole, session_id, provider="anthropic", model="claude", cost=1_000_000_000)
    await whole.call("DELETE", f"/sessions/{gone}")

    _, page = await whole.call("GET", "/usage?group_by=session")

    assert [(g["session_id"], g["cost_usd"]) for g in page["items"]] == [(kept, 1.0), (None, 1.0)]
    assert page["totals"]["cost_usd"] == 2.0


async def test_usage_can_be_asked_for_a_span_and_by_day(whole: Whole):
    await spend(whole, await whole.stage.session(), provider="demo", model="demo")

    _, all_days = await whole.call("GET", "/usage")
    (day,) = all_days["items"]
    _, none = await whole.call("GET", f"/usage?to={day['day']}")
    _, some = await whole.call("GET", f"/usage?from={day['day']}&to=2100-01-01T00:00:00%2B02:00")

    assert (none["items"], none["totals"]["calls"]) == ([], 0)
    assert some["items"] == all_days["items"]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("group_by=week", "$.group_by"),
        ("from=yesterday", "$.from"),
        ("to=2026-13-01", "$.to"),
        ("to=2026-02-30", "$.to"),
        ("from=0001-01-01T00:00:00%2B14:00", "$.from"),
        ("limit=0", "$.limit"),
        ("cursor=x", "$.cursor"),
    ],
)
async def test_usage_that_cannot_be_asked_for_is_named_by_its_place(
    whole: Whole, query: str, path: str
):
    status, problem = await whole.call("GET", f"/usage?{query}")

    assert (status, problem["path"]) == (400, path)
