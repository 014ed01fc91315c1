"""What is the same in every dialect: refusals in its own envelope, bounds, a store that is away."""

import asyncio
import json

import pytest

from tests.support.nats_server import NatsServer
from tests.support.stage import DEADLINE, Stage, close_code, stage

CHAT = "/api/v1/chat"
CHANNELS = "/ai-chat/api/sessions"
ENVELOPES = {
    CHAT: {"type", "title", "status", "detail", "code"},
    "/ai-chat": {"detail", "code"},
    "/api/generate": {"error", "code"},
    "/api/models": {"error", "code"},
    "/api/upload": {"success", "error", "code"},
    "/chat": {"error", "code"},
}
"""The fields of a refusal, by the beginning of its path."""
POSTS = [
    f"{CHAT}/sessions",
    f"{CHAT}/messages",
    "/ai-chat/api/sessions/",
    f"{CHANNELS}/{{session}}/send_message/",
    "/chat/start",
    "/api/generate/",
]
SOCKETS = [
    f"{CHAT}/ws",
    "/ws/ai-chat/session/{session}/",
    "/ws/ai-chat/sessions/",
    "/ws",
    "/ws/chat/{job}",
]


def envelope_of(path: str) -> set[str]:
    return next(fields for start, fields in ENVELOPES.items() if path.startswith(start))


# -- refusals -----------------------------------------------------------------------------


NO_GET, NO_PUT = 'Method "GET" not allowed.', 'Method "PUT" not allowed.'
PROBLEM = {"type": "about:blank", "title": "Method not allowed", "status": 405}


@pytest.mark.parametrize(
    ("method", "path", "allowed", "fields"),
    [
        ("PUT", f"{CHAT}/sessions", "GET, HEAD, POST", {**PROBLEM, "detail": NO_PUT}),
        ("PUT", f"{CHANNELS}/", "GET, HEAD, OPTIONS, POST", {"detail": NO_PUT}),
        ("GET", "/api/generate/", "POST", {"error": NO_GET}),
        ("GET", "/api/upload", "POST", {"success": False, "error": NO_GET}),
        ("GET", "/chat/start", "POST", {"error": NO_GET}),
    ],
)
async def test_a_method_that_means_nothing_is_refused_with_those_that_do(
    on_stage: Stage, method: str, path: str, allowed: str, fields: dict[str, object]
):
    async with on_stage.http.request(method, path, json={}) as answer:
        refusal = await answer.json()

    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert refusal == {**fields, "code": "method_not_allowed"}
    assert (on_stage.store.requests, on_stage.store.sessions) == ([], {})


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"{CHAT}/sessions"), ("POST", f"{CHANNELS}/"), ("GET", "/api/models/")],
)
async def test_a_store_that_does_not_answer_is_worth_another_try(
    nats_server: NatsServer, method: str, path: str
):
    async with (
        stage(nats_server.url, with_store=False) as alone,
        alone.http.request(method, path, json={} if method == "POST" else None) as answer,
    ):
        refusal = await answer.json(content_type=None)

    assert (answer.status, refusal["code"]) == (503, "provider_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert set(refusal) == envelope_of(path)


# -- bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", POSTS)
async def test_a_body_that_is_too_large_is_refused_in_every_dialect(
    nats_server: NatsServer, path: str
):
    async with stage(nats_server.url, max_body=1000) as small:
        path = path.format(session=await small.session())
        body = json.dumps({"title": "x" * 1000}).encode()

        for data in (body, chunks(body)):  # which says how long it is, and which does not
            async with small.http.post(path, data=data) as answer:
                refusal = await answer.json(content_type=None)
                assert (answer.status, refusal["code"]) == (413, "too_large")
        assert small.store.runs == {}


async def chunks(body: bytes):
    yield body


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_frame_that_is_too_large_or_binary_closes_every_socket(
    nats_server: NatsServer, path: str
):
    async with stage(nats_server.url, max_frame=1000) as small:
        path = path.format(session=await small.session(), job=await job(small))
        large, binary = await small.open(path), await small.open(path)

        await large.send_str(json.dumps({"type": "ping", "message": "x" * 1000}))
        await binary.send_bytes(b'{"type": "ping"}')

        assert (await close_code(large), await close_code(binary)) == (1009, 4400)


@pytest.mark.parametrize("path", SOCKETS)
async def test_one_socket_too_many_is_refused_in_every_dialect(nats_server: NatsServer, path: str):
    async with stage(nats_server.url, sockets_per_user=1) as small:
        path = path.format(session=await small.session(), job=await job(small))
        held = await small.open(f"{CHAT}/ws")

        assert await close_code(await small.open(path)) == 4429
        assert not held.closed


async def job(made: Stage) -> str:
    """The session of a new content job."""
    topic = {"topic": "a", "query": "b", "platform": "Twitter"}
    async with made.http.post("/chat/start", json=topic) as answer:
        return (await answer.json())["session_id"]


async def test_a_body_that_does_not_come_is_not_waited_for_without_end(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.gateway.http.requests.SLOWEST", 0.2)
    head = f"POST {CHAT}/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(on_stage.url.rpartition(":")[2])
    )

    writer.write(head.encode())
    async with asyncio.timeout(DEADLINE):
        status = await reader.readline()
    writer.close()

    assert status.startswith(b"HTTP/1.1 504")
    assert on_stage.store.sessions == {}
