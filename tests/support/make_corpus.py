"""Live through the sessions that ``tests/corpus`` began with.

    python -m tests.support.make_corpus

Each is a story of its own, told by the fake provider or the demo, and kept by
``natterlog verify --add``.  What is there already stays as it is: a session is
recorded once, and never again, because it is the code that must not change it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.content_client import ContentClient
from tests.support.documents_client import DocumentsClient
from tests.support.fake_script import Script
from tests.support.log_checks import wait_until_all_ended
from tests.support.native_client import Reply
from tests.support.running import Running, running_system

CORPUS = Path(__file__).parents[1] / "corpus"
UNICODE = "Zoë’s café: e\u0301 is é, 👩‍👩‍👧 is one family, 🇩🇪 a flag, שלום and 你好 too. 𝔘\u0308ber"
FILE = b"Ada Lovelace was born in 1815.\n" * 400


async def plain_reply(on: Running) -> str:
    """Two turns, and the second answer once more."""
    session_id = await on.client.session(title="Plain")
    await on.client.send(session_id, "Hello! tokens=8 rate=40")
    reply = await on.client.send(session_id, "And then? tokens=5 rate=40")
    assert reply.end is not None
    answered = reply.end["message"]["id"]
    status, _ = await on.client.call("POST", f"/messages/{answered}/regenerate")
    assert status == 201
    return session_id


async def demo_reply(on: Running) -> str:
    session_id = await on.client.session(model="demo")
    await on.client.send(session_id, "demo: words=12 rate=40")
    return session_id


async def cancelled(on: Running) -> str:
    session_id = await on.client.session()
    reply = Reply()
    await on.client.start(reply, session_id, "tokens=5000 rate=40")
    await on.client.follow(reply, until=40)
    await on.client.call("POST", f"/runs/{reply.run_id}/cancel")
    await on.client.follow(reply)
    return session_id


async def failed(on: Running) -> str:
    """At once, and in the middle for good."""
    session_id = await on.client.session()
    await on.client.send(session_id, "fail=400x9")
    await on.client.send(session_id, "tokens=20 rate=40 fault=drop@6")
    return session_id


async def reset(on: Running) -> str:
    """The provider breaks off, and the second attempt is whole."""
    session_id = await on.client.session()
    await on.client.send(session_id, "tokens=12 rate=40 fault=drop@6x1")
    return session_id


async def worker_killed(on: Running) -> str:
    session_id = await on.client.session()
    reply = Reply()
    await on.client.start(reply, session_id, "tokens=30 rate=20")
    await on.client.follow(reply, until=40)
    worker = on.system.one("llm-worker")
    await worker.kill()
    await worker.start()
    await on.client.follow(reply)
    return session_id


async def queued(on: Running) -> str:
    """Two messages wait; one of them is cancelled before its turn."""
    session_id = await on.client.session(on_busy="queue")
    first, second, third = Reply(), Reply(), Reply()
    await on.client.start(first, session_id, "tokens=20 rate=20")
    await on.client.start(second, session_id, "never mind")
    await on.client.start(third, session_id, "tokens=4 rate=20")
    await on.client.call("POST", f"/runs/{second.run_id}/cancel")
    await on.client.follow(third)
    return session_id


async def interrupted(on: Running) -> str:
    session_id = await on.client.session(on_busy="interrupt")
    first, second = Reply(), Reply()
    await on.client.start(first, session_id, "tokens=5000 rate=40")
    await on.client.follow(first, until=40)
    await on.client.start(second, session_id, "tokens=5 rate=40")
    await on.client.follow(second)
    return session_id


async def unicode(on: Running) -> str:
    on.fake.next.append(Script(reply=UNICODE, rate=40))
    session_id = await on.client.session()
    await on.client.send(session_id, f"Say this: {UNICODE}")
    await on.client.send(session_id, "tokens=6 rate=40 fault=split@3")
    return session_id


async def continued(on: Running) -> str:
    """A cut reply is rated, goes on, is cut again, is stopped at once, and comes to its end."""
    session_id = await on.client.session()
    reply = await on.client.send(session_id, "A story. tokens=6 rate=40 stop=length")
    assert reply.end is not None
    cut = reply.end["message"]["id"]
    await on.client.call("PUT", f"/messages/{cut}/feedback", json={"rating": "down"})
    on.fake.next.extend(
        (Script(tokens=5, rate=40, stop="length"), Script(delay=60), Script(tokens=4, rate=40))
    )
    for stopped in (False, True, False):
        going = Reply()
        await on.client.go_on(going, cut)
        if stopped:
            await on.fake.wait_for(lambda: len(on.fake.seen) == 3)
            await on.client.call("POST", f"/runs/{going.run_id}/cancel")
        await on.client.follow(going)
    await on.client.send(session_id, "And then? tokens=3 rate=40")
    return session_id


async def empty(on: Running) -> str:
    session_id = await on.client.session()
    await on.client.send(session_id, "fault=empty")
    return session_id


async def document(on: Running) -> str:
    async with DocumentsClient(on.system.url) as client:
        job_id = await client.upload(FILE, "When? tokens=12 rate=40", name="ada.txt")
        await client.watch()
    return job_id


async def document_cancelled(on: Running) -> str:
    async with DocumentsClient(on.system.url) as client:
        job_id = await client.upload(FILE, "tokens=5000 rate=40", name="ada.txt")
        answer = client.answers[job_id]
        await client.watch(until=lambda: len(answer.text) > 40)
        await client.call("POST", f"/api/jobs/{job_id}/cancel")
        await client.watch()
    return job_id


async def pipeline(on: Running) -> str:
    """One answer misses its schema."""
    strategy = {
        "keywords": ["botox"],
        "audience": "adults",
        "tone": "calm",
        "hooks": ["Is it safe?"],
        "hashtags": ["#botox"],
    }
    compliance = {"approved": True, "issues": [], "disclaimer": "Ask a doctor."}
    answers = ["no JSON", json.dumps(strategy), "# Slide 1: Is it safe?", json.dumps(compliance)]
    on.fake.next.extend(Script(reply=answer, rate=60) for answer in answers)
    async with ContentClient(on.system.url) as client:
        path = await client.start()
        await client.watch(path)
    return path.rpartition("/")[2]


STORIES: list[Callable[[Running], Awaitable[str]]] = [
    plain_reply,
    demo_reply,
    cancelled,
    failed,
    reset,
    worker_killed,
    queued,
    interrupted,
    unicode,
    continued,
    empty,
    document,
    document_cancelled,
    pipeline,
]


async def main() -> None:
    async with running_system() as on:
        for story in STORIES:
            name = story.__name__.replace("_", "-")
            if (CORPUS / f"{name}.jsonl").exists():
                continue
            on.fake.reset()
            named = await story(on)
            await wait_until_all_ended(on.bus)
            await _keep(on, name, named)


async def _keep(on: Running, name: str, named: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "verify", str(CORPUS)),
        *("--add", named, "--as", name),
        env={
            **os.environ,
            "NATTERLOG_NATS_URL": on.system.nats.url,
            "NATTERLOG_DATA_DIR": str(on.system.data_dir),
        },
    )
    assert await process.wait() == 0


if __name__ == "__main__":
    asyncio.run(main())
