"""The Channels front end, unchanged, before the whole system with an LLM server behind it.

The system is set up by the variables of the front end's document, but for the server's
address.  What its socket survives is in ``tests/chaos/test_channels.py``.
"""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.support.channels_client import ChatClient
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.people import natterlog as command
from tests.support.running import Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "qwen3:8b"
MODELS = {"openai": [MODEL, "qwen3:1b"]}


def as_llm_server(fake: FakeProvider) -> dict[str, str]:
    return {
        "LLM_SERVER_URL": fake.url,
        "LLM_DEFAULT_MODEL": MODEL,
        "LLM_TIMEOUT": "30",
        "LLM_MAX_TOKENS": "2000",
        "LLM_TEMPERATURE": "0.7",
        "LLM_ENABLE_TOOLS": "true",
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    async with running_system(models=MODELS, provided=as_llm_server) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def chat(natterlog: Running) -> AsyncIterator[ChatClient]:
    async with ChatClient(natterlog.system.url) as client:
        yield client


# -- live -----------------------------------------------------------------------------


async def test_a_message_is_answered_live(natterlog: Running, chat: ChatClient):
    await chat.open(await chat.create_session(title="Live"))

    await chat.send("Hello, AI! tokens=40 rate=80")
    await chat.until(lambda: chat.typing)
    await chat.until(chat.replies)

    question, reply = chat.messages.values()
    assert (question["role"], question["content"]) == ("user", "Hello, AI! tokens=40 rate=80")
    assert check_unspliced(reply["content"]) == (natterlog.fake.seen[-1].tag, 40)
    assert set(reply) >= {"id", "role", "content", "created_at"}
    assert chat.chunks > 5
    assert [kind for kind, _ in chat.order] == ["user_message", "ai_message_complete"]
    assert (chat.typing, chat.errors, chat.resets) == (False, [], 0)


async def test_typing_is_seen_on_the_other_page_and_heartbeats_are_answered(
    natterlog: Running, chat: ChatClient
):
    await chat.open(await chat.create_session())
    async with ChatClient(natterlog.system.url) as other:
        await other.open(chat.session_id)

        await chat.send_frame("typing")
        await other.until(lambda: len(other.typing_signals) == 1)
        await chat.send_frame("stop_typing")
        await other.until(lambda: len(other.typing_signals) == 2)
        await chat.until(lambda: chat.pongs)

    assert [typing for _, typing in other.typing_signals] == [True, False]
    assert chat.typing_signals == []


async def test_a_line_that_breaks_is_mended_in_mid_reply(natterlog: Running, chat: ChatClient):
    await chat.open(await chat.create_session())
    await chat.send("tokens=80 rate=40")
    await chat.until(lambda: len(chat.streaming) > 100)

    gateway = natterlog.system.one("gateway")
    await gateway.kill()
    await gateway.start()
    await chat.until(chat.replies)

    assert chat.connections > 1
    assert chat.resets == 0
    assert check_unspliced(chat.replies()[0]["content"])[1] == 80


async def test_what_a_socket_does_not_understand_is_an_error_in_a_sentence(
    natterlog: Running, chat: ChatClient
):
    await chat.open(await chat.create_session())

    await chat.send_frame("shout", message="Hello")
    await chat.until(lambda: chat.errors)
    await chat.send("tokens=3 fail=400x1")
    await chat.until(lambda: len(chat.errors) == 2)
    await chat.send("tokens=4")
    await chat.until(lambda: [m for m in chat.replies() if m["content"]])

    assert [set(error) >= {"type", "message"} for error in chat.errors] == [True, True]
    assert check_unspliced(chat.replies()[-1]["content"])[1] == 4


# -- sessions -------------------------------------------------------------------------


async def test_a_user_has_several_chats_at_once(natterlog: Running, chat: ChatClient):
    async with ChatClient(natterlog.system.url) as other:
        for page in (chat, other):
            await page.open(await page.create_session())
        await chat.send("One tokens=30 rate=60")
        await other.send("Two tokens=30 rate=60")
        for page in (chat, other):
            await page.until(page.replies)

    texts = [page.replies()[0]["content"] for page in (chat, other)]
    assert len({check_unspliced(text)[0] for text in texts}) == 2


async def test_a_session_is_listed_read_changed_put_away_and_brought_back(chat: ChatClient):
    session_id = await chat.create_session(title="Mine")
    path = f"/sessions/{session_id}/"

    _, listed = await chat.call("GET", "/sessions/")
    _, changed = await chat.call("PATCH", path, json={"title": "Yours", "temperature": 0.2})
    gone, nothing = await chat.call("DELETE", path)
    _, kept = await chat.call("GET", path)
    _, after = await chat.call("GET", "/sessions/")
    refused, _ = await chat.call("POST", f"{path}send_message/", json={"message": "Hello"})
    _, back = await chat.call("PATCH", path, json={"is_active": True})

    assert session_id in [session["id"] for session in listed["results"]]
    assert (changed["title"], changed["temperature"]) == ("Yours", 0.2)
    assert (gone, nothing) == (204, None)
    assert (kept["is_active"], kept["title"]) == (False, "Yours")
    assert session_id not in [session["id"] for session in after["results"]]
    assert refused == 409
    assert back["is_active"] is True


async def test_without_a_socket_a_message_is_answered_over_http(chat: ChatClient):
    session_id = await chat.create_session()

    status, turn = await chat.call(
        "POST", f"/sessions/{session_id}/send_message/", json={"message": "tokens=6"}
    )
    _, page = await chat.call("GET", f"/sessions/{session_id}/messages/")

    assert status in (200, 201)
    assert check_unspliced(turn["ai_message"]["content"])[1] == 6
    assert page["results"] == [turn["user_message"], turn["ai_message"]]


async def test_the_list_of_chats_is_told_what_happens_to_them(natterlog: Running, chat: ChatClient):
    url = f"{natterlog.system.url}/ws/ai-chat/sessions/?token=any"
    async with chat.browser.socket(url) as socket:
        events = [await socket.receive_json(timeout=10)]
        session_id = await chat.create_session(title="Announced")
        events.append(await socket.receive_json(timeout=10))
        await chat.call("PATCH", f"/sessions/{session_id}/", json={"title": "Renamed"})
        events.append(await socket.receive_json(timeout=10))
        await chat.call("DELETE", f"/sessions/{session_id}/")
        events.append(await socket.receive_json(timeout=10))

    assert [event["type"] for event in events] == [
        "connection_established",
        "session_created",
        "session_updated",
        "session_deleted",
    ]
    assert {event["session"]["id"] for event in events[1:]} == {session_id}


# -- models and presets ---------------------------------------------------------------


async def test_a_new_session_has_what_the_variables_say(natterlog: Running, chat: ChatClient):
    session_id = await chat.create_session()
    _, session = await chat.call("GET", f"/sessions/{session_id}/")

    await chat.call("POST", f"/sessions/{session_id}/send_message/", json={"message": "tokens=2"})

    assert (session["temperature"], session["max_tokens"], session["enable_tools"]) == (
        *(0.7, 2000, True),
    )
    request = natterlog.fake.seen[-1]
    assert request.path == "/v1/chat/completions"
    assert (request.body["model"], request.body["temperature"], request.body["max_tokens"]) == (
        *(MODEL, 0.7, 2000),
    )


async def test_a_sessions_own_settings_reach_the_model(natterlog: Running, chat: ChatClient):
    session_id = await chat.create_session(
        model="qwen3:1b", temperature=0.1, max_tokens=50, system_prompt="Be terse."
    )

    await chat.call("POST", f"/sessions/{session_id}/send_message/", json={"message": "tokens=2"})

    body = natterlog.fake.seen[-1].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("qwen3:1b", 0.1, 50)
    assert body["messages"][0] == {"role": "system", "content": "Be terse."}


async def test_new_models_of_the_server_are_found(natterlog: Running, chat: ChatClient):
    await chat.call("POST", "/models/sync_models/")
    natterlog.fake.models["openai"] = [MODEL, "qwen3:32b"]

    _, synced = await chat.call("POST", "/models/sync_models/")
    natterlog.fake.models["openai"] = MODELS["openai"]
    output = await command(natterlog.system, "models", "--sync")
    _, listed = await chat.call("GET", "/models/")

    assert (synced["added"], synced["removed"]) == (["openai/qwen3:32b"], ["openai/qwen3:1b"])
    assert {MODEL, "qwen3:1b"} <= {model["name"] for model in listed["results"]}
    assert [m["is_default"] for m in listed["results"] if m["name"] == MODEL] == [True]
    assert f"openai/{MODEL}" in output


async def test_a_user_may_prefer_another_model(natterlog: Running, chat: ChatClient):
    await chat.call("POST", "/models/sync_models/")
    await chat.call("PATCH", "/models/openai/qwen3:1b/", json={"is_default": True})

    session_id = await chat.create_session()
    _, session = await chat.call("GET", f"/sessions/{session_id}/")
    await chat.call("PATCH", "/models/openai/qwen3:1b/", json={"is_default": False})

    assert session["model"].endswith("qwen3:1b")


async def test_a_preset_is_a_template_for_sessions(natterlog: Running, chat: ChatClient):
    wanted = {"name": "Editor", "system_prompt": "Be strict.", "temperature": 0.2}

    made, preset = await chat.call("POST", "/presets/", json=wanted)
    _, listed = await chat.call("GET", "/presets/")
    created, session = await chat.call(
        "POST", f"/presets/{preset['id']}/create_session_from_preset/"
    )
    path = f"/sessions/{session['id']}/send_message/"
    await chat.call("POST", path, json={"message": "tokens=2"})

    assert (made, created) == (201, 201)
    assert preset["id"] in [each["id"] for each in listed["results"]]
    assert (session["system_prompt"], session["temperature"]) == ("Be strict.", 0.2)
    assert natterlog.fake.seen[-1].body["messages"][0]["content"] == "Be strict."


# -- health ---------------------------------------------------------------------------


async def test_the_health_needs_no_token_and_the_statistics_are_the_users(
    natterlog: Running, chat: ChatClient
):
    _, before = await chat.call("GET", "/health/stats/")
    session_id = await chat.create_session()
    await chat.call("POST", f"/sessions/{session_id}/send_message/", json={"message": "tokens=7"})

    url = f"{natterlog.system.url}/ai-chat/api/health/llm_server/"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        health = await answer.json()
    _, after = await chat.call("GET", "/health/stats/")

    assert health["status"] == "healthy"
    assert [p["status"] for p in health["providers"] if p["name"] == "openai"] == ["healthy"]
    assert after["messages"] - before["messages"] == 2
    assert after["tokens_out"] - before["tokens_out"] == 7


async def test_a_silent_server_is_told_after_the_timeout_that_is_set():
    def impatient(fake: FakeProvider) -> dict[str, str]:
        return {**as_llm_server(fake), "LLM_TIMEOUT": "0.5"}

    async with (
        running_system(
            services=("store", "llm-worker", "gateway"),
            models=MODELS,
            provided=impatient,
            NATTERLOG_PROVIDER_FAILURES="1",
        ) as natterlog,
        ChatClient(natterlog.system.url) as chat,
        asyncio.timeout(60),
    ):
        await chat.open(await chat.create_session())
        await chat.send("tokens=5 fault=stall@2")
        await chat.until(lambda: chat.errors)

    assert [error["code"] for error in chat.errors] == ["timeout"]
