# ruff: noqa: T201  (a script talks to a person)
"""Hold an interview: each reply is shown as it comes, and the next one knows all of it.

    make run                                        # in another terminal
    python examples/interview_client.py "I build compilers." "In my free time, too."

Needs aiohttp alone.  What fails before its first words is tried again; a reply that is
cut in its middle is told, and asked for once more.
"""

import asyncio
import json
import os
import sys

import aiohttp

URL = os.environ.get("NATTERLOG_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("NATTERLOG_TOKEN")  # needed as soon as there is one
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
SYSTEM = "You are an interviewer. Ask one short question at a time."


async def choose(http: aiohttp.ClientSession) -> str:
    """The first model that is no demo, if there is one."""
    async with http.get(f"{URL}/api/models/") as response:
        names = [model["name"] for model in (await response.json())["models"]]
    return next((name for name in names if name != "demo"), "demo")


async def ask(http: aiohttp.ClientSession, model: str, prompt: str) -> str:
    """Show the reply while it is being written; ask again, later and later, when that fails."""
    body = {"model": model, "system": SYSTEM, "prompt": prompt, "options": {"num_predict": 300}}
    for attempt in range(6):
        try:
            async with http.post(f"{URL}/api/generate/", json=body) as response:
                if response.status == 200:
                    return await show(response)
                error = (await response.json())["error"]
                if response.status < 500 and response.status != 429:
                    sys.exit(f"{response.status}: {error}")
        except (aiohttp.ClientError, ConnectionError) as broken:
            error = str(broken)
        print(f"\n({error}; once more)")
        await asyncio.sleep(0.5 * 2**attempt)
    sys.exit("It gave up.")


async def show(response: aiohttp.ClientResponse) -> str:
    """Print the pieces as they come; the whole of them."""
    text = ""
    async for line in response.content:
        if line.startswith(b"data: "):  # others are comments, which keep the line open
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                raise ConnectionError(event["error"])
            print(event["response"], end="", flush=True)
            text += event["response"]
            if event["done"]:
                print()
                return text
    raise ConnectionError("the line was cut")


async def main(*answers: str) -> None:
    transcript = ""
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        model = await choose(http)
        for answer in answers or ("Hello! I would like the job.",):
            print(f"> {answer}")
            transcript += f"Candidate: {answer}\n"
            transcript += f"Interviewer: {await ask(http, model, transcript)}\n"


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
