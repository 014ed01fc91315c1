# ruff: noqa: T201  (a script talks to a person)
"""Ask the assistant something, and lose no character of its reply.

    make run                                        # in another terminal
    python examples/assistant_client.py "demo: words=200 rate=20"

Needs aiohttp alone.  Stop the gateway in the middle, or the worker: it goes on from its
cursor.
"""

import asyncio
import json
import sys
import uuid
from typing import Any

import aiohttp

API = "http://127.0.0.1:8000/api/v1/chat"


async def start(http: aiohttp.ClientSession, content: str) -> tuple[str, str]:
    """Send a message to a new session; answers its run, and the cursor of its first event."""
    async with http.post(f"{API}/sessions", json={"mode": "general"}) as response:
        session = await response.json()
    if response.status != 201:
        sys.exit(f"{session['code']}: {session['detail']}")
    body = {"session_id": session["id"], "content": content}
    headers = {"Idempotency-Key": str(uuid.uuid4())}  # sent again, it is the same message
    url = f"{API}/messages?stream=true"
    async with http.post(url, json=body, headers=headers) as response:
        if response.status != 200:
            sys.exit(await response.text())
        return response.headers["X-Run-Id"], ""


async def follow(http: aiohttp.ClientSession, run: str, cursor: str) -> None:
    """Show the reply, through any number of connections."""
    while True:
        try:
            headers = {"Last-Event-ID": cursor}
            async with http.get(f"{API}/runs/{run}/stream", headers=headers) as response:
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
    async with aiohttp.ClientSession() as http:
        await follow(http, *await start(http, content))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
