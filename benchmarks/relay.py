"""The yardstick: the least that brings a provider's tokens to a browser.

One process: a WebSocket message comes in, the provider is asked, and each token
of its answer goes out as one frame.  No log, no bus, no second client, nothing
survives anything.  aiohttp and uvloop, as natterlog has them; no compression.
"""

import asyncio
import contextlib
import sys

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from benchmarks.provider import MODEL


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_PROVIDER = web.AppKey("provider", str)
_SESSION = web.AppKey("session", aiohttp.ClientSession)
_decode = msgspec.json.Decoder(_Chunk).decode


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False, heartbeat=20)
    await socket.prepare(request)
    async for message in socket:
        body = msgspec.json.decode(message.data)
        await _relay(request.app, body["content"], socket)
    return socket


async def _relay(app: web.Application, content: str, socket: web.WebSocketResponse) -> None:
    prompt = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": content}],
    }
    url = f"{app[_PROVIDER]}/chat/completions"
    async with app[_SESSION].post(url, json=prompt) as answer:
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = _decode(line[6:])
            if chunk.choices and (text := chunk.choices[0].delta.content):
                await socket.send_str(
                    msgspec.json.encode({"type": "chunk", "content": text}).decode()
                )
    await socket.send_str('{"type":"message_complete"}')


async def _serve(provider: str) -> None:
    app = web.Application()
    app.add_routes([web.get("/ws", _socket)])
    app[_PROVIDER] = provider
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        app[_SESSION] = session
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(sys.argv[1]))
