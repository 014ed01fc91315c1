"""A real HTTP server that fakes the three upstream APIs on their true wire formats.

OpenAI ``/v1/chat/completions`` and ``/v1/models``, Anthropic ``/v1/messages`` and
``/v1/models``, Ollama ``/api/chat`` and ``/api/tags``.  **No two answers are the
same**: each request has a tag of its own and each token says tag and index
(``a7-12 ``), so :func:`check_unspliced` finds any text that was put together
from two attempts.  What it does is scripted: see :mod:`tests.support.fake_script`.

In a test's own process::

    async with FakeProvider() as fake:
        fake.default = Script(tokens=5, fault="drop@3x1")
        ...
        await fake.wait_for(lambda: fake.seen[-1].closed_at is not None)

As a process: ``python -m tests.support.fake_provider --port 0`` prints its port;
``POST /_control {"default": {…}, "next": [{…}], "models": {…}, "reset": true}``
scripts it and ``GET /_requests?from=0`` says what it saw.
"""

import argparse
import asyncio
import contextlib
import heapq
import re
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Self

import msgspec
import uvloop
from aiohttp import web

from tests.support.fake_refusals import refusal_of
from tests.support.fake_script import FaultKind, Script
from tests.support.fake_wire import Anthropic, Ollama, OpenAI, Reply, Wire

MODELS = {
    "openai": ["fake-gpt", "fake-gpt-mini"],
    "anthropic": ["claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5-5"],
    "ollama": ["fake-llama:latest", "fake-qwen:1b"],
}
ABILITIES = {
    "qwen": {
        "capabilities": ["completion", "tools", "vision"],
        "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40_960},
    },
    "roomy": {"model_info": {}, "parameters": 'num_ctx    16384\nstop    "<|end|>"'},
    "embed": {"capabilities": ["embedding"], "model_info": {}},
    "": {"model_info": {"general.architecture": "llama", "llama.context_length": 8_192}},
}
"""What ``/api/show`` says of a model whose name has this in it; an old server tells less."""
WIRES: dict[str, Wire] = {"openai": OpenAI(), "anthropic": Anthropic(), "ollama": Ollama()}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
SPLIT = "😀"
"""What the fault ``split`` cuts in two; ``lone`` sends its first half only."""

_TOKEN = re.compile(r"([a-z]+\d+)-(\d+)[😀\ufffd]? ")


def check_unspliced(text: str) -> tuple[str, int]:
    """The tag of the one attempt that ``text`` is from, and how many tokens it has.

    Raises:
        AssertionError: ``text`` is not tokens 0, 1, 2 … of one attempt.
    """
    tag, at = "", 0
    for count, token in enumerate(_TOKEN.finditer(text)):
        assert token.start() == at, f"no token at {at}: {text[max(0, at - 20) : at + 20]!r}"
        tag = tag or token[1]
        assert token[1] == tag, f"spliced: {token[1]} goes on where {tag} was at token {count}"
        assert int(token[2]) == count, f"token {token[2]} of {tag} where {count} was due"
        at = token.end()
    assert at == len(text), f"no token at {at}: {text[max(0, at - 20) : at + 20]!r}"
    return tag, len(_TOKEN.findall(text))


class Seen(msgspec.Struct, kw_only=True):
    """One request as the fake saw it."""

    tag: str
    api: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    message: str
    """The last user message, without those before it that came to nothing and went with it."""
    at: float
    """Time of its arrival, seconds since 1970."""
    connection: int = 0
    """The port that the client called from: the same one again is the same connection."""
    status: int = 0
    sent: int = 0
    """Tokens of text so far."""
    ended_at: float | None = None
    """When its answer was complete, faults included."""
    closed_at: float | None = None
    """When the client closed the connection in the middle of the answer."""


class FakeProvider:
    """The server: ``async with`` starts it, its attributes script it and say what it saw."""

    def __init__(
        self,
        *,
        port: int = 0,
        tags: str = "a",
        models: Mapping[str, list[str]] = MODELS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self.default = Script()
        """How a request is answered that nothing else was said about."""
        self.next: deque[Script] = deque()
        """Scripts for the coming requests, one each, before the default."""
        self._models = MODELS | dict(models)
        self.models = {api: list(names) for api, names in self._models.items()}
        self.shows = True
        """Whether Ollama's ``/api/show`` is there."""
        self.seen: list[Seen] = []
        self.port = port
        self._tags = tags
        self._count = 0
        self._like: Counter[object] = Counter()
        self._messages: set[str] = set()
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The address without a path: right for Anthropic and Ollama."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a stop again on the same port."""
        self._wheel = Wheel(self.changed)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._openai),
                web.post("/v1/messages", self._anthropic),
                web.post("/api/chat", self._ollama),
                web.get("/v1/models", self._list_models),
                web.get("/v1/models/{name}", self._list_models),
                web.get("/api/tags", self._list_models),
                web.post("/api/show", self._show_model),
                web.post("/_control", self._control),
                web.get("/_requests", self._requests),
            ]
        )
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, backlog=1024, ssl_context=self._tls
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Break every connection and refuse new ones."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._wheel.stop()

    def reset(self) -> None:
        """Forget every script and every request; tags go on counting."""
        self.default = Script()
        self.next.clear()
        self.models = {api: list(names) for api, names in self._models.items()}
        self.shows = True
        self.seen.clear()
        self._like.clear()
        self._messages.clear()

    async def wait_for(self, true: Callable[[], object], timeout: float = 10.0) -> None:
        """Return as soon as ``true()`` is; it is asked whenever something happened here."""
        if true():
            return
        future = asyncio.get_running_loop().create_future()
        waiter = (lambda: bool(true()), future)
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(future, timeout)
        finally:
            self._waiters.remove(waiter)

    def changed(self) -> None:
        for true, future in self._waiters:
            if not future.done() and true():
                future.set_result(None)

    # -- the three APIs ---------------------------------------------------------

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "openai", streams_by_default=False)

    async def _anthropic(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "anthropic", streams_by_default=False)

    async def _ollama(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "ollama", streams_by_default=True)

    async def _answer(
        self, request: web.Request, api: str, *, streams_by_default: bool
    ) -> web.StreamResponse:
        seen = self._see(api, request, msgspec.json.decode(await request.read()))
        try:
            response = await self._follow_script(request, seen, streams_by_default)
        except (asyncio.CancelledError, ConnectionError):
            seen.closed_at = time.time()
            self.changed()
            raise
        seen.ended_at = time.time()
        self.changed()
        return response

    async def _follow_script(
        self, request: web.Request, seen: Seen, streams_by_default: bool
    ) -> web.StreamResponse:
        script, nth = self._script_for(seen)
        if script.delay:
            await asyncio.sleep(script.delay)
        if status := script.status(nth):
            sentence = script.sentence or f"scripted to fail with {status}"
            return self._refuse(seen, status, sentence, script)
        if refusal := refusal_of(script.refuses, seen.body):
            seen.status = refusal.status
            return web.json_response(refusal.body, status=refusal.status)
        if not self._has(seen.api, seen.body.get("model")):
            return self._refuse(seen, 404, f"no model {seen.body.get('model')!r}", script)
        seen.status = 200
        reply = ScriptedReply(script, script.fault_of(nth), seen, WIRES[seen.api])
        if seen.body.get("stream", streams_by_default):
            return await reply.stream(request, self._wheel)
        return reply.whole()

    def _see(self, api: str, request: web.Request, body: dict[str, Any]) -> Seen:
        self._count += 1
        seen = Seen(
            tag=f"{self._tags}{self._count}",
            api=api,
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            message=self._new_part_of(_last_user_message(body)),
            at=time.time(),
            connection=request.get_extra_info("peername", ("", 0))[1],
        )
        self.seen.append(seen)
        self.changed()
        return seen

    def _new_part_of(self, message: str) -> str:
        """What of a message is new: a reply that failed leaves its user's in front of the next."""
        before = [old for old in self._messages if message.startswith(f"{old}\n\n")]
        self._messages.add(message)
        return message.removeprefix(max(before, key=len, default="")).removeprefix("\n\n")

    def _script_for(self, seen: Seen) -> tuple[Script, int]:
        """The script for a request, and how many like it there were before."""
        base = self.next.popleft() if self.next else self.default
        script = base.overruled_by(seen.message)
        like = (seen.api, seen.message) if script != base else base
        self._like[like] += 1
        return script, self._like[like] - 1

    def _has(self, api: str, model: object) -> bool:
        names = self.models[api]
        return model in names or (api == "ollama" and f"{model}:latest" in names)

    def _refuse(self, seen: Seen, status: int, message: str, script: Script) -> web.Response:
        seen.status = status
        body = WIRES[seen.api].refusal(status, KINDS.get(status, "api_error"), message)
        headers = {"retry-after": f"{script.retry_after:g}"} if script.retry_after else None
        return web.json_response(body, status=status, headers=headers)

    async def _list_models(self, request: web.Request) -> web.Response:
        api = "openai"
        if request.path == "/api/tags":
            api = "ollama"
        elif "anthropic-version" in request.headers:
            api = "anthropic"
        return web.json_response(WIRES[api].catalogue(self.models[api]))

    async def _show_model(self, request: web.Request) -> web.Response:
        """What Ollama tells of one model: a family says what it can do."""
        name = msgspec.json.decode(await request.read())["model"]
        if not self.shows or not self._has("ollama", name):
            return web.json_response({"error": f"model {name!r} not found"}, status=404)
        return web.json_response(ABILITIES[next(a for a in ABILITIES if a in name)])

    # -- control from another process -------------------------------------------

    async def _control(self, request: web.Request) -> web.Response:
        orders = msgspec.json.decode(await request.read(), type=Orders)
        if orders.reset:
            self.reset()
        if orders.default is not None:
            self.default = orders.default
        self.next.extend(orders.next)
        self.models.update(orders.models)
        return web.json_response({"requests": len(self.seen)})

    async def _requests(self, request: web.Request) -> web.Response:
        start = int(request.query.get("from", 0))
        body = msgspec.json.encode({"requests": self.seen[start:]})
        return web.Response(body=body, content_type="application/json")


class Orders(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``POST /_control`` takes."""

    reset: bool = False
    default: Script | None = None
    next: list[Script] = []
    models: dict[str, list[str]] = {}


class ScriptedReply:
    """One reply on its way: the script's tokens and faults as one API's bytes."""

    def __init__(
        self, script: Script, fault: tuple[FaultKind, int] | None, seen: Seen, wire: Wire
    ) -> None:
        self._script = script
        self._fault, self._fault_at = fault or (None, 0)
        self._seen = seen
        self._wire = wire
        body = seen.body
        self._reply = Reply(
            tag=seen.tag,
            model=body["model"],
            prompt_tokens=len(str(body.get("messages")).split()),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            thinks=script.think > 0,
            stop=script.stop,
        )
        self._pieces = script.reply.split(" ") if script.reply is not None else None
        self._tokens = script.tokens if self._pieces is None else len(self._pieces)
        if self._fault == "empty":
            self._tokens = 0

    def whole(self) -> web.Response:
        """The answer to a call that does not stream."""
        tokens = [self._token(n) for n in range(self._tokens)]
        text = msgspec.json.decode(b'"' + b"".join(tokens) + b'"', type=str)
        self._seen.sent = self._tokens
        return web.json_response(self._wire.whole(self._reply, text, self._tokens))

    async def stream(self, request: web.Request, wheel: "Wheel") -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self._wire.content_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(self._wire.opening(self._reply))
        await self._load(response)
        if self._script.think:
            before, after = self._wire.thought(self._reply)
            thoughts = (before + b"hm " + after for _ in range(self._script.think))
            await self._send(request, response, wheel, thoughts)
            await response.write(self._wire.after_thought(self._reply))
        await self._send(request, response, wheel, self._text(0, self._fault_at))
        if await self._break_off(request, response):
            return response
        await self._send(request, response, wheel, self._text(self._fault_at, self._tokens))
        closing = self._wire.closing(self._reply, self._tokens)
        if self._fault == "undone":
            await response.write(closing[: closing.rstrip().rfind(b"\n") + 1])
            _hang_up(request)
            return response
        await response.write_eof(closing)
        return response

    async def _load(self, response: web.StreamResponse) -> None:
        """Beat as servers do while they load a model."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._script.load
        while (left := until - loop.time()) > 0:
            await response.write(self._wire.ping)
            await asyncio.sleep(min(left, 0.02))

    def _text(self, start: int, end: int) -> Iterator[bytes]:
        """The frames of tokens ``start`` to ``end``; taking one counts as sending it."""
        before, after = self._wire.token(self._reply)
        for n in range(start, min(end, self._tokens)):
            self._seen.sent = n + 1
            yield before + self._token(n) + after

    def _token(self, n: int) -> bytes:
        if self._pieces is not None:
            word = self._pieces[n] + (" " if n < self._tokens - 1 else "")
            return msgspec.json.encode(word)[1:-1]
        token = f"{self._seen.tag}-{n}"
        if self._fault == "lone" and n == self._fault_at:
            token += "\\ud83d"
        elif self._fault == "split" and n == self._fault_at:
            return f"{token}\\ud83d".encode()
        elif self._fault == "split" and n == self._fault_at + 1:
            token = f"\\ude00 {token}"
        return f"{token} ".encode()

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        wheel: "Wheel",
        frames: Iterator[bytes],
    ) -> None:
        if self._script.rate:
            assert request.transport is not None
            await wheel.send(request.transport, frames, 1 / self._script.rate)
            return
        batch: list[bytes] = []
        for frame in frames:
            batch.append(frame)
            if len(batch) == 256:
                await response.write(b"".join(batch))
                batch.clear()
                await asyncio.sleep(0)
        if batch:
            await response.write(b"".join(batch))
        wheel.changed()

    async def _break_off(self, request: web.Request, response: web.StreamResponse) -> bool:
        """Commit the fault if it is one after which nothing comes."""
        match self._fault:
            case "drop":
                _hang_up(request)
            case "end":
                await response.write_eof()
            case "error":
                await response.write(self._wire.broken(self._script.error, self._script.sentence))
                await response.write_eof()
            case "garbage":
                await response.write(self._wire.garbage)
                return False
            case "stall":
                await _for_ever()
            case "pings":
                while True:
                    await response.write(self._wire.ping)
                    await asyncio.sleep(0.01)
            case _:
                return False
        return True


class Wheel:
    """Writes the frames of all paced streams from one timer, straight to their transports.

    A sleep per token costs a future, a timer and a task's wake-up each; this costs a heap's turn.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, _Paced]] = []
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None

    async def send(
        self, transport: asyncio.Transport, frames: Iterator[bytes], interval: float
    ) -> None:
        """Write one of ``frames`` every ``interval`` seconds, the first one now."""
        paced = _Paced(transport, frames, interval, self._loop.create_future())
        self._order += 1
        heapq.heappush(self._due, (self._loop.time(), self._order, paced))
        self._arm()
        await paced.done

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due[0][0], self._turn) if self._due else None

    def _turn(self) -> None:
        now = self._loop.time() + 0.001
        while self._due and self._due[0][0] <= now:
            due, order, paced = self._due[0]
            if paced.step():
                heapq.heapreplace(self._due, (due + paced.interval, order, paced))
            else:
                heapq.heappop(self._due)
        self._arm()
        self.changed()


class _Paced:
    __slots__ = ("_frames", "_transport", "done", "interval")

    def __init__(
        self,
        transport: asyncio.Transport,
        frames: Iterator[bytes],
        interval: float,
        done: "asyncio.Future[None]",
    ) -> None:
        self._transport = transport
        self._frames = frames
        self.interval = interval
        self.done = done

    def step(self) -> bool:
        """Write the next frame; False when there is none, or nobody to send it to."""
        if self.done.done():
            return False
        frame = next(self._frames, None)
        if frame is None or self._transport.is_closing():
            self.done.set_result(None)
            return False
        self._transport.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        return True


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()  # what was written still leaves; the answer's end does not


async def _for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


def _last_user_message(body: dict[str, Any]) -> str:
    for message in reversed(body.get("messages", [])):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                return content
            return " ".join(part.get("text", "") for part in content)
    return ""


async def _serve(port: int) -> None:
    async with FakeProvider(port=port) as fake:
        print(fake.port, flush=True)  # noqa: T201  (the starter reads it)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one, printed")
    port = parser.parse_args().port
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(port))


if __name__ == "__main__":
    main()
