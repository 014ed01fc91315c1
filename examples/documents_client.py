# ruff: noqa: T201  (a script talks to a person)
"""Upload a file with a question and watch the answer come.

    make run                                        # in another terminal
    python examples/documents_client.py README.md "What is this about?"

Needs aiohttp alone.  Stop the gateway in the middle: it comes back by itself.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp

URL = os.environ.get("NATTERLOG_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("NATTERLOG_TOKEN")  # needed as soon as there is one
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}


async def upload(http: aiohttp.ClientSession, path: Path, prompt: str) -> str:
    """Send the file as it is read; answers the job's id."""
    with path.open("rb") as file:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("prompt", prompt)
        form.add_field("file", file, filename=path.name)
        async with http.post(f"{URL}/api/upload", data=form) as response:
            body = await response.json()
    if not body["success"]:
        sys.exit(f"{body['code']}: {body['error']}")
    return body["data"]["job_id"]


async def watch(http: aiohttp.ClientSession, job_id: str) -> None:
    """Show the job's progress and text up to its end, through any number of connections."""
    while True:
        try:
            async with http.ws_connect(f"{URL}/ws") as ws:
                await ws.send_json({"type": "subscribe", "job_ids": [job_id]})
                async for message in ws:
                    event = json.loads(message.data)
                    if event.get("job_id") == job_id and show(event):
                        return
        except aiohttp.ClientError:
            pass
        print("\n(reconnecting)")
        await asyncio.sleep(3)


def show(event: dict[str, Any]) -> bool:
    """Print one message; True at the end."""
    match event["type"]:
        case "job_update":
            print(f"\n[{event['progress']:3}%] {event['status']}: {event['step']}")
        case "ai_chunk":
            print(event["chunk"] or "\n(it starts over)", end="", flush=True)
        case "job_failed":
            print(f"\n{event['code']}: {event['error']}")
    return event["type"] in ("job_completed", "job_failed")


async def main(path: str, prompt: str = "What is in this file?") -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        await watch(http, await upload(http, Path(path), prompt))


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except aiohttp.ClientConnectionError as error:
        sys.exit(f"Nothing answers at {URL} (NATTERLOG_URL): {error}. Does natterlog run there?")
