"""The content front ends: a job is started, and its steps are watched up to the result."""

import json
from typing import Any

import aiohttp
import pytest

from shared.commands import CreateJob
from shared.events import Fault, PipelinePlan
from shared.ids import new_id
from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, close_code, frame, frames, stage

ORDER = {"topic": "Botox Safety", "query": "Make it reassuring", "platform": "Instagram"}
STRATEGY = {"keywords": ["a"], "audience": "b", "tone": "c", "hooks": ["d"], "hashtags": []}
POST = "# Slide 1: Calm"
COMPLIANCE = {"approved": False, "issues": [], "disclaimer": "e"}
ANSWERS = [json.dumps(STRATEGY), POST, json.dumps(COMPLIANCE)]
STEPS = ["keywords", "content_generation", "compliance_check"]


def progress(step: str) -> dict[str, Any]:
    return {"type": "progress", "step": step, "message": f"Completed step: {step}"}


def result(session_id: str) -> dict[str, Any]:
    return {
        "type": "result",
        "session_id": session_id,
        "response_text": POST,
        "strategy": STRATEGY,
        "compliance": COMPLIANCE,
    }


async def start(on_stage: Stage, **fields: str) -> tuple[str, str]:
    """(session id, run id) of a new job."""
    async with on_stage.http.post("/chat/start", json=ORDER | fields) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["session_id"], answer.headers["X-Run-Id"]


async def watch(
    on_stage: Stage, session_id: str, *, stream: bool = False
) -> aiohttp.ClientWebSocketResponse:
    query = "?stream=1&token=x" if stream else "?token=x"
    return await on_stage.open(f"/ws/chat/{session_id}{query}")


async def refused(on_stage: Stage, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with on_stage.http.request(method, path, **options) as answer:
        return answer.status, await answer.json()


# -- starting ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/chat/start", "/chat/start/"])
async def test_a_start_is_answered_as_the_seed_says(on_stage: Stage, path: str):
    async with on_stage.http.post(path, json=ORDER | {"session_id": "job_001"}) as answer:
        body = await answer.json()

    session_id = body["session_id"]
    assert answer.status == 200
    assert body == {
        "message": "Job started successfully...",
        "session_id": session_id,
        "websocket_url": f"/ws/chat/{session_id}",
    }
    command = on_stage.store.requests[-1]
    assert isinstance(command, CreateJob)
    assert isinstance(command.plan, PipelinePlan)
    assert (command.mode, command.client_ref) == ("content", "job_001")
    assert command.plan.inputs == ORDER
    assert [step.name for step in command.plan.steps] == STEPS


async def test_a_reference_names_the_same_job_as_long_as_it_runs(on_stage: Stage):
    first, run_id = await start(on_stage, session_id="job_1")
    again, _ = await start(on_stage, session_id="job_1")
    other, _ = await start(on_stage, session_id="job_2")
    await on_stage.store.jobs.end(run_id, "", status="failed")
    after, _ = await start(on_stage, session_id="job_1")

    assert again == first
    assert len({first, other, after}) == 3


@pytest.mark.parametrize("platform", ["instagram", "TIKTOK", " facebook ", "Twitter"])
async def test_a_platform_may_be_written_in_any_case(on_stage: Stage, platform: str):
    await start(on_stage, platform=platform)

    command = on_stage.store.requests[-1]
    assert isinstance(command, CreateJob)
    assert isinstance(command.plan, PipelinePlan)
    assert command.plan.inputs["platform"].lower() == platform.strip().lower()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (ORDER | {"platform": "MySpace"}, "Instagram, Twitter, TikTok, Facebook"),
        (ORDER | {"pipeline": "none"}, "$.pipeline"),
        (ORDER | {"topic": "  "}, "$.topic"),
        (ORDER | {"topic": 1}, "$.topic"),
        ({"topic": "a", "platform": "TikTok"}, "$.query"),
        (ORDER | {"session_id": "x" * 201}, "$.session_id"),
    ],
)
async def test_what_is_wrong_with_a_start_is_said(on_stage: Stage, body: object, reason: str):
    status, answer = await refused(on_stage, "POST", "/chat/start", json=body)

    assert (status, set(answer), answer["code"]) == (400, {"error", "code"}, "invalid_request")
    assert reason in answer["error"]
    assert on_stage.store.requests == []


async def test_refusals_have_the_dialects_envelope(on_stage: Stage):
    found = [
        await refused(on_stage, "POST", f"/chat/{new_id()}/cancel"),
        await refused(on_stage, "POST", "/chat/nonsense/cancel"),
        await refused(on_stage, "POST", "/chat/start", data=b"{"),
        await refused(on_stage, "POST", "/chat/start", json=ORDER | {"query": "x" * 200_001}),
    ]

    assert [(status, body["code"]) for status, body in found] == [
        (404, "not_found"),
        (404, "not_found"),
        (400, "invalid_request"),
        (413, "too_large"),
    ]
    assert all(set(body) == {"error", "code"} for _, body in found)


async def test_the_pipelines_are_listed_with_their_steps(on_stage: Stage):
    async with on_stage.http.get("/chat/pipelines") as answer:
        body = await answer.json()

    own = next(pipeline for pipeline in body["pipelines"] if pipeline["name"] == "content")
    assert own["steps"] == STEPS


# -- watching ---------------------------------------------------------------------


async def test_every_step_is_told_once_in_order_and_then_the_result(on_stage: Stage):
    session_id, run_id = await start(on_stage)
    jobs = on_stage.store.jobs
    early, other = await watch(on_stage, session_id), await watch(on_stage, session_id)

    await jobs.ask(run_id)
    for answer in ANSWERS[:2]:
        await jobs.claim(run_id)
        await on_stage.store.write(run_id, 0, answer)
        await jobs.finish_step(run_id, answer)
    between = await watch(on_stage, session_id)
    before_the_end = await frames(between, 2)
    await jobs.claim(run_id)
    await jobs.end(run_id, ANSWERS[2])
    late = await watch(on_stage, session_id)

    whole = [*(progress(step) for step in STEPS), result(session_id)]
    assert before_the_end == whole[:2]
    assert await frames(between, 2) == whole[2:]
    for ws in (early, other, late):
        assert await frames(ws, 4) == whole
        assert await close_code(ws) == 1000


async def test_the_result_is_told_long_after_the_end_at_any_gateway(
    on_stage: Stage, nats_server: NatsServer
):
    session_id, run_id = await start(on_stage)
    for answer in ANSWERS[:2]:
        await on_stage.store.jobs.finish_step(run_id, answer)
    await on_stage.store.jobs.end(run_id, ANSWERS[2])

    async with stage(nats_server.url, store=on_stage.store) as other:
        ws = await watch(other, session_id)
        seen = await frames(ws, 4)

    assert seen == [*(progress(step) for step in STEPS), result(session_id)]


async def test_who_wants_the_stream_gets_every_step_word_by_word(on_stage: Stage):
    session_id, run_id = await start(on_stage)
    jobs, store = on_stage.store.jobs, on_stage.store
    ws = await watch(on_stage, session_id, stream=True)

    await jobs.ask(run_id)
    await jobs.claim(run_id)
    await store.write(run_id, 0, ANSWERS[0][:5])
    first = await frame(ws)
    await jobs.finish_step(run_id, ANSWERS[0])
    rest = await frames(ws, 2)
    await jobs.claim(run_id)
    await store.write(run_id, 0, "wrong")
    wrong = await frame(ws)
    late = await watch(on_stage, session_id, stream=True)
    caught_up = await frames(late, 3)
    await jobs.claim(run_id)
    reset = await frame(ws)

    def chunk(step: str, content: str) -> dict[str, Any]:
        return {"type": "chunk", "step": step, "content": content}

    assert first == chunk("keywords", ANSWERS[0][:5])
    assert rest == [chunk("keywords", ANSWERS[0][5:]), progress("keywords")]
    assert wrong == chunk("content_generation", "wrong")
    assert caught_up == [chunk("keywords", ANSWERS[0]), progress("keywords"), wrong]
    assert reset == {"type": "reset", "step": "content_generation"}
    assert await frame(late) == reset


async def test_an_answer_that_is_not_what_was_streamed_is_told_anew(on_stage: Stage):
    session_id, run_id = await start(on_stage)
    ws = await watch(on_stage, session_id, stream=True)
    await on_stage.store.jobs.ask(run_id)
    await on_stage.store.jobs.claim(run_id)
    await on_stage.store.write(run_id, 0, "```json\n{}")
    await frame(ws)

    await on_stage.store.jobs.finish_step(run_id, "{}")

    assert await frames(ws, 3) == [
        {"type": "reset", "step": "keywords"},
        {"type": "chunk", "step": "keywords", "content": "{}"},
        progress("keywords"),
    ]


async def test_a_failure_names_its_step_and_closes_the_socket(on_stage: Stage):
    session_id, run_id = await start(on_stage)
    await on_stage.store.jobs.finish_step(run_id, ANSWERS[0])
    fault = Fault(code="provider_error", message="No JSON.")
    ws = await watch(on_stage, session_id)

    await on_stage.store.jobs.end(run_id, "", status="failed", error=fault)

    assert await frames(ws, 2) == [
        progress("keywords"),
        {
            "type": "error",
            "message": "No JSON.",
            "code": "provider_error",
            "step": "content_generation",
        },
    ]
    assert await close_code(ws) == 1000


@pytest.mark.parametrize("over", ["socket", "http"])
async def test_a_cancel_is_told_as_an_error_with_the_step(on_stage: Stage, over: str):
    session_id, _ = await start(on_stage)
    on_stage.store.on_cancel = lambda run_id: on_stage.store.jobs.end(
        run_id, "", status="cancelled"
    )
    ws = await watch(on_stage, session_id)

    if over == "socket":
        await ws.send_json({"type": "cancel"})
    else:
        for _ in range(2):
            path = f"/chat/{session_id}/cancel"
            status, body = await refused(on_stage, "POST", path)
            assert (status, body["session_id"]) == (200, session_id)

    assert await frame(ws) == {
        "type": "error",
        "message": "The job was cancelled.",
        "code": "cancelled",
        "step": "keywords",
    }
    assert await close_code(ws) == 1000


async def test_a_bad_message_is_refused_and_the_socket_stays(on_stage: Stage):
    session_id, _ = await start(on_stage)
    ws = await watch(on_stage, session_id)

    await ws.send_str('{"type": "dance"}')
    refusal = await frame(ws)
    await ws.send_json({"type": "ping"})

    assert (refusal["type"], refusal["code"]) == ("error", "invalid_request")
    assert await frame(ws) == {"type": "pong"}


async def test_a_job_that_is_not_there_closes_the_socket_with_4404(on_stage: Stage):
    chat = await on_stage.session()
    for session_id in ("nonsense", new_id(), chat):
        assert await close_code(await watch(on_stage, session_id)) == 4404
