"""How many messages a user may send a minute, whichever dialect and gateway they come by."""

import asyncio
from typing import Any

import aiohttp
import pytest

from shared.ids import new_id
from tests.support.nats_server import NatsServer
from tests.support.stage import DEADLINE, Stage, frame, stage

CHAT = "/api/v1/chat"
CHANNELS = "/ai-chat/api/sessions"
MOST = 5


async def as_user(made: Stage) -> dict[str, str]:
    """The headers of a user of the test's own."""
    key = new_id()
    await made.token(key, new_id())
    return {"X-Api-Key": key}


async def open_session(made: Stage, headers: dict[str, str]) -> str:
    async with made.http.post(f"{CHAT}/sessions", json={}, headers=headers) as answer:
        return (await answer.json())["id"]


async def send(made: Stage, session: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
    """Send a message and come back as soon as it is accepted or refused."""
    body = {"session_id": session, "content": "Hello"}
    answer = await made.http.post(f"{CHAT}/messages?stream=true", json=body, headers=headers)
    answer.close()
    return answer


async def test_so_many_go_and_the_next_does_not(nats_server: NatsServer):
    async with stage(nats_server.url, messages_per_minute=MOST) as made:
        user = await as_user(made)
        session = await open_session(made, user)

        answers = [await send(made, session, user) for _ in range(MOST + 1)]

        assert [answer.status for answer in answers] == [200] * MOST + [429]
        left = [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers]
        assert left == [f'"default";r={n}' for n in (4, 3, 2, 1, 0, 0)]
        policy = {answer.headers["RateLimit-Policy"] for answer in answers}
        assert policy == {'"default";q=5;w=60'}
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert len(made.store.runs) == MOST


async def test_two_gateways_count_together(nats_server: NatsServer):
    async with (
        stage(nats_server.url, messages_per_minute=MOST) as one,
        stage(nats_server.url, store=one.store, messages_per_minute=MOST) as two,
    ):
        user = await as_user(one)
        sessions = [await open_session(one, user) for _ in range(2 * MOST)]

        gateways = zip([one, two] * MOST, sessions, strict=True)
        answers = await asyncio.gather(*(send(made, session, user) for made, session in gateways))

        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (MOST, MOST)


async def test_users_are_counted_apart(nats_server: NatsServer):
    async with stage(nats_server.url, messages_per_minute=1) as made:
        users = [await as_user(made) for _ in range(3)]

        answers = [await send(made, await open_session(made, user), user) for user in users]

        assert [answer.status for answer in answers] == [200] * 3


async def test_every_dialect_counts_and_refuses_in_its_own_words(nats_server: NatsServer):
    async with stage(nats_server.url, messages_per_minute=1) as made:
        user = await as_user(made)
        session = await open_session(made, user)
        await send(made, session, user)
        form = aiohttp.FormData({"prompt": "?"})
        form.add_field("file", b"text", filename="a.txt")
        topic = {"topic": "a", "query": "b", "platform": "Twitter"}

        sends: list[tuple[str, dict[str, Any], str]] = [
            (f"{CHAT}/messages", {"json": {"session_id": session, "content": "x"}}, "detail"),
            (f"{CHAT}/messages/{new_id()}/regenerate", {}, "detail"),
            (f"{CHANNELS}/{session}/send_message/", {"json": {"message": "x"}}, "detail"),
            ("/api/upload", {"data": form}, "error"),
            ("/chat/start", {"json": topic}, "error"),
            ("/api/generate/", {"json": {"prompt": "x"}}, "error"),
        ]
        for path, options, field in sends:
            async with made.http.post(path, headers=user, **options) as answer:
                body = await answer.json(content_type=None)
                assert (answer.status, body["code"]) == (429, "rate_limited"), path
                assert "messages a minute" in body[field]
                assert answer.headers["RateLimit"].startswith('"default";r=0')
                assert int(answer.headers["Retry-After"]) >= 1
        assert list(made.store.sessions) == [session]


@pytest.mark.parametrize("dialect", ["native", "channels", "channels regenerate"])
async def test_a_socket_is_told_and_stays_open(nats_server: NatsServer, dialect: str):
    async with stage(nats_server.url, messages_per_minute=1) as made:
        user = await as_user(made)
        session = await open_session(made, user)
        await send(made, session, user)
        path, message = {
            "native": (f"{CHAT}/ws", {"type": "send", "session_id": session, "content": "x"}),
            "channels": (
                f"/ws/ai-chat/session/{session}/",
                {"type": "send_message", "message": "x"},
            ),
            "channels regenerate": (f"/ws/ai-chat/session/{session}/", {"type": "regenerate"}),
        }[dialect]
        ws = await made.open(path, headers=user)

        await ws.send_json(message)
        event = await until(ws, "error")
        await ws.send_json({"type": "ping"})

        assert event["code"] == "rate_limited"
        assert 0 < event["retry_after"] <= 60
        assert await until(ws, "pong")


async def until(ws: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next message of a type."""
    async with asyncio.timeout(DEADLINE):
        while (event := await frame(ws))["type"] != kind:
            pass
    return event


async def test_what_starts_nothing_does_not_count(nats_server: NatsServer):
    async with stage(nats_server.url, messages_per_minute=MOST) as made:
        user = await as_user(made)
        session = await open_session(made, user)
        repeated = {**user, "Idempotency-Key": new_id()}
        await send(made, session, repeated)

        for _ in range(2 * MOST):
            assert (await send(made, session, repeated)).status == 200
            assert (await send(made, new_id(), user)).status == 404
            assert (await send(made, "no-id", user)).status == 404

        statuses = [(await send(made, session, user)).status for _ in range(MOST)]
        assert statuses == [200] * (MOST - 1) + [429]


async def test_what_only_reads_is_not_counted(nats_server: NatsServer):
    async with stage(nats_server.url, messages_per_minute=1) as made:
        user = await as_user(made)

        for _ in range(3):
            async with made.http.get(f"{CHAT}/sessions", headers=user) as answer:
                assert answer.status == 200
                assert "RateLimit" not in answer.headers


async def test_the_window_slides(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.gateway.access.rates.WINDOW", 1)
    async with stage(nats_server.url, messages_per_minute=2) as made:
        user = await as_user(made)
        session = await open_session(made, user)

        statuses = [(await send(made, session, user)).status for _ in range(3)]
        async with asyncio.timeout(DEADLINE):
            while (again := await send(made, session, user)).status == 429:
                pass

        assert statuses == [200, 200, 429]
        assert again.headers["RateLimit-Policy"] == '"default";q=2;w=1'


async def test_without_counters_messages_go_through(own_nats_server: NatsServer):
    async with stage(own_nats_server.url, messages_per_minute=1) as made:
        await made.bus.api("STREAM.DELETE.RATES")
        session = await made.session()

        answers = [await send(made, session, {}) for _ in range(3)]

        assert [answer.status for answer in answers] == [200] * 3
        assert "RateLimit" not in answers[0].headers
