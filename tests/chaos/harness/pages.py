"""Front ends of the four other dialects, each written from its document, on one errand each."""

import asyncio
from contextlib import suppress
from typing import Any

from tests.chaos.harness.errand import PAUSE, Errand, objections, patiently
from tests.chaos.harness.evidence import Shown
from tests.chaos.harness.prompts import MODELS, mark_of
from tests.support.browser import BROKEN
from tests.support.channels_client import ChatClient
from tests.support.content_client import ContentClient
from tests.support.documents_client import DocumentsClient
from tests.support.interview_client import Answer as InterviewAnswer
from tests.support.interview_client import InterviewClient

_FOR_EVER = 10_000
"""Reconnects, and seconds: how long a page goes on trying is no matter of this harness."""
_ROWS = b"name,age\n" + b"Ada,36\n" * 40


# -- channels -----------------------------------------------------------------------------


async def chat(errand: Errand) -> None:
    """A few messages in one session, each sent again under its id until it is answered."""
    async with ChatClient(*errand.urls) as page:
        fields = {"model": errand.draw_model()}
        status, session = await patiently(lambda: page.call("POST", "/sessions/", json=fields))
        assert status == 201, session
        errand.sessions.add(session["id"])
        first = errand.begin("channels", "socket")
        with objections(first):
            await page.open(session["id"])
            for _ in range(errand.rng.randint(1, 3)):
                await _chat_once(page, errand.prompt())
        for reply in page.replies():
            if reply["status"] in ("completed", "cancelled"):
                shown = errand.begin("channels", "socket")
                shown.message_id, shown.text = reply["id"], reply["content"]
                shown.status, shown.ends = reply["status"], 1
                shown.resets, shown.cuts = page.resets, page.connections - 1


async def _chat_once(page: ChatClient, prompt: str) -> None:
    """Until there is one more reply, or an error for a message that is there: it has failed.

    A message that is not there when the page has connected again is sent again.
    """
    replies = len(_complete(page))
    while True:
        seen = page.connections, len(page.errors)
        if page.connected:
            with suppress(*BROKEN):
                await page.send_frame("send_message", message=prompt, client_id=mark_of(prompt))
        await page.until(
            lambda seen=seen: (
                len(_complete(page)) > replies or (page.connections, len(page.errors)) != seen
            ),
            _FOR_EVER,
        )
        is_there = any(message["content"] == prompt for message in page.messages.values())
        if len(_complete(page)) > replies or (is_there and len(page.errors) > seen[1]):
            return


def _complete(page: ChatClient) -> list[dict[str, Any]]:
    return [reply for reply in page.replies() if reply["status"] in ("completed", "cancelled")]


# -- documents ----------------------------------------------------------------------------


async def ask_about_a_file(errand: Errand) -> None:
    """Upload a file, and watch or poll its job to the end; some are cancelled."""
    rng = errand.rng
    prompt, via = errand.prompt(), rng.choice(("socket", "socket", "poll"))
    cancels, priority = rng.random() < 0.1, str(rng.randrange(10))
    async with DocumentsClient(*errand.urls, reconnects=_FOR_EVER) as page:
        status, body = await patiently(
            lambda: page.uploaded(_ROWS, name="people.csv", prompt=prompt, priority=priority)
        )
        assert status == 200, body
        shown = errand.begin("documents", via)
        shown.run_id = body["data"]["job_id"]
        with objections(shown):
            if cancels:
                await patiently(lambda: page.call("POST", f"/api/jobs/{shown.run_id}/cancel"))
            if via == "poll":
                await _poll_job(page, shown)
            else:
                await _watch_job(page, shown)


async def _watch_job(page: DocumentsClient, shown: Shown) -> None:
    answer = page.expect(shown.run_id)
    try:
        await page.watch()
    finally:
        shown.text, shown.progress, shown.resets = answer.text, answer.seen, answer.resets
        shown.cuts = page.reconnects
    end = answer.end
    assert end is not None
    shown.ends = 1
    shown.status = "completed" if end["type"] == "job_completed" else _ended(end["code"])
    if end["type"] == "job_completed":
        assert end["ai_response"] == answer.text, "the response is not what its chunks are together"


async def _poll_job(page: DocumentsClient, shown: Shown) -> None:
    while not shown.status:
        status, body = await patiently(lambda: page.call("GET", f"/api/jobs/{shown.run_id}"))
        assert status == 200, body
        job = body["data"]
        shown.progress = [*shown.progress, job["progress"]]
        if job["status"] in ("completed", "failed", "cancelled"):
            shown.status, shown.ends = job["status"], 1
            shown.text = job["ai_response"] or ""
        else:
            await asyncio.sleep(PAUSE)  # what such a client does


def _ended(code: str) -> str:
    return "cancelled" if code == "cancelled" else "failed"


# -- content ------------------------------------------------------------------------------


async def make_a_post(errand: Errand) -> None:
    """Start a pipeline under a reference, so that it may be sent again, and watch its steps."""
    query = errand.prompt(tokens=40)
    mark = errand.mark(1)
    async with ContentClient(*errand.urls, reconnects=_FOR_EVER) as page:
        status, body = await patiently(
            lambda: page.started(topic=f"Chaos {mark}", query=query, session_id=mark)
        )
        assert status == 200, body
        shown = errand.begin("content", "socket")
        shown.session_id, shown.step = body["session_id"], "content_generation"
        with objections(shown):
            try:
                await page.watch(body["websocket_url"])
            finally:
                shown.steps, shown.cuts = page.steps(), page.reconnects
            assert page.end is not None
            _note_result(shown, page.end)


def _note_result(shown: Shown, end: dict[str, Any]) -> None:
    shown.ends = 1
    if end["type"] == "error":
        shown.status = _ended(end["code"])
        return
    shown.status, shown.text = "completed", end["response_text"]
    assert set(end["strategy"]) == {"keywords", "audience", "tone", "hooks", "hashtags"}
    assert set(end["compliance"]) == {"approved", "issues", "disclaimer"}


# -- interview ----------------------------------------------------------------------------


async def interview(errand: Errand) -> None:
    """One prompt without a session; this dialect knows no cursor, and is told what broke."""
    prompt, answer = errand.prompt(), InterviewAnswer()
    shown = errand.begin("interview", "stream")
    async with InterviewClient(f"{errand.urls[0]}/api", seconds=10) as page:
        with objections(shown):
            try:
                async for _ in page.stream(answer, prompt, MODELS["openai"]):
                    pass
            except BROKEN:
                shown.cuts = 1
    shown.run_id, shown.text = answer.headers.get("X-Run-Id", ""), answer.text
    if not shown.text:
        await asyncio.sleep(PAUSE)  # what a person does before the next try
    if answer.done and not answer.error:
        shown.status, shown.ends = "completed", 1
