# ruff: noqa: T201  (a script talks to a person)
"""Ask the assistant something, and lose no character of its reply.

    make run                                        # in another terminal
    python examples/assistant_client.py "demo: words=200 rate=20"

Needs aiohttp alone.  Stop the gateway in the middle, or the worker: it goes on from its
cursor.
"""

import asyncio
import json
import os
import sys
from typing import Any

import aiohttp

URL = os.environ.get("NATTERLOG_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("NATTERLOG_TOKEN")  # needed as soon as there is one
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
API = "/api/v1/chat"


async def send(http: aiohttp.ClientSession, content: str) -> str:
    """Send a message to a new session; answers the run that writes its reply."""
    async with http.post(f"{URL}{API}/sessions", json={"mode": "general"}) as response:
        session = await response.json()
    if response.status != 201:
        sys.exit(f"{session['code']}: {session['detail']}")
    body = {"session_id": session["id"], "content": content}
    async with http.post(f"{URL}{API}/messages?stream=true", json=body) as response:
        if response.status != 200:
            sys.exit(await response.text())
        return response.headers["X-Run-Id"]


async def follow(http: aiohttp.ClientSession, run: str) -> None:
    """Show the reply, through any number of connections."""
    cursor = ""
    while True:
        try:
            headers = {"Last-Event-ID": cursor}
            async with http.get(f"{URL}{API}/runs/{run}/stream", headers=headers) as response:
                async for line in response.content:
                    if line.startswith(b"id: "):
                        cursor = line.removeprefix(b"id: ").decode().strip()
                    elif line.startswith(b"data: ") and show(json.loads(line[6:])):
                        return
        except aiohttp.ClientError:
            pass
        print("\n(reconnecting)")
        await asyncio.sleep(3)


def show(event: dict[str, Any]) -> bool:
    """Print one event; True at the end."""
    match event["type"]:
        case "chunk":
            print(event["content"], end="", flush=True)
        case "reset":
            print("\n(it starts over)")
        case "message_complete":
            print()
        case "error":
            sys.exit(f"\n{event['code']}: {event['message']}")
    return event["type"] == "message_complete"


async def main(content: str = "What should my next video be about?") -> None:
    # the last line of a stream has all of the reply
    async with aiohttp.ClientSession(headers=HEADERS, read_bufsize=2**22) as http:
        await follow(http, await send(http, content))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
