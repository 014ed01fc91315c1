# ruff: noqa: T201  (a script talks to a person)
"""Have a post written, step by step.

    make run                                        # in another terminal
    python examples/content_client.py Sunscreen "Make it reassuring" Instagram

Needs aiohttp alone.  Stop the gateway in the middle: it comes back by itself.
"""

import asyncio
import json
import os
import sys

import aiohttp

URL = os.environ.get("NATTERLOG_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("NATTERLOG_TOKEN")  # needed as soon as there is one
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}


async def start(http: aiohttp.ClientSession, topic: str, query: str, platform: str) -> str:
    """Start the job; answers where it can be watched."""
    body = {"topic": topic, "query": query, "platform": platform}
    async with http.post(f"{URL}/chat/start", json=body) as response:
        answer = await response.json()
    if response.status != 200:
        sys.exit(f"{answer['code']}: {answer['error']}")
    return answer["websocket_url"]


async def watch(http: aiohttp.ClientSession, path: str) -> None:
    """Show each step once, and the result, through any number of connections."""
    seen: set[str] = set()
    while True:
        try:
            async with http.ws_connect(URL + path) as ws:
                async for message in ws:
                    event = json.loads(message.data)
                    match event["type"]:
                        case "progress" if event["step"] not in seen:
                            seen.add(event["step"])
                            print(event["message"])
                        case "result":
                            print(f"\n{event['response_text']}\n")
                            print("Strategy:", json.dumps(event["strategy"], indent=2))
                            print("Compliance:", json.dumps(event["compliance"], indent=2))
                            return
                        case "error":
                            sys.exit(f"{event['code']} at {event.get('step')}: {event['message']}")
        except aiohttp.ClientError:
            pass
        print("(reconnecting)")
        await asyncio.sleep(3)


async def main(
    topic: str = "Sunscreen", query: str = "Make it reassuring", platform: str = "Instagram"
) -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        await watch(http, await start(http, topic, query, platform))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
