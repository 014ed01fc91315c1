"""Answers that are meant to hurt, or that nobody meant at all: over real sockets."""

import asyncio
import gzip
import importlib
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.llm_worker.providers import connections
from services.llm_worker.providers.base import Prompt, PromptMessage, Provider, ProviderError
from services.llm_worker.providers.registry import Registry
from shared.settings import Settings
from tests.support.providers import fault_of, reply_of
from tests.support.raw_server import Answering, RawServer, head
from tests.support.wires import wire

PROMPT = Prompt(model="odd", messages=[PromptMessage("user", "hello")])
PIECE = 64 * 1024
MEGABYTE = 1024 * 1024
LISTS = {"openai": "/v1/models", "anthropic": "/v1/models", "ollama": "/api/tags"}


@asynccontextmanager
async def provider_at(
    server: RawServer, name: str, timeout: float = 30.0
) -> AsyncIterator[Provider]:
    registry = Registry(
        Settings(
            openai_base_url=f"{server.url}/v1",
            ollama_host=server.url,
            anthropic_api_key="key",
            anthropic_base_url=server.url,
            llm_timeout=timeout,
            first_word_timeout=timeout,
        )
    )
    await registry.preload()
    try:
        yield registry.providers[name]
    finally:
        await registry.aclose()


@pytest.fixture(autouse=True, scope="module")
def sdk_is_imported() -> None:
    """Its import would count as silence, and as memory."""
    importlib.import_module("anthropic")
    importlib.import_module("httpx2")


def answers(*pieces: bytes) -> Answering:
    async def answer(path: str) -> AsyncIterable[bytes]:
        del path
        for piece in pieces:
            yield piece

    return answer


def endless(start: bytes, piece: bytes, most: int = 100 * MEGABYTE) -> Answering:
    """``start``, and then ``piece`` again and again."""

    async def answer(path: str) -> AsyncIterable[bytes]:
        del path
        yield start
        for _ in range(most // len(piece)):
            yield piece

    return answer


def framed(name: str, data: bytes) -> bytes:
    """``data`` as the beginning of a frame."""
    return data if name == "ollama" else b"data: " + data


async def fault_from(name: str, answer: Answering) -> ProviderError:
    async with RawServer(answer) as server, provider_at(server, name) as provider:
        _, fault = await fault_of(provider, PROMPT)
    return fault


@asynccontextmanager
async def bounded(most: int) -> AsyncIterator[None]:
    """No more than ``most`` bytes of Python's are in use at any time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak:,} bytes"


# -- size -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", [b"", b'{"choices":[{"delta":{"content":"', b'{"message":{"content":"', b"{"]
)
async def test_a_line_of_a_hundred_megabytes_is_given_up_on_early(name: str, start: bytes):
    answer = endless(head() + framed(name, start), b"x" * PIECE)

    async with (
        RawServer(answer) as server,
        provider_at(server, name) as provider,
        bounded(40 * MEGABYTE),
    ):
        text, fault = await fault_of(provider, PROMPT)

    assert (text, fault.message) == ("", f"{name} sent what cannot be read.")
    assert server.sent < 20 * MEGABYTE


@pytest.mark.parametrize("piece", [b"[", b'{"a":', b"[],", b"{},", b'["a",1.5],'])
async def test_json_without_end_takes_no_memory(name: str, piece: bytes):
    answer = endless(head() + framed(name, b'{"error":['), piece * (PIECE // len(piece)))

    async with bounded(40 * MEGABYTE):
        fault = await fault_from(name, answer)

    assert fault.transient


@pytest.mark.parametrize("piece", [b"[", b"{},"])
async def test_many_lines_of_deep_or_wide_json_take_no_memory(name: str, piece: bytes):
    line = framed(name, b'{"error":' + piece * 20_000) + b"\n\n"
    answer = endless(head(), line, 8 * MEGABYTE)

    async with bounded(30 * MEGABYTE):
        fault = await fault_from(name, answer)

    assert "sent nothing that can be read as a reply" in fault.message


async def test_an_error_of_a_hundred_megabytes_is_read_in_part(name: str):
    answer = endless(head(500, Content_Type="application/json") + b'{"error": "', b"x" * PIECE)

    async with (
        RawServer(answer) as server,
        provider_at(server, name) as provider,
        bounded(20 * MEGABYTE),
    ):
        _, fault = await fault_of(provider, PROMPT)

    assert fault.message.startswith(f"{name} answered 500: ")
    assert len(fault.message) < 1200
    assert server.sent < 20 * MEGABYTE


async def test_an_error_that_drips_is_not_waited_for(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "EXPLAINING", 0.2)

    async def answer(path: str) -> AsyncIterable[bytes]:
        del path
        yield head(500) + b"It broke"
        await asyncio.Event().wait()

    async with asyncio.timeout(4):
        fault = await fault_from(name, answer)

    assert fault.message == f"{name} answered 500: It broke"


async def test_a_drip_that_is_no_reply_is_silence(name: str):
    async def answer(path: str) -> AsyncIterable[bytes]:
        del path
        yield head()
        while True:
            yield b": ping\n\n"
            await asyncio.sleep(0.02)

    async with RawServer(answer) as server, provider_at(server, name, 0.3) as provider:
        _, fault = await fault_of(provider, PROMPT)

    assert fault.code == "timeout"


async def test_headers_without_end_are_an_unreachable_provider(name: str):
    answer = endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1_000 + b"\r\n", 4 * MEGABYTE)

    fault = await fault_from(name, answer)

    assert (fault.code, fault.transient) == ("provider_unavailable", True)


async def test_what_is_no_http_is_an_unreachable_provider(name: str):
    fault = await fault_from(name, answers(b"SSH-2.0-OpenSSH_9.6\r\n"))

    assert (fault.code, fault.transient) == ("provider_unavailable", True)


# -- lengths and codings ----------------------------------------------------------------


async def test_a_length_that_is_too_long_breaks_off_what_has_no_end(name: str):
    data = wire(name, ["one ", "two"])
    half = data[: data.index(b"two")]

    fault = await fault_from(name, answers(head(Content_Length=9_999), half))
    assert fault.message == f"{name} broke off before the end of its reply."

    async with (
        RawServer(answers(head(Content_Length=9_999), data)) as server,
        provider_at(server, name) as provider,
    ):
        text, _ = await reply_of(provider, PROMPT)
    assert text == "one two"


async def test_a_length_that_is_too_short_breaks_off(name: str):
    data = wire(name, ["one ", "two"])

    fault = await fault_from(name, answers(head(Content_Length=data.index(b"two")), data))

    assert fault.transient


def packed(data: bytes, coding: str) -> bytes:
    return gzip.compress(data) if coding == "gzip" else zlib.compress(data)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_coding_that_was_not_asked_for_is_undone(name: str, coding: str):
    body = packed(wire(name, ["one ", "two"]), coding)
    pieces = [bytes([byte]) for byte in body]

    async with (
        RawServer(answers(head(Content_Encoding=coding), *pieces)) as server,
        provider_at(server, name) as provider,
    ):
        text, _ = await reply_of(provider, PROMPT)

    assert text == "one two"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_coding_that_was_only_promised_is_a_passing_fault(name: str, coding: str):
    fault = await fault_from(
        name, answers(head(Content_Encoding=coding), wire(name, ["one "]) * 100)
    )

    assert fault.transient


async def test_an_unknown_coding_is_a_fault_with_a_reason(name: str):
    fault = await fault_from(name, answers(head(Content_Encoding="zstd2"), b"\x28\xb5\x2f\xfd" * 9))

    assert fault.transient
    assert name in fault.message


async def test_a_packed_flood_is_given_up_on_early(name: str):
    packer = zlib.compressobj(wbits=31)
    body = packer.compress(framed(name, b""))
    for _ in range(100):
        body += packer.compress(b"x" * MEGABYTE)
    body += packer.flush()

    async with bounded(60 * MEGABYTE):
        fault = await fault_from(name, answers(head(Content_Encoding="gzip"), body))

    assert fault.message == f"{name} sent what cannot be read."


# -- elsewhere --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nobody_follows_a_redirect(name: str, status: int):
    answer = answers(head(status, Location="/elsewhere", Content_Length=0))

    async with RawServer(answer) as server, provider_at(server, name) as provider:
        _, fault = await fault_of(provider, PROMPT)
        with pytest.raises(ProviderError) as listing:
            await provider.models()

    assert "redirects to /elsewhere" in fault.message
    assert "redirects to /elsewhere" in listing.value.message
    assert (fault.transient, "/elsewhere" in server.paths) == (False, False)


def missing(body: bytes, models: bytes | None) -> Answering:
    """404 for a reply; a list of models, or none."""

    async def answer(path: str) -> AsyncIterable[bytes]:
        if path.partition("?")[0] in LISTS.values() and models is not None:
            yield head(Content_Type="application/json") + models
        else:
            yield head(404) + body

    return answer


LISTED = json.dumps({"data": [{"id": "odd"}], "models": [{"name": "odd"}]}).encode()
OTHERS = json.dumps({"data": [{"id": "other"}], "models": [{"name": "other"}]}).encode()


@pytest.mark.parametrize(
    ("body", "models", "code", "reason"),
    [
        (b"404 page not found", LISTED, "provider_error", "It does list the model 'odd'"),
        (b'{"error": "model odd not found"}', LISTED, "provider_error", "It does list the model"),
        (b"404 page not found", None, "provider_error", "Its models cannot be listed"),
        (b'{"detail": "Not Found"}', None, "provider_error", "Its models cannot be listed"),
        (b'{"error": "model odd not found"}', None, "model_not_found", "has no model 'odd'."),
        (b'{"error": "model odd not found"}', OTHERS, "model_not_found", "There are: other."),
        (b"404 page not found", OTHERS, "model_not_found", "There are: other."),
    ],
)
async def test_a_path_that_is_not_there_is_told_from_a_model_that_is_not(
    name: str, body: bytes, models: bytes | None, code: str, reason: str
):
    async with (
        RawServer(missing(body, models)) as server,
        provider_at(server, name) as provider,
    ):
        _, fault = await fault_of(provider, PROMPT)

    assert reason in fault.message
    assert (fault.code, fault.transient) == (code, False)
    assert (server.url in fault.message) == (code == "provider_error")


async def test_an_address_without_its_version_is_asked_about():
    async with RawServer(missing(b"404 page not found", None)) as server:
        registry = Registry(Settings(openai_base_url=server.url))
        _, fault = await fault_of(registry.providers["openai"], PROMPT)
        await registry.aclose()

    assert "is /v1 missing at its end?" in fault.message


async def test_any_status_of_success_is_one(name: str):
    data = wire(name, ["one"])

    async with (
        RawServer(answers(head(201), data)) as server,
        provider_at(server, name) as provider,
    ):
        text, _ = await reply_of(provider, PROMPT)

    assert text == "one"


# -- lists of models --------------------------------------------------------------------


def list_of(*models: object) -> bytes:
    return json.dumps({"data": list(models), "models": list(models)}).encode()


async def models_in(name: str, body: bytes) -> list[str]:
    async with (
        RawServer(answers(head(Content_Type="application/json"), body)) as server,
        provider_at(server, name) as provider,
    ):
        return [model.name for model in await provider.models()]


@pytest.mark.parametrize(
    "body",
    [
        list_of({"id": "a", "name": "a"}, {"id": "b", "name": "b"}),
        json.dumps([{"id": "a", "name": "a"}, {"id": "b", "name": "b"}]).encode(),
        list_of(
            {"id": "a", "name": "a"}, None, 5, {}, {"id": 5, "name": 5}, {"id": "b", "name": "b"}
        ),
        list_of(
            {"id": "a", "name": "a", "created": "today", "size": "big", "max_tokens": -1},
            {"id": "b", "name": "b", "details": 5, "capabilities": "all", "context_length": 1e300},
        ),
    ],
)
async def test_a_list_is_read_as_far_as_it_can_be(name: str, body: bytes):
    assert await models_in(name, body) == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>Welcome</html>", "a web page instead"),
        (b'{"error": {"message": "It broke."}}', "It broke."),
        (b"[" * 100_000, "no list of its models"),
        (b'{"data": 5, "models": 5}', "no list of its models"),
        (b"", "no list of its models"),
        (b'{"data": [' + b"{}," * 500_000 + b"{}]}", "no list of its models"),
    ],
)
async def test_what_is_no_list_is_a_fault_with_a_reason(name: str, body: bytes, reason: str):
    async with bounded(30 * MEGABYTE):
        with pytest.raises(ProviderError, match=reason):
            await models_in(name, body)


async def test_a_list_without_end_is_given_up_on(name: str):
    answer = endless(head() + b'{"data": [', b"1," * (PIECE // 2))

    async with (
        RawServer(answer) as server,
        provider_at(server, name) as provider,
        bounded(20 * MEGABYTE),
    ):
        with pytest.raises(ProviderError, match="cannot be read"):
            await provider.models()


async def test_a_long_list_is_cut(name: str):
    body = list_of(*({"id": f"m{n}", "name": f"m{n}"} for n in range(5_000)))

    assert len(await models_in(name, body)) == 2_000
