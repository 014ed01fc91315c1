"""The interview front ends over a real log: a prompt, its pieces, and every way it can fail."""

import asyncio
import json
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from services.gateway.dialects.interview.wire import decode_generate, last
from services.gateway.http import oneshot
from services.gateway.http.stream_writer import Line
from shared import commands as c
from shared.events import Fault, ModelDetails, RunEnded, Usage
from tests.support.absent import ABSENT_ID
from tests.support.fake_models import a_model
from tests.support.stage import DEADLINE, Stage

GENERATE = "/api/generate/"
PROMPT = {"model": "demo", "prompt": "Hi"}


async def line(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The stream's next event; comments and blank lines are passed over."""
    async with asyncio.timeout(DEADLINE):
        while raw := await answer.content.readline():
            if raw.startswith(b"data: "):
                return json.loads(raw.removeprefix(b"data: "))
    raise AssertionError("the stream has ended")


async def rest(answer: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """What is left of a stream."""
    async with asyncio.timeout(DEADLINE):
        lines = (await answer.content.read()).splitlines()
    return [json.loads(text.removeprefix(b"data: ")) for text in lines if text]


def requests_of(stage: Stage, kind: type[c.Request]) -> list[Any]:
    return [request for request in stage.store.requests if isinstance(request, kind)]


async def cancelled(stage: Stage) -> str:
    """Wait for a run to be cancelled."""
    cancelled_run: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(run_id: str) -> None:
        cancelled_run.set_result(run_id)

    stage.store.on_cancel = note
    before = requests_of(stage, c.CancelRun)
    async with asyncio.timeout(DEADLINE):
        return before[0].run_id if before else await cancelled_run


class Talk:
    """A call that is under way, and the worker's side of it."""

    def __init__(self, stage: Stage, **fields: Any) -> None:
        self._stage = stage
        self.store = stage.store
        self.posting = asyncio.create_task(stage.http.post(GENERATE, json={**PROMPT, **fields}))

    async def begun(self) -> str:
        self.run = await self.store.latest()
        await self.store.claim(self.run)
        return self.run

    async def write(self, text: str, offset: int = 0) -> aiohttp.ClientResponse:
        """The worker writes; the answer whose headers that lets through."""
        await self.store.write(self.run, offset, text)
        return await self.answer()

    async def answer(self) -> aiohttp.ClientResponse:
        async with asyncio.timeout(DEADLINE):
            return await asyncio.shield(self.posting)


# -- the stream -------------------------------------------------------------------


async def test_a_prompt_is_answered_in_the_lines_of_its_document(on_stage: Stage):
    talk = Talk(on_stage, options={"temperature": 0.7, "num_predict": 300})
    run = await talk.begun()

    answer = await talk.write("Hello! ")
    first = await line(answer)
    await on_stage.store.write(run, 7, "I'm your AI interviewer.")
    second = await line(answer)
    await on_stage.store.end(run, "Hello! I'm your AI interviewer.")
    (end,) = await rest(answer)

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["X-Run-Id"] == run
    assert [
        {key: each[key] for key in each if key != "created_at"} for each in (first, second)
    ] == [
        {"model": "demo", "response": "Hello! ", "done": False},
        {"model": "demo", "response": "I'm your AI interviewer.", "done": False},
    ]
    assert list(end) == [
        "model",
        "created_at",
        "response",
        "done",
        "done_reason",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]
    assert (end["response"], end["done"], end["done_reason"]) == ("", True, "stop")
    assert (end["prompt_eval_count"], end["eval_count"]) == (1, 31)


async def test_a_call_is_a_run_in_a_session_of_its_own_that_no_list_shows(on_stage: Stage):
    talk = Talk(on_stage, system="Be brief.", options={"num_predict": 9})
    run = await talk.begun()
    await on_stage.store.end(run, "Yes.")
    await rest(await talk.answer())

    async with on_stage.http.get("/api/v1/chat/sessions") as answer:
        listed = await answer.json()
    async with on_stage.http.get("/api/v1/chat/sessions?mode=adhoc") as answer:
        adhoc = (await answer.json())["items"]

    assert listed["items"] == []
    (session,) = adhoc
    assert (session["model"], session["system_prompt"]) == ("demo", "Be brief.")
    assert (session["temperature"], session["max_tokens"]) == (0.7, 9)


async def test_without_a_stream_the_answer_is_one_object(on_stage: Stage):
    talk = Talk(on_stage, model="demo/demo", stream=False)
    run = await talk.begun()
    await on_stage.store.end(run, "Hello!")

    answer = await talk.answer()
    body = await answer.json()

    assert answer.headers["Content-Type"] == "application/json"
    assert (body["model"], body["response"], body["done"]) == ("demo/demo", "Hello!", True)


async def test_the_path_without_its_slash_is_ollamas_unless_events_are_accepted(on_stage: Stage):
    path = "/api/generate"

    async with on_stage.http.post(path, json=PROMPT) as refused:
        refusal = await refused.json()
    accepting = {"Accept": "text/event-stream"}
    posting = asyncio.create_task(on_stage.http.post(path, json=PROMPT, headers=accepting))
    await on_stage.store.end(await on_stage.store.latest(), "Hello!")
    lines = await rest(await posting)

    assert (refused.status, refusal["code"]) == (404, "not_found")
    assert "/api/generate/" in refusal["error"]
    assert [t["response"] for t in lines] == ["Hello!", ""]
    assert len(on_stage.store.runs) == 1


async def test_headers_that_waited_long_enough_go_out_before_the_first_words(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(oneshot, "HOLD", 0.05)
    talk = Talk(on_stage)
    run = await talk.begun()

    answer = await talk.answer()
    await on_stage.store.end(run, "", status="failed", error=Fault(code="timeout", message="No."))

    assert answer.status == 200
    assert await rest(answer) == [{"error": "No.", "code": "timeout", "done": True}]


# -- failures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("model_not_found", 404),
        ("provider_error", 502),
        ("provider_unavailable", 503),
        ("timeout", 504),
        ("internal", 500),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_before_the_first_words_has_its_status(
    on_stage: Stage, code: str, status: int, stream: bool
):
    talk = Talk(on_stage, stream=stream)
    run = await talk.begun()
    fault = Fault(code=code, message="It did not work.")
    await on_stage.store.end(run, "", status="failed", error=fault)

    answer = await talk.answer()

    assert (answer.status, await answer.json()) == (
        status,
        {"error": "It did not work.", "code": code},
    )


async def test_a_failure_after_the_first_words_is_the_last_line(on_stage: Stage):
    talk = Talk(on_stage)
    run = await talk.begun()
    answer = await talk.write("Half")

    fault = Fault(code="provider_error", message="It broke off.")
    await on_stage.store.end(run, "Half", status="failed", error=fault)

    lines = await rest(answer)
    assert lines[0]["response"] == "Half"
    assert lines[1:] == [{"error": "It broke off.", "code": "provider_error", "done": True}]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_reply_that_somebody_cancelled_is_told_as_that(on_stage: Stage, stream: bool):
    talk = Talk(on_stage, stream=stream)
    run = await talk.begun()

    await on_stage.store.end(run, "", status="cancelled")

    answer = await talk.answer()
    assert (answer.status, (await answer.json())["code"]) == (499, "cancelled")


async def test_an_attempt_that_is_lost_before_its_first_words_is_not_seen(on_stage: Stage):
    talk = Talk(on_stage)
    run = await talk.begun()
    await on_stage.store.claim(run)

    answer = await talk.write("Second ")
    await on_stage.store.end(run, "Second try")
    lines = await rest(answer)

    assert "".join(t["response"] for t in lines) == "Second try"
    assert lines[-1]["done_reason"] == "stop"


async def test_an_attempt_that_is_lost_after_its_first_words_ends_the_stream_and_the_run(
    on_stage: Stage,
):
    talk = Talk(on_stage)
    run = await talk.begun()
    answer = await talk.write("First ")
    assert (await line(answer))["response"] == "First "

    await on_stage.store.claim(run)
    await on_stage.store.write(run, 0, "Second ")
    lines = await rest(answer)

    assert [(t["code"], t["done"]) for t in lines] == [("provider_error", True)]
    assert await cancelled(on_stage) == run


async def test_within_a_session_the_lost_attempts_run_goes_on_and_its_answer_is_kept(
    on_stage: Stage,
):
    session_id = await on_stage.session()
    talk = Talk(on_stage, session_id=session_id)
    run = await talk.begun()
    answer = await talk.write("First ")
    await line(answer)

    await on_stage.store.claim(run)
    lines = await rest(answer)
    await on_stage.store.end(run, "Second try")

    assert [t["code"] for t in lines] == ["provider_error"]
    assert requests_of(on_stage, c.CancelRun) == []
    assert [m.content for m in on_stage.store.messages[session_id]] == ["Hi", "Second try"]


async def test_a_gateway_that_stops_says_so_in_the_stream(on_stage: Stage):
    talk = Talk(on_stage)
    await talk.begun()
    answer = await talk.write("Half")
    await line(answer)

    on_stage.gateway.connections.stop()

    assert [t["code"] for t in await rest(answer)] == ["provider_unavailable"]


# -- whose run it is ------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_without_a_session_stops_when_its_client_goes(on_stage: Stage, stream: bool):
    talk = Talk(on_stage, stream=stream)
    run = await talk.begun()

    talk.posting.cancel()

    assert await cancelled(on_stage) == run


async def test_a_line_that_breaks_in_the_middle_of_a_write_stops_the_run_all_the_same(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    talk = Talk(on_stage)
    run = await talk.begun()
    await line(await talk.write("Half"))
    write = Line.write

    async def broken(self: Line, writing: Awaitable[None]) -> None:
        self.abort()  # the handler is cancelled for that when it has left the stream already
        await write(self, writing)

    monkeypatch.setattr(Line, "write_at_once", lambda self, make: False)
    monkeypatch.setattr(Line, "write", broken)
    await on_stage.store.write(run, 4, " of it")

    assert await cancelled(on_stage) == run


async def test_one_that_is_in_the_middle_of_its_stream_stops_too(on_stage: Stage):
    talk = Talk(on_stage)
    run = await talk.begun()
    answer = await talk.write("Half")
    await line(answer)

    answer.close()

    assert await cancelled(on_stage) == run


async def test_a_call_within_a_session_goes_on_without_its_client(on_stage: Stage):
    session_id = await on_stage.session()
    talk = Talk(on_stage, session_id=session_id)
    run = await talk.begun()
    answer = await talk.write("Half")
    await line(answer)

    answer.close()
    await on_stage.store.end(run, "Half of it")
    async with on_stage.http.get(f"/api/v1/chat/runs/{run}") as answer:
        seen = await answer.json()

    assert seen["status"] == "completed"
    assert requests_of(on_stage, c.CancelRun) == []


async def test_within_a_session_the_prompt_is_its_next_message(on_stage: Stage):
    session_id = await on_stage.session(model="demo")
    talk = Talk(
        on_stage,
        session_id=session_id,
        system="Be brief.",
        options={"temperature": 0.1, "num_predict": 5, "top_p": 0.5, "seed": 3},
    )
    run = await talk.begun()
    await on_stage.store.end(run, "Hello!")
    await rest(await talk.answer())

    (sent,) = requests_of(on_stage, c.SendMessage)
    assert (sent.session_id, sent.content, sent.model) == (session_id, "Hi", "demo")
    assert (sent.temperature, sent.max_tokens, sent.system) == (0.1, 5, "Be brief.")
    assert sent.notes == ["Not honoured in this dialect: seed, top_p."]
    assert len(requests_of(on_stage, c.CreateSession)) == 1


async def test_a_busy_session_that_rejects_is_a_conflict(on_stage: Stage):
    session_id = await on_stage.session(on_busy="reject")
    first = Talk(on_stage, session_id=session_id)
    await first.begun()

    async with on_stage.http.post(GENERATE, json={**PROMPT, "session_id": session_id}) as second:
        refusal = await second.json()

    assert (second.status, refusal["code"]) == (409, "conflict")
    await on_stage.store.end(first.run, "Hello!")
    assert (await rest(await first.answer()))[-1]["done"] is True


async def test_the_same_key_in_a_session_is_the_same_turn(on_stage: Stage):
    session_id = await on_stage.session()
    body, headers = {**PROMPT, "session_id": session_id}, {"Idempotency-Key": "k"}
    posting = asyncio.create_task(on_stage.http.post(GENERATE, json=body, headers=headers))
    await on_stage.store.end(await on_stage.store.latest(), "Hello!")
    first = await rest(await posting)

    async with on_stage.http.post(GENERATE, json=body, headers=headers) as again:
        second = await rest(again)

    assert [t["response"] for t in second] == [t["response"] for t in first] == ["Hello!", ""]
    assert len(on_stage.store.runs) == 1


@pytest.mark.parametrize("session_id", [ABSENT_ID, "nonsense", "", "a.b.>", "😀"])
async def test_a_session_that_is_not_there_is_not_found(on_stage: Stage, session_id: str):
    async with on_stage.http.post(GENERATE, json={**PROMPT, "session_id": session_id}) as answer:
        refusal = await answer.json()

    assert (answer.status, refusal) == (
        404,
        {"error": "There is no such session.", "code": "not_found"},
    )
    assert on_stage.store.runs == {}


# -- hostile bodies -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "$.prompt"),
        (b"{", 400, "The body is no valid JSON: "),
        (b"[]", 400, "Expected `object`, got `array`"),
        (b"null", 400, "Expected `object`, got `null`"),
        (b"\xff\xfe", 400, "The body is no valid JSON: "),
        (b"[" * 100_000, 400, "Expected `object`, got `array`"),
        (b'{"model": "demo"}', 400, "$.prompt"),
        (b'{"prompt": null}', 400, "$.prompt"),
        (b'{"prompt": ["a"]}', 400, "$.prompt"),
        (b'{"prompt": "  "}', 400, "$.prompt"),
        (b'{"prompt": "\\ud800"}', 400, "The body is no valid JSON: "),
        (b'{"prompt": "a", "model": 7}', 400, "$.model"),
        (b'{"prompt": "a", "model": "%s"}' % (b"x" * 301), 400, "$.model"),
        (b'{"prompt": "a", "stream": "no"}', 400, "$.stream"),
        (b'{"prompt": "a", "system": {}}', 400, "$.system"),
        (b'{"prompt": "a", "session_id": 1}', 400, "$.session_id"),
        (b'{"prompt": "a", "options": []}', 400, "$.options"),
        (b'{"prompt": "a", "options": {"temperature": "hot"}}', 400, "$.options.temperature"),
        (b'{"prompt": "a", "options": {"temperature": 3}}', 400, "$.options.temperature"),
        (b'{"prompt": "a", "options": {"temperature": 1e999}}', 400, "$"),
        (b'{"prompt": "a", "options": {"num_predict": 1.5}}', 400, "$.options.num_predict"),
        (b'{"prompt": "a", "options": {"num_predict": 1%s}}' % (b"0" * 30), 400, "$.options"),
        (b'{"prompt": "%s"}' % (b"a" * 200_001), 413, "$.prompt"),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused_and_nothing_is_stored(
    on_stage: Stage, body: bytes, status: int, reason: str
):
    async with on_stage.http.post(GENERATE, data=body) as answer:
        refusal = await answer.json()

    assert answer.status == status
    assert set(refusal) == {"error", "code"}
    assert refusal["code"] == {400: "invalid_request", 413: "too_large"}[status]
    assert refusal["error"].startswith(reason)
    assert (on_stage.store.sessions, on_stage.store.runs) == ({}, {})


@pytest.mark.parametrize(
    ("body", "notes"),
    [
        ({}, []),
        ({"options": None, "stream": None, "keep_alive": "5m"}, []),
        ({"options": {"stop": ["x"]}}, ["Not honoured in this dialect: stop."]),
        (
            {"options": {"my secret": 1, "seed": 4}, "images": ["aGk="]},
            ["Not honoured in this dialect: images, seed, options that nobody knows."],
        ),
    ],
)
def test_what_is_not_honoured_is_noted_without_a_clients_own_words(
    body: dict[str, Any], notes: list[str]
):
    wish = decode_generate(json.dumps({"prompt": "a", **body}).encode())

    assert wish.notes == notes


# -- lists and durations ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/models/", "/api/models"])
async def test_the_list_gives_bare_names_where_those_mean_one_model(on_stage: Stage, path: str):
    details = ModelDetails(family="llama", parameter_size="3.2B")
    on_stage.store.models.known += [
        a_model("ollama/llama:3b", size=5, digest="d", details=details),
        a_model("ollama/twice"),
        a_model("openai/twice"),
        a_model("openai/org/name"),
        a_model("openai/ollama/name"),
        a_model("openai/gone", is_available=False),
    ]

    async with on_stage.http.get(path) as answer:
        models = (await answer.json())["models"]

    assert [m["name"] for m in models] == [
        "demo",
        "llama:3b",
        "ollama/twice",
        "openai/twice",
        "org/name",
        "openai/ollama/name",
    ]
    assert set(models[1]) == {"name", "modified_at", "size", "digest", "details"}
    assert (models[0]["size"], models[1]["size"], models[1]["digest"]) == (0, 5, "d")
    assert models[1]["details"]["parameter_size"] == "3.2B"


def test_durations_add_up_and_counts_are_the_providers():
    began = datetime(2026, 11, 20, 12, tzinfo=UTC)
    final = RunEnded(
        at=began + timedelta(seconds=2),
        status="completed",
        attempt=1,
        text="Hello!",
        length=6,
        sha256="",
        stop_reason="max_tokens",
        usage=Usage(input_tokens=3, output_tokens=5, cache_read_input_tokens=4),
        latency_ms=1_500,
        first_delta_ms=200,
    )

    stats = last("m", began, final, response="")

    assert (stats.total_duration, stats.load_duration) == (2_000_000_000, 500_000_000)
    assert (stats.prompt_eval_duration, stats.eval_duration) == (200_000_000, 1_300_000_000)
    assert (stats.prompt_eval_count, stats.eval_count, stats.done_reason) == (7, 5, "length")


def test_what_nobody_counted_is_nothing():
    began = datetime(2026, 11, 20, 12, tzinfo=UTC)
    final = RunEnded(at=began, status="completed", attempt=1, text="", length=0, sha256="")

    stats = last("m", began, final, response="")

    assert (stats.total_duration, stats.eval_count, stats.prompt_eval_count) == (0, 0, 0)
    assert stats.done_reason == "stop"


@pytest.mark.parametrize(
    ("stop_reason", "done_reason"),
    [
        ("end_turn", "stop"),
        ("refusal", "stop"),
        ("max_tokens", "length"),
        ("max_length", "length"),
        ("model_context_window_exceeded", "length"),  # as facts of before say it
    ],
)
def test_a_reply_that_was_cut_ends_for_its_length(stop_reason: str, done_reason: str):
    final = RunEnded(
        at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        status="completed",
        attempt=1,
        text="",
        length=0,
        sha256="",
        stop_reason=stop_reason,
    )

    assert last("m", final.at, final, response="").done_reason == done_reason
