"""Whether a child that runs does its work: probes of its health port, and of nats-server."""

import asyncio
from urllib.parse import urlsplit

import msgspec

_NATS_PORT = 4222


class _Readiness(msgspec.Struct, frozen=True):
    """What is read of /readyz: the checks, and those that a new process may pass."""

    checks: dict[str, str] = {}
    restart_for: list[str] = []


async def failing_checks(host: str, port: int, timeout: float) -> dict[str, str]:
    """The failing checks of a service that a new process may pass: check → sentence.

    That another part is away, or that there is much to do, is not among them.
    """
    try:
        async with asyncio.timeout(timeout):
            status, body = await _get(host, port, "/readyz")
    except TimeoutError:
        return {"health": f"no answer within {timeout:g} s"}
    except OSError as error:
        return {"health": f"no answer: {error}"}
    if not status.startswith(b"HTTP/"):
        return {"health": "the connection was closed without an answer"}
    try:
        readiness = msgspec.json.decode(body, type=_Readiness)
    except msgspec.DecodeError:  # whatever that was, somebody answers
        return {}
    return {name: readiness.checks.get(name, "") for name in readiness.restart_for}


async def nats_greets(nats_url: str, timeout: float) -> bool:
    """Whether a nats-server greets a new connection; a stopped one accepts it and is silent."""
    url = urlsplit(nats_url)
    try:
        async with asyncio.timeout(timeout):
            greeting = await _first_line(url.hostname or "", url.port or _NATS_PORT)
    except (OSError, ValueError):  # a TimeoutError is an OSError, a line without end no value
        return False
    return greeting.startswith(b"INFO ")


async def _first_line(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await reader.readline()
    finally:
        writer.close()


async def _get(host: str, port: int, path: str) -> tuple[bytes, bytes]:
    """The head and the body of an answer over HTTP."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        name = f"[{host}]" if ":" in host else host
        request = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        return head, body
    finally:
        writer.close()
