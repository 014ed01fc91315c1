# ruff: noqa: T201  (a script talks to a person)
"""Say something, and watch the reply being written.

    make run                                        # in another terminal
    python examples/channels_client.py "demo: words=200 rate=20"

Needs aiohttp alone.  Stop the gateway in the middle, or the worker: it goes on.
"""

import asyncio
import json
import os
import sys

import aiohttp

URL = os.environ.get("NATTERLOG_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("NATTERLOG_TOKEN")  # needed as soon as there is one
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
API = "/ai-chat/api/sessions/"


async def create_session(http: aiohttp.ClientSession, title: str) -> str:
    async with http.post(URL + API, json={"title": title}) as response:
        session = await response.json()
    if response.status != 201:
        sys.exit(f"{response.status}: {session}")
    return session["id"]


async def chat(http: aiohttp.ClientSession, session_id: str, text: str) -> None:
    """Show the reply to one message, through any number of connections."""
    # With a client_id it is the same message however often it is sent.
    message = {"type": "send_message", "message": text, "client_id": "1"}
    shown = ""
    while True:
        try:
            async with http.ws_connect(f"{URL}/ws/ai-chat/session/{session_id}/") as ws:
                await ws.send_json(message)
                async for raw in ws:
                    event = json.loads(raw.data)
                    match event["type"]:
                        case "user_message" if reply := await reply_of(http, session_id):
                            show(shown, reply["content"])  # it ended while we were away
                            return
                        case "ai_message_chunk":
                            shown = show(shown, event["full_content"])
                        case "ai_message_complete":
                            return
                        case "error":
                            sys.exit(f"\n{event['code']}: {event['message']}")
        except aiohttp.ClientError:
            pass
        print("\n(reconnecting)")
        await asyncio.sleep(3)


async def reply_of(http: aiohttp.ClientSession, session_id: str) -> dict[str, str] | None:
    """The reply as it is kept, once it is complete."""
    async with http.get(f"{URL}{API}{session_id}/messages/") as response:
        page = await response.json()
    return page["results"][1] if page.get("count") == 2 else None


def show(shown: str, whole: str) -> str:
    """Print what is new of the text."""
    if not whole.startswith(shown):
        print("\n(it starts over)")
        shown = ""
    print(whole[len(shown) :], end="", flush=True)
    return whole


async def main(text: str = "Hello, AI!") -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        await chat(http, await create_session(http, text[:100]), text)
    print()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
