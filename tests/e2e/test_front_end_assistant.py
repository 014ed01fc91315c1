"""The assistant page, unchanged, before the whole system with Claude behind it.

The system is set up by the variables of the page's document and those alone, but for
the address of Claude.  What the document plans for later is there as well.
"""

import asyncio
import contextlib
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from PIL import Image

from tests.support.assistant_client import AssistantClient
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.log_checks import wait_until_all_ended
from tests.support.running import LEASE, Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLAUDE = "claude-3-5-sonnet-latest"
OTHER = "claude-haiku-5-5"
PERSONA = "You are Repruv AI, a helpful assistant for content creators and influencers..."
MODELS = {"anthropic": [CLAUDE, OTHER]}


def as_claude(fake: FakeProvider) -> dict[str, str]:
    return {
        "CLAUDE_API_KEY": "sk-ant-fake",
        "CLAUDE_MODEL": CLAUDE,
        "CLAUDE_MAX_TOKENS": "1024",
        "CLAUDE_CB_THRESHOLD": "5",
        "CLAUDE_CB_COOLDOWN": "60",
        "ANTHROPIC_BASE_URL": fake.url,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    async with running_system(models=MODELS, provided=as_claude, NATTERLOG_LEASE=LEASE) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def page(natterlog: Running) -> AsyncIterator[AssistantClient]:
    async with AssistantClient(f"{natterlog.system.url}/api/v1") as client:
        await client.start()
        yield client


def rows(natterlog: Running, query: str, *values: str) -> list[tuple[Any, ...]]:
    """What the tables hold, read beside the running system as an operator would."""
    path = natterlog.system.data_dir / "natterlog.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()


async def ids_of(page: AssistantClient) -> list[str]:
    """The ids of the active branch, oldest first."""
    await page.reload()
    return [message["id"] for message in page.messages]


# -- the conversation -----------------------------------------------------------------


async def test_a_reply_streams_in_and_is_there_after_a_reload(
    natterlog: Running, page: AssistantClient
):
    await page.send("Why has my subscriber count gone down? tokens=40 rate=100")
    shown, pieces = page.shown, page.pieces
    await page.reload()

    assert page.error == ""
    assert pieces > 5
    assert check_unspliced(shown[1][1]) == (natterlog.fake.seen[-1].tag, 40)
    assert page.shown == shown
    assert all({"role", "content", "created_at"} <= set(message) for message in page.messages)


async def test_claude_is_asked_as_the_document_says(natterlog: Running, page: AssistantClient):
    _, session = await page.call(
        "PATCH", f"/sessions/{page.session_id}", json={"system_prompt": PERSONA}
    )

    await page.send("Help me. tokens=3")

    request = natterlog.fake.seen[-1]
    assert request.api == "anthropic"
    assert "sk-ant-fake" in request.headers["authorization"]
    assert (request.body["model"], request.body["max_tokens"]) == (CLAUDE, 1024)
    assert session["temperature"] == 0.7
    assert "temperature" not in request.body  # Claude's present API takes none
    assert PERSONA in json.dumps(request.body["system"])


async def test_the_last_twenty_messages_are_the_context(natterlog: Running, page: AssistantClient):
    for number in range(11):
        await page.send(f"Number {number} tokens=2")

    sent = [content for _, content in page.shown[:-1]]
    prompt = [text_of(message) for message in natterlog.fake.seen[-1].body["messages"]]
    assert len(sent) == 21
    assert prompt == sent[-19:]  # of the twenty the first is Claude's own, where it may not begin


def text_of(message: dict[str, Any]) -> str:
    """The words of a message in a prompt."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def test_without_a_stream_both_messages_come_at_once(page: AssistantClient):
    body = {"session_id": page.session_id, "content": "tokens=8"}

    status, answer = await page.call("POST", "/messages", json=body)

    assert status == 201
    assert answer["user_message"]["content"] == "tokens=8"
    assert check_unspliced(answer["assistant_message"]["content"])[1] == 8


async def test_sessions_are_listed_by_pages_with_their_counts(page: AssistantClient):
    mine = {page.session_id}
    await page.send("tokens=2")
    for _ in range(4):
        await page.start()
        mine.add(page.session_id)

    sessions = await page.pages("/sessions", page_size=2)

    counts = {s["id"]: s["message_count"] for s in sessions if s["id"] in mine}
    assert sorted(counts.values()) == [0, 0, 0, 0, 2]
    assert {(s["title"], s["mode"], s["status"]) for s in sessions if s["id"] in mine} == {
        ("New Chat", "general", "active")
    }
    assert len({session["id"] for session in sessions}) == len(sessions)


async def test_a_long_history_is_read_page_by_page(page: AssistantClient):
    for number in range(4):
        await page.send(f"Number {number} tokens=2")
    shown = page.shown

    await page.reload(page_size=3)

    assert page.shown == shown
    assert len(shown) == 8


async def test_a_deleted_session_is_gone_with_its_messages(
    natterlog: Running, page: AssistantClient
):
    await page.send("tokens=3")

    status, _ = await page.call("DELETE", f"/sessions/{page.session_id}")

    assert status == 204
    for path in (f"/sessions/{page.session_id}", f"/messages/{page.session_id}"):
        assert (await page.call("GET", path))[0] == 404
    query = "SELECT count(*) FROM ai_chat_messages WHERE session_id = ?"
    assert rows(natterlog, query, page.session_id) == [(0,)]


async def test_several_lines_and_any_script_go_there_and_back(
    natterlog: Running, page: AssistantClient
):
    message = "First line\nzweite Zeile: naïve 日本語 🎯\ntokens=2"

    await page.send(message)
    await page.reload()

    assert page.shown[0] == ("user", message)
    assert natterlog.fake.seen[-1].message == message


# -- what goes wrong ------------------------------------------------------------------


async def test_a_failed_message_is_told_and_can_be_tried_again(
    natterlog: Running, page: AssistantClient
):
    await page.send("tokens=10 fail=400x1")
    failed = page.error

    await page.retry()

    assert failed.startswith("Failed to send message: ")
    assert page.error == ""
    assert check_unspliced(page.shown[-1][1])[1] == 10


async def test_a_worker_killed_in_mid_reply_starts_it_over_on_the_page(
    natterlog: Running, page: AssistantClient
):
    sending = page.sending("tokens=60 rate=40")
    async for _ in sending:
        if page.pieces > 5:
            break

    worker = natterlog.system.one("llm-worker")
    await worker.kill()
    await worker.start()
    async for _ in sending:
        pass

    assert page.error == ""
    assert check_unspliced(page.shown[-1][1]) == (natterlog.fake.seen[-1].tag, 60)


async def test_a_stream_that_stops_is_told_and_a_reload_has_the_whole_reply(
    natterlog: Running, page: AssistantClient
):
    sending = page.sending("tokens=60 rate=40")
    async for _ in sending:
        if page.pieces > 5:
            break

    gateway = natterlog.system.one("gateway")
    await gateway.kill()
    async for _ in sending:
        pass
    await gateway.start()
    error = page.error
    await wait_until_all_ended(natterlog.bus)
    await page.reload()

    assert error.startswith("Failed to send message")
    assert check_unspliced(page.shown[-1][1])[1] == 60


async def test_an_open_circuit_is_told_at_once_and_closes_after_its_cooldown():
    def few(fake: FakeProvider) -> dict[str, str]:
        return {**as_claude(fake), "CLAUDE_CB_THRESHOLD": "2", "CLAUDE_CB_COOLDOWN": "2"}

    async with (
        running_system(
            services=("store", "llm-worker", "gateway"),
            models=MODELS,
            provided=few,
            NATTERLOG_PROVIDER_FAILURES="1",
        ) as natterlog,
        AssistantClient(f"{natterlog.system.url}/api/v1") as page,
    ):
        await page.start()
        for number in range(2):
            await page.send(f"Number {number} fail=529x9")
        calls = len(natterlog.fake.seen)
        await page.send("tokens=3")
        refused, not_called = page.error, len(natterlog.fake.seen) == calls
        async with asyncio.timeout(30):
            while page.error:
                await page.retry()

    assert refused.startswith("Failed to send message")
    assert not_called
    assert check_unspliced(page.shown[-1][1])[1] == 3


async def test_a_user_may_send_120_messages_a_minute_and_is_told_when_it_is_too_much():
    async with (
        running_system(
            services=("store", "llm-worker", "gateway"),
            models=MODELS,
            provided=as_claude,
            NATTERLOG_MESSAGES_PER_MINUTE="",  # as nobody has set it
        ) as natterlog,
        AssistantClient(f"{natterlog.system.url}/api/v1") as page,
    ):
        await page.start()
        url = natterlog.client.url("/messages?stream=true")
        body = {"session_id": page.session_id, "content": "tokens=1"}
        async with natterlog.client.http.post(url, json=body) as answer:
            policy, left = answer.headers["RateLimit-Policy"], answer.headers["RateLimit"]

    assert policy == '"default";q=120;w=60'
    assert left.startswith('"default";r=119;')


# -- what is measured -----------------------------------------------------------------


async def test_tokens_latency_and_costs_are_in_the_tables_that_the_document_names(
    natterlog: Running, page: AssistantClient
):
    await page.send("tokens=12")
    reply = page.messages[-1]
    _, usage = await page.call("GET", "/usage?group_by=session")

    query = "SELECT role, tokens, latency_ms FROM ai_chat_messages WHERE session_id = ?"
    stored = {role: more for role, *more in rows(natterlog, query, page.session_id)}
    assert stored["assistant"] == [12, reply["latency_ms"]]
    assert reply["latency_ms"] >= 0
    assert set(stored) == {"user", "assistant"}
    query = "SELECT title, mode, status FROM ai_chat_sessions WHERE id = ?"
    assert rows(natterlog, query, page.session_id) == [("New Chat", "general", "active")]
    query = "SELECT model, output_tokens FROM api_usage_log WHERE session_id = ?"
    ((model, tokens),) = rows(natterlog, query, page.session_id)
    assert (CLAUDE in model, tokens) == (True, 12)
    (mine,) = [group for group in usage["items"] if group["session_id"] == page.session_id]
    assert (mine["calls"], mine["output_tokens"]) == (1, 12)


async def test_the_tables_have_every_column_of_the_document(natterlog: Running):
    columns = {
        table: {row[1] for row in rows(natterlog, f"PRAGMA table_info({table})")}
        for table in ("ai_chat_sessions", "ai_chat_messages", "api_usage_log")
    }

    assert columns["ai_chat_sessions"] >= {
        *("id", "user_id", "title", "context_tags", "system_prompt", "mode", "status"),
        *("created_at", "updated_at", "last_message_at"),
    }
    assert columns["ai_chat_messages"] >= {
        *("id", "session_id", "user_id", "role", "content", "tokens", "latency_ms", "created_at"),
    }
    assert columns["api_usage_log"]


# -- what its document plans for later ------------------------------------------------


async def test_pictures_and_files_can_be_attached(natterlog: Running, page: AssistantClient):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "orange").save(picture, "PNG")
    files: list[str] = []
    for name, data in (("cat.png", picture.getvalue()), ("notes.md", b"# Plans\nFewer cats.\n")):
        form = aiohttp.FormData()
        form.add_field("file", data, filename=name)
        status, file = await page.call("POST", "/files", data=form)
        assert status == 201, file
        files.append(file["id"])
    body = {"session_id": page.session_id, "content": "Look tokens=4", "attachments": files}

    status, answer = await page.call("POST", "/messages", json=body)

    assert status == 201
    assert answer["user_message"]["attachments"] == files
    parts = natterlog.fake.seen[-1].body["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image", "text"]
    assert "Fewer cats." in parts[1]["text"]


@pytest.mark.parametrize("form", ["pdf", "txt", "md", "json"])
async def test_a_conversation_can_be_exported(page: AssistantClient, form: str):
    await page.send("Tell me of zeppelins. tokens=5")
    reply = page.shown[-1][1]

    paper = await page.download(f"/sessions/{page.session_id}/export?format={form}")

    if form == "pdf":
        assert paper.startswith(b"%PDF-")
    else:
        assert reply.strip() in paper.decode()


async def test_conversations_are_searched_and_filtered(page: AssistantClient):
    await page.send("Where does the Wolpertinger live? tokens=4")
    (hit,) = (await page.call("GET", "/search?q=wolpertinger"))[1]["items"]
    await page.call("PATCH", f"/sessions/{page.session_id}", json={"title": "Bestiary"})
    _, filtered = await page.call("GET", "/sessions?q=bestiary&mode=general&status=active")

    assert hit["session_id"] == page.session_id
    assert "Wolpertinger" in hit["snippet"]
    assert [session["id"] for session in filtered["items"]] == [page.session_id]


async def test_a_message_is_edited_and_a_reply_written_anew(page: AssistantClient):
    await page.send("the old way tokens=4")
    message_id, reply_id = await ids_of(page)

    status, edited = await page.call(
        "POST", f"/messages/{message_id}/edit", json={"content": "the new way tokens=5"}
    )
    again, anew = await page.call(
        "POST", f"/messages/{edited['assistant_message']['id']}/regenerate"
    )
    await page.reload()

    assert (status, again) == (201, 201)
    assert edited["user_message"]["parent_id"] is None
    assert page.shown == [
        ("user", "the new way tokens=5"),
        ("assistant", anew["assistant_message"]["content"]),
    ]
    whole = await page.call("GET", f"/messages/{page.session_id}?branches=all")
    assert {message_id, reply_id, edited["assistant_message"]["id"]} < {
        message["id"] for message in whole[1]["items"]
    }


async def test_a_conversation_branches_and_forks(page: AssistantClient):
    await page.send("first tokens=3")
    first = page.shown
    message_id, reply_id = await ids_of(page)
    await page.call("POST", f"/messages/{message_id}/edit", json={"content": "edited tokens=3"})

    status, fork = await page.call(
        "POST", f"/sessions/{page.session_id}/fork", json={"message_id": reply_id}
    )
    await page.call("PUT", f"/sessions/{page.session_id}/active", json={"message_id": reply_id})
    await page.reload()
    switched = page.shown
    page.session_id = fork["id"]
    await page.reload()

    assert status == 201
    assert switched == first
    assert page.shown == first


async def test_another_persona_and_another_model_are_a_matter_of_the_session(
    natterlog: Running, page: AssistantClient
):
    first = {"system_prompt": "You are a critic.", "model": OTHER, "context_tags": ["a/b: strict"]}

    _, changed = await page.call("PATCH", f"/sessions/{page.session_id}", json=first)
    await page.send("tokens=3")

    body = natterlog.fake.seen[-1].body
    assert body["model"] == OTHER
    assert "You are a critic." in json.dumps(body["system"])
    assert changed["context_tags"] == ["a/b: strict"]


async def test_a_reply_is_rated(page: AssistantClient):
    await page.send("tokens=3")
    _, reply = await ids_of(page)

    status, rated = await page.call("PUT", f"/messages/{reply}/feedback", json={"rating": "down"})
    await page.reload()

    assert (status, rated["feedback"]["rating"]) == (200, "down")
    assert page.messages[-1]["feedback"]["rating"] == "down"


async def test_two_people_at_one_conversation_see_the_same_on_a_socket(
    natterlog: Running, page: AssistantClient
):
    url = f"{natterlog.system.url}/api/v1/chat/ws"
    async with page.browser.socket(url) as one, page.browser.socket(url) as two:
        for socket in (one, two):
            await socket.send_json({"type": "subscribe", "session_id": page.session_id})
            assert (await socket.receive_json(timeout=10))["type"] == "subscribed"
        message = {"type": "send", "session_id": page.session_id, "content": "tokens=10 rate=50"}
        await one.send_json(message)

        seen = [await until_complete(socket) for socket in (one, two)]

    assert seen[0] == seen[1]
    assert check_unspliced(seen[0])[1] == 10


async def until_complete(socket: aiohttp.ClientWebSocketResponse) -> str:
    """The reply's text, put together from its chunks."""
    text = ""
    while True:
        event = await socket.receive_json(timeout=10)
        text += event.get("content", "") if event["type"] == "chunk" else ""
        if event["type"] == "message_complete":
            assert event["message"]["content"] == text
            return text
