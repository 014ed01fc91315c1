"""A provider whose words are clocks: each token is the time at which it was sent.

Microseconds of the machine's monotonic clock, which all processes share, so
whoever receives a token knows how long it was on its way.  ``tokens=… rate=…``
in the last user message is obeyed as :mod:`tests.support.fake_script` says.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator

import msgspec
import uvloop
from aiohttp import web

from tests.support.fake_provider import Wheel
from tests.support.fake_script import Script
from tests.support.fake_wire import OpenAI, Reply

MODEL = "clock"
WIRE = OpenAI()


def application() -> web.Application:
    app = web.Application()
    app.add_routes([web.get("/v1/models", _models), web.post("/v1/chat/completions", _complete)])
    app[_WHEEL] = Wheel(changed=lambda: None)
    return app


_WHEEL = web.AppKey("wheel", Wheel)
_numbers = itertools.count(1)


async def _models(_: web.Request) -> web.Response:
    return web.json_response(WIRE.catalogue([MODEL]))


async def _complete(request: web.Request) -> web.StreamResponse:
    body = msgspec.json.decode(await request.read())
    script = Script().overruled_by(body["messages"][-1]["content"])
    reply = Reply(tag=str(next(_numbers)), model=MODEL, prompt_tokens=1, include_usage=True)
    response = web.StreamResponse(headers={"Content-Type": WIRE.content_type})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(WIRE.opening(reply))
    assert request.transport is not None
    await request.app[_WHEEL].send(
        request.transport, _clock(WIRE.token(reply), script.tokens), 1 / script.rate
    )
    await response.write(WIRE.closing(reply, script.tokens))
    await response.write_eof()
    return response


def _clock(around: tuple[bytes, bytes], tokens: int) -> Iterator[bytes]:
    """The frames; the wheel takes each when it writes it, so that is the time it says."""
    before, after = around
    for _ in range(tokens):
        yield b"%b%d %b" % (before, time.monotonic_ns() // 1000, after)


async def _serve() -> None:
    runner = web.AppRunner(application(), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())
