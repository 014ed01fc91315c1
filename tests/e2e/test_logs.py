"""Logs hold ids and sizes, never what people say, and never their tokens (docs/failures.md)."""

import asyncio

import aiohttp
import pytest

from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "top-secret-7f3c"
CHAT = "/api/v1/chat"


async def test_nothing_that_a_client_sends_is_in_any_log(natterlog: Running):
    url = natterlog.system.url
    bearer = {"Authorization": f"Bearer {SECRET}", "Idempotency-Key": SECRET}
    async with aiohttp.ClientSession(url, headers=bearer) as http:
        async with http.post(f"{CHAT}/sessions", json={"title": SECRET}) as answer:
            session = (await answer.json())["id"]
        message = {"session_id": session, "content": f"{SECRET} tokens=3"}
        async with http.post(f"{CHAT}/messages", json=message) as answer:
            assert answer.status == 201
        for path in (f"{CHAT}/sessions?q={SECRET}", f"{CHAT}/sessions?page=0&token={SECRET}"):
            async with http.get(path) as answer:
                await answer.read()
        async with http.ws_connect(f"/ws/ai-chat/session/{session}/?token={SECRET}") as ws:
            await ws.send_str(f'{{"type": "{SECRET}"')
            await ws.receive()
            await ws.receive()

    await send(url, f"GET /?token={SECRET}{'x' * 9000} HTTP/1.1\r\n\r\n")
    await send(url, f"GET / HTTP/1.1\r\nAuthorization: Bearer {SECRET}\x01\r\n\r\n")
    await send(url, f"{SECRET} / HTTP/1.1\r\n\r\n")

    logs = natterlog.system.logs()
    assert session in logs
    assert SECRET not in logs


async def send(url: str, data: str) -> None:
    """Send these bytes, and wait until the gateway has had enough of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(data.encode())
    assert b"400" in await reader.read()
    writer.close()
