"""The document front ends' socket: state first, then whatever happens to the user's jobs."""

from typing import Any

import aiohttp
import pytest

from shared.events import Fault, PreviousAttempt
from tests.contract.test_documents_http import accepted
from tests.support.absent import ABSENT_ID
from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, frame, frames, stage

Frame = dict[str, Any]


def update(job_id: str, progress: int, step: str, status: str) -> Frame:
    return {
        "type": "job_update",
        "job_id": job_id,
        "progress": progress,
        "step": step,
        "status": status,
    }


def chunk(job_id: str, added: str, partial: str) -> Frame:
    return {"type": "ai_chunk", "job_id": job_id, "chunk": added, "partial": partial}


async def until(ws: aiohttp.ClientWebSocketResponse, kind: str) -> list[Frame]:
    """What comes, up to a frame of that kind."""
    found = [await frame(ws)]
    while found[-1]["type"] != kind:
        found.append(await frame(ws))
    return found


async def writing(on_stage: Stage, text: str = "Ada ") -> str:
    """A job whose answer is being written."""
    job_id, jobs = await accepted(on_stage), on_stage.store.jobs
    await jobs.claim(job_id)
    await jobs.finish_step(job_id, "the text")
    await jobs.claim(job_id, max_tokens=100)
    await on_stage.store.write(job_id, 0, text)
    return job_id


@pytest.mark.parametrize("path", ["/ws", "/ws/"])
async def test_a_job_is_told_from_its_upload_to_its_answer(on_stage: Stage, path: str):
    ws, jobs = await on_stage.open(path), on_stage.store.jobs
    await ws.send_json({"type": "ping"})
    assert await frame(ws) == {"type": "pong"}

    job_id = await accepted(on_stage)
    events = [await frame(ws)]
    await jobs.claim(job_id)
    events.append(await frame(ws))
    await jobs.progress(job_id, "extract", 0.5)
    events.append(await frame(ws))
    await jobs.finish_step(job_id, "the text")
    events.append(await frame(ws))
    await jobs.claim(job_id, max_tokens=100)
    await on_stage.store.write(job_id, 0, "Ada is 36.")
    events += await until(ws, "ai_chunk")
    await jobs.end(job_id, "Ada is 36. Or 37.")
    events += await until(ws, "job_completed")

    assert events == [
        update(job_id, 0, "extract", "pending"),
        update(job_id, 0, "extract", "processing"),
        update(job_id, 25, "extract", "processing"),
        update(job_id, 50, "answer", "processing"),
        update(job_id, 51, "answer", "processing"),
        chunk(job_id, "Ada is 36.", "Ada is 36."),
        update(job_id, 100, "answer", "completed"),
        chunk(job_id, " Or 37.", "Ada is 36. Or 37."),
        {"type": "job_completed", "job_id": job_id, "ai_response": "Ada is 36. Or 37."},
    ]


async def test_who_connects_is_told_how_every_job_stands(on_stage: Stage, nats_server: NatsServer):
    waits, runs, fails = await accepted(on_stage), await writing(on_stage), await writing(on_stage)
    fault = Fault(code="provider_error", message="The provider is away.")
    await on_stage.store.jobs.end(fails, "Ada i", status="failed", error=fault)

    async with stage(nats_server.url, store=on_stage.store) as other:
        ws = await other.open("/ws")
        events = await frames(ws, 6)

    assert events == [
        update(waits, 0, "extract", "pending"),
        update(runs, 50, "answer", "processing"),
        chunk(runs, "Ada ", "Ada "),
        update(fails, 50, "answer", "failed"),
        chunk(fails, "Ada i", "Ada i"),
        {
            "type": "job_failed",
            "job_id": fails,
            "error": "The provider is away.",
            "code": "provider_error",
        },
    ]


async def test_an_answer_that_starts_over_is_told_by_an_empty_chunk_and_progress_stays(
    on_stage: Stage, nats_server: NatsServer
):
    ws, lost = await on_stage.open("/ws"), "x" * 300
    job_id = await writing(on_stage, lost)
    before = (await until(ws, "ai_chunk"))[-2]
    previous = PreviousAttempt(attempt=1, text=lost, reason="lost")

    await on_stage.store.jobs.claim(job_id, max_tokens=100, previous=previous)
    reset = await frame(ws)
    await on_stage.store.write(job_id, 0, "Ada")
    again = await frame(ws)
    async with stage(nats_server.url, store=on_stage.store) as other:
        elsewhere = await frames(await other.open("/ws"), 2)

    assert before["progress"] == 50 + int(49 * 0.75)
    assert [reset, again] == [chunk(job_id, "", ""), chunk(job_id, "Ada", "Ada")]
    assert elsewhere == [before, chunk(job_id, "Ada", "Ada")]


async def test_a_final_of_another_attempt_replaces_the_text(on_stage: Stage):
    ws = await on_stage.open("/ws")
    job_id = await writing(on_stage, "Ada is")
    await until(ws, "ai_chunk")
    fault = Fault(code="internal", message="Lost.")
    on_stage.store.change(job_id, attempt=0)

    await on_stage.store.jobs.end(job_id, "", status="failed", error=fault)
    events = await until(ws, "job_failed")

    assert [f["type"] for f in events] == ["job_update", "ai_chunk", "job_failed"]
    assert events[1] == chunk(job_id, "", "")


async def test_a_client_may_narrow_to_some_jobs_and_widen_again(on_stage: Stage):
    ws = await on_stage.open("/ws")
    one, two = await accepted(on_stage), await accepted(on_stage)
    await frames(ws, 2)

    await ws.send_json({"type": "subscribe", "job_ids": [two]})
    await ws.send_json({"type": "ping"})
    assert await frame(ws) == {"type": "pong"}
    await on_stage.store.jobs.claim(one)
    await on_stage.store.jobs.claim(two)
    narrowed = await frame(ws)
    await ws.send_json({"type": "subscribe", "job_ids": []})
    widened = await frame(ws)

    assert narrowed == update(two, 0, "extract", "processing")
    assert widened == update(one, 0, "extract", "processing")


async def test_a_cancel_is_told_as_a_failure_with_its_code(on_stage: Stage):
    ws = await on_stage.open("/ws")
    job_id = await writing(on_stage)
    await until(ws, "ai_chunk")
    on_stage.store.on_cancel = lambda run_id: on_stage.store.jobs.end(
        run_id, "Ada ", status="cancelled"
    )

    await ws.send_json({"type": "cancel", "job_id": job_id})
    events = await frames(ws, 2)
    await ws.send_json({"type": "cancel", "job_id": job_id})
    refused = await frame(ws)

    assert events == [
        update(job_id, 50, "answer", "cancelled"),
        {
            "type": "job_failed",
            "job_id": job_id,
            "error": "The job was cancelled.",
            "code": "cancelled",
        },
    ]
    assert (refused["type"], refused["code"]) == ("error", "conflict")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no json", "invalid_request"),
        ('{"type": "dance"}', "invalid_request"),
        ('{"type": "subscribe"}', "invalid_request"),
        ('{"type": "cancel"}', "invalid_request"),
        ('{"type": "cancel", "job_id": 1}', "invalid_request"),
        ('{"type": "cancel", "job_id": "x"}', "not_found"),
        (f'{{"type": "subscribe", "job_ids": ["{ABSENT_ID}"]}}', "not_found"),
    ],
)
async def test_a_bad_message_is_refused_and_the_socket_stays(
    on_stage: Stage, message: str, code: str
):
    ws = await on_stage.open("/ws")

    await ws.send_str(message)
    refused = await frame(ws)
    await ws.send_json({"type": "ping"})

    assert (refused["type"], refused["code"]) == ("error", code)
    assert await frame(ws) == {"type": "pong"}


async def test_what_is_lost_while_the_line_is_cut_is_told_afterwards(own_nats_server: NatsServer):
    async with stage(own_nats_server.url) as cut:
        ws = await cut.open("/ws")
        job_id = await writing(cut)
        await until(ws, "ai_chunk")

        await own_nats_server.kill()
        await own_nats_server.start()
        await cut.store.write(job_id, 4, "is ")
        await cut.store.jobs.end(job_id, "Ada is 36.")
        events = await until(ws, "job_completed")

    assert "".join(f["chunk"] for f in events if f["type"] == "ai_chunk") == "is 36."
    assert events[-1]["ai_response"] == "Ada is 36."


async def test_a_gateway_hears_all_jobs_through_one_subscription(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    heard: list[str] = []
    listen = on_stage.bus.listen_live

    async def listen_and_note(subject: str, callback: Any) -> Any:
        heard.append(subject)
        return await listen(subject, callback)

    monkeypatch.setattr(on_stage.bus, "listen_live", listen_and_note)
    for _ in range(3):
        job_id = await accepted(on_stage)
        ws = await on_stage.open("/ws")
        await until(ws, "job_update")
        await on_stage.store.jobs.claim(job_id)

    assert len([subject for subject in heard if subject.startswith("live.tok.")]) == 1
