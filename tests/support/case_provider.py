"""A provider that answers byte for byte as a case says: all three APIs, over a bare socket.

A case is a line of ``tests/cases/providers.jsonl``.  The user's last message names it
(``case openai/d1``); any other message is answered plainly.
"""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

CASES = Path(__file__).parents[1] / "cases" / "providers.jsonl"
MODEL = "odd"
PLAIN = "Plainly."
PAUSE = 0.02

_APIS = {"/v1/chat/completions": "openai", "/v1/messages": "anthropic", "/api/chat": "ollama"}
_STREAMS = {
    "openai": "text/event-stream",
    "anthropic": "text/event-stream",
    "ollama": "application/x-ndjson",
}
_PLAINLY = {
    "openai": (
        'data: {"choices": [{"index": 0, "delta": {"content": "Plainly."}}]}\n\n'
        'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
        "data: [DONE]\n\n"
    ),
    "anthropic": (
        'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
        '"delta": {"type": "text_delta", "text": "Plainly."}}\n\n'
        'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    ),
    "ollama": (
        '{"message": {"role": "assistant", "content": "Plainly."}, "done": false}\n'
        '{"message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"}\n'
    ),
}


class Case(NamedTuple):
    """What a provider answers to one message."""

    id: str
    api: str
    expect: str
    chunks: list[bytes] | None
    """Of a stream; None: there is a status, and one body."""
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012  (nobody changes it)
    body: bytes = b""
    pause: float = PAUSE
    """Seconds between the chunks: no two come in one read."""

    @property
    def reads(self) -> list[bytes]:
        """The bytes of its body, as they come."""
        return [self.body] if self.chunks is None else self.chunks


def read_cases() -> list[Case]:
    """All that there are."""
    return [_case(json.loads(line)) for line in CASES.read_bytes().splitlines()]


def _case(fields: dict[str, Any]) -> Case:
    chunks = fields.get("chunks")
    return Case(
        id=f"{fields['api']}/{fields['case']}",
        api=fields["api"],
        expect=fields["expect"],
        chunks=None if chunks is None else [_bytes(chunk) for chunk in chunks],
        status=fields.get("status", 200),
        headers=fields.get("headers", {}),
        body=_bytes(fields.get("body", "")),
    )


def _bytes(chunk: str | dict[str, str]) -> bytes:
    if isinstance(chunk, str):
        return chunk.encode()
    return base64.b64decode(chunk["base64"])


class CaseProvider:
    """``async with CaseProvider(read_cases()) as provider``."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases = {case.id: case for case in cases}
        self.calls: Counter[str] = Counter()
        """How often each case was called."""
        self.strayed: list[str] = []
        """Requests for paths that no provider of ours calls."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head, body = await _request(reader)
            await self._answer(head, body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side hung up, which it may
        finally:
            writer.close()

    async def _answer(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split(" ", 2)[1].partition("?")[0]
        if path not in _APIS:
            answer = _lists(path, head)
            if answer is None:
                self.strayed.append(path)
                await _write_whole(writer, 404, {}, b"404 page not found")
            else:
                await _write_whole(writer, 200, {}, json.dumps(answer).encode())
            return
        api, message = _APIS[path], _last_message(json.loads(body))
        if not message.startswith("case "):
            await _write_stream(writer, _STREAMS[api], [_PLAINLY[api].encode()], PAUSE)
            return
        case = self._cases[message.removeprefix("case ")]
        self.calls[case.id] += 1
        if case.chunks is None:
            await _write_whole(writer, case.status, case.headers, case.body)
        else:
            await _write_stream(writer, _STREAMS[api], case.chunks, case.pause, case.headers)


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    return head, await reader.readexactly(int(fields.get("content-length", 0)))


def _lists(path: str, head: str) -> dict[str, Any] | None:
    if path == "/v1/models":
        return {"data": [{"id": MODEL, "type": "model"}], "has_more": False}
    if path == "/api/tags":
        return {"models": [{"name": MODEL, "digest": "f"}]}
    return {"model_info": {}} if path == "/api/show" else None


def _last_message(body: dict[str, Any]) -> str:
    """What was said last: a message that was not answered comes joined with the one after it."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return text.rpartition("\n\n")[2]


async def _write_whole(
    writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes
) -> None:
    fields = {"Content-Type": "application/json", "Content-Length": len(body), **headers}
    writer.write(_head(status, fields) + body)
    await writer.drain()


async def _write_stream(
    writer: asyncio.StreamWriter,
    kind: str,
    chunks: list[bytes],
    pause: float,
    headers: dict[str, str] | None = None,
) -> None:
    fields = {"Content-Type": kind, "Transfer-Encoding": "chunked", **(headers or {})}
    writer.write(_head(200, fields))
    for chunk in chunks:
        await asyncio.sleep(pause)
        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _head(status: int, fields: Mapping[str, object]) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
