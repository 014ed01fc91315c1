"""Which pages may talk to the gateway: one list for requests and sockets, checked first."""

import aiohttp
import pytest

from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, frame, stage

SESSIONS = "/api/v1/chat/sessions"
LOCAL = ["http://localhost:3000", "http://127.0.0.1:5173", "https://[::1]:1", "http://localhost"]
FOREIGN = ["https://evil.example", "http://localhost.evil.example", "null", "file://", "http://["]


@pytest.mark.parametrize("origin", LOCAL)
async def test_pages_of_this_machine_may(on_stage: Stage, origin: str):
    async with on_stage.http.get(SESSIONS, headers={"Origin": origin}) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Retry-After", "X-Run-Id", "X-Request-Id", "X-Error-Code"} <= set(exposed)
    ws = await on_stage.open("/api/v1/chat/ws", origin=origin)
    await ws.send_json({"type": "ping"})
    assert await frame(ws) == {"type": "pong"}


@pytest.mark.parametrize("origin", FOREIGN)
async def test_other_pages_may_not_and_learn_nothing_else(on_stage: Stage, origin: str):
    headers = {"Origin": origin}
    async with on_stage.http.get(f"{SESSIONS}/no-id", headers=headers) as answer:
        assert answer.status == 403
        assert (await answer.json(content_type=None))["code"] == "forbidden"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await on_stage.open("/ws/ai-chat/session/no-id/", origin=origin)
    assert refused.value.status == 403


async def test_a_page_whose_name_points_here_is_still_another_page(on_stage: Stage):
    port = on_stage.url.rpartition(":")[2]
    headers = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}

    async with on_stage.http.get(SESSIONS, headers=headers) as answer:
        assert answer.status == 403


async def test_the_list_of_the_settings_takes_the_default_ones_place(nats_server: NatsServer):
    async with stage(nats_server.url, origins=("https://chat.example",)) as listed:
        for origin, status in (("https://chat.example", 200), ("http://localhost:3000", 403)):
            async with listed.http.get(SESSIONS, headers={"Origin": origin}) as answer:
                assert answer.status == status


async def test_a_preflight_names_what_a_page_may_send(on_stage: Stage):
    headers = {"Origin": LOCAL[0], "Access-Control-Request-Method": "POST"}

    async with on_stage.http.options(SESSIONS, headers=headers) as answer:
        assert answer.status == 204
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
