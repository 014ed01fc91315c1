"""Whether a child that lives does its work: asked of its health port, and of NATS itself."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec

_NATS_PORT = 4222


class _Readiness(msgspec.Struct, frozen=True):
    """Of what /readyz says: the checks, and those that only a new start may mend."""

    checks: dict[str, str]
    restart_for: list[str] = []


async def stuck(host: str, port: int, timeout: float) -> dict[str, str]:
    """What keeps a service from its work that a new start may mend: check → sentence.

    That another part is away, or that there is much to do, is no reason.
    """
    try:
        async with asyncio.timeout(timeout):
            body = await _get(host, port, "/readyz")
        said = msgspec.json.decode(body, type=_Readiness)
    except TimeoutError:
        return {"health": f"no answer within {timeout:g} s"}
    except (OSError, EOFError, msgspec.DecodeError) as error:
        return {"health": f"no answer: {error or type(error).__name__}"}
    return {name: said.checks.get(name, "") for name in said.restart_for}


async def greets(nats_url: str, timeout: float) -> bool:
    """Whether a nats-server is there, and says so: one that stands still takes connections too."""
    for one in nats_url.split(","):
        try:
            url = urlsplit(one if "://" in one else f"nats://{one}")
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(url.hostname, url.port or _NATS_PORT)
            try:
                async with asyncio.timeout(timeout):
                    greeting = await reader.readline()
            finally:
                writer.close()
        except (OSError, ValueError):  # a TimeoutError is an OSError
            continue
        if greeting.startswith(b"INFO "):
            return True
    return False


async def _get(host: str, port: int, path: str) -> bytes:
    """The body of an answer over HTTP, whatever its status."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        name = f"[{host}]" if ":" in host else host
        asked = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
        writer.write(asked.encode())
        _, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        return body
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
