"""The document front ends over HTTP, before a store that does as it is told."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from shared import objects
from shared.commands import CheckToken, CreateJob
from shared.events import DocumentPlan, Fault
from shared.streams import FILES
from shared.subjects import store_command
from tests.support.absent import ABSENT_ID
from tests.support.nats_server import NatsServer
from tests.support.stage import Stage, stage

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
TEXT = b"name,age\nAda,36\n"


def form(data: bytes = TEXT, name: str = "people.csv", **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData(quote_fields=False)
    made.add_field("file", data, filename=name)
    for field, value in ({"prompt": "How old is Ada?"} | fields).items():
        made.add_field(field, value)
    return made


async def upload(on_stage: Stage, body: aiohttp.FormData) -> tuple[int, dict[str, Any]]:
    async with on_stage.http.post("/api/upload", data=body) as answer:
        return answer.status, await answer.json()


async def accepted(on_stage: Stage, **fields: Any) -> str:
    status, body = await upload(on_stage, form(**fields))
    assert status == 200, body
    return body["data"]["job_id"]


async def chunks(on_stage: Stage) -> int:
    """Subjects of chunks that FILES holds."""
    query = {"subjects_filter": "$O.FILES.C.>"}
    info = await on_stage.bus.api(f"STREAM.INFO.{FILES}", query)
    return len(info["state"].get("subjects") or ())


def created(on_stage: Stage) -> CreateJob:
    command = on_stage.store.requests[-1]
    assert isinstance(command, CreateJob)
    return command


# -- uploads ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/upload", "/api/upload/"])
async def test_an_upload_is_answered_as_the_seed_says(on_stage: Stage, path: str):
    async with on_stage.http.post(path, data=form()) as answer:
        body, run_id = await answer.json(), answer.headers["X-Run-Id"]

    assert answer.status == 200
    assert body == {
        "success": True,
        "data": {
            "job_id": run_id,
            "status": "pending",
            "progress": 0,
            "message": "File uploaded successfully",
        },
    }


async def test_the_file_is_kept_as_it_was_sent_and_described_to_the_store(on_stage: Stage):
    data = PNG + bytes(range(256)) * 4000

    await upload(on_stage, form(data, "../../etc/pass wd.png", priority="7"))

    command = created(on_stage)
    assert isinstance(command.plan, DocumentPlan)
    file = command.plan.file
    assert (file.name, file.kind, file.media_type) == ("pass wd.png", "image", "image/png")
    assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (command.plan.prompt, command.priority, command.due) == ("How old is Ada?", 7, None)
    assert await objects.get(on_stage.bus, f"{command.session_id}/{file.id}") == data


async def test_fields_may_come_before_the_file_or_after_it_and_others_do_not_matter(
    on_stage: Stage,
):
    body = aiohttp.FormData()
    body.add_field("unknown", "x" * 1000)
    body.add_field("priority", "3")
    body.add_field("file", TEXT, filename="a.csv")
    body.add_field("prompt", "Grüße?")

    status, _ = await upload(on_stage, body)

    command = created(on_stage)
    assert (status, command.priority) == (200, 3)
    assert isinstance(command.plan, DocumentPlan)
    assert command.plan.prompt == "Grüße?"


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("", None),
        ("2020-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2262-04-11T00:00:00Z", datetime(2262, 4, 11, tzinfo=UTC)),
        ("2199-05-01T10:00:00", datetime(2199, 5, 1, 10, tzinfo=UTC)),
        ("2199-05-01T10:00:00+02:00", datetime(2199, 5, 1, 8, tzinfo=UTC)),
        ("2199-05-01T10:00:00.250Z", datetime(2199, 5, 1, 10, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
async def test_a_time_without_a_zone_is_utc_and_the_past_is_now(
    on_stage: Stage, text: str, due: datetime | None
):
    status, body = await upload(on_stage, form(scheduled_at=text))

    assert (status, created(on_stage).due) == (200, due)
    assert body["data"]["status"] == ("scheduled" if due else "pending")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form(b""), 400, "invalid_request"),
        (form(prompt=" \n"), 400, "invalid_request"),
        (form(priority="10"), 400, "invalid_request"),
        (form(priority="-1"), 400, "invalid_request"),
        (form(priority="1.5"), 400, "invalid_request"),
        (form(priority="٣"), 400, "invalid_request"),
        (form(scheduled_at="tomorrow"), 400, "invalid_request"),
        (form(scheduled_at="2262-04-11T00:00:01Z"), 400, "invalid_request"),
        (form(scheduled_at="9999-12-31T23:59:59-14:00"), 400, "invalid_request"),
        (form(b"MZ\x90\x00\x03", "a.exe"), 415, "unsupported_media_type"),
        (form(b"text\x00", "a.txt"), 415, "unsupported_media_type"),
        (form(b"a" * 5000 + b"\0", "a.txt"), 415, "unsupported_media_type"),
        (form(prompt="x" * 200_001), 413, "too_large"),
    ],
)
async def test_what_is_wrong_with_a_form_is_said_and_nothing_of_it_is_kept(
    on_stage: Stage, body: aiohttp.FormData, status: int, code: str
):
    before = await chunks(on_stage)

    answered, refusal = await upload(on_stage, body)

    assert (answered, refusal["success"], refusal["code"]) == (status, False, code)
    assert refusal["error"]
    assert on_stage.store.requests == []
    assert await chunks(on_stage) == before


async def test_a_time_that_no_schedule_can_have_is_answered_with_the_latest(on_stage: Stage):
    _, refusal = await upload(on_stage, form(scheduled_at="9999-12-31T23:59:59Z"))

    assert refusal["error"] == "$.scheduled_at: The latest time for a job is 2262-04-11T00:00:00Z."


async def test_a_form_without_file_or_prompt_names_what_is_missing(on_stage: Stage):
    no_prompt, no_file = aiohttp.FormData(), aiohttp.FormData()
    no_prompt.add_field("file", TEXT, filename="a.csv")
    no_file.add_field("prompt", "?", content_type="text/plain")

    answers = [await upload(on_stage, body) for body in (no_prompt, no_file)]

    assert [status for status, _ in answers] == [400, 400]
    assert "$.prompt" in answers[0][1]["error"]
    assert "$.file" in answers[1][1]["error"]


async def test_a_form_with_a_file_that_is_only_a_text_field_is_refused(on_stage: Stage):
    body = aiohttp.FormData(default_to_multipart=True)
    body.add_field("file", "text")
    body.add_field("prompt", "?")

    status, answer = await upload(on_stage, body)

    assert (status, answer["code"]) == (400, "invalid_request")
    assert "$.file" in answer["error"]


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"--y--\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nBad", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhalf',
            400,
        ),
    ],
)
async def test_a_malformed_form_is_a_bad_request(
    on_stage: Stage, content_type: str, body: bytes, status: int
):
    before, headers = await chunks(on_stage), {"Content-Type": content_type}

    async with on_stage.http.post("/api/upload", data=body, headers=headers) as answer:
        assert answer.status == status, await answer.text()
        assert (await answer.json())["success"] is False

    assert await chunks(on_stage) == before


@pytest.mark.parametrize("declared", [True, False])
async def test_a_413_reaches_a_client_that_sends_everything_before_it_reads(
    nats_server: NatsServer, declared: bool
):
    async with stage(nats_server.url, max_upload=1_000_000) as small:
        before = await chunks(small)
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        size = 8_000_000
        port = int(small.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        how = f"Content-Length: {size + len(head)}" if declared else "Transfer-Encoding: chunked"
        writer.write(
            b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n" + how.encode() + b"\r\n\r\n"
        )
        pieces = [head, *[b"a" * 64_000] * (size // 64_000)]
        async with asyncio.timeout(20):
            for piece in pieces:
                writer.write(piece if declared else b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            status = await reader.readline()
            answer = await reader.readuntil(b"}")
        writer.close()

        assert b" 413 " in status
        assert b'"code":"too_large"' in answer
        assert await chunks(small) == before


async def test_a_file_may_be_exactly_as_large_as_the_limit(nats_server: NatsServer):
    async with stage(nats_server.url, max_upload=300_000) as small:
        exact, _ = await upload(small, form(b"a" * 300_000, "a.txt"))
        above, answer = await upload(small, form(b"a" * 300_001, "a.txt"))

    assert (exact, above, answer["code"]) == (200, 413, "too_large")


async def test_an_upload_that_is_cut_off_leaves_nothing_behind(on_stage: Stage):
    before = await chunks(on_stage)
    port = int(on_stage.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    )
    writer.write(b"a" * 1_000_000)
    await writer.drain()
    async with asyncio.timeout(10):
        while await chunks(on_stage) == before:  # until the first chunk is stored
            pass

        writer.transport.abort()

        while await chunks(on_stage) != before:  # until the last one is erased
            pass
    assert on_stage.store.requests == []


async def test_without_a_store_an_upload_may_be_tried_again_and_leaves_nothing(
    nats_server: NatsServer,
):
    async with stage(nats_server.url, with_store=False) as alone:
        await alone.store.serve(CheckToken)
        before = await chunks(alone)
        async with alone.http.post("/api/upload", data=form()) as answer:
            body = await answer.json()
        after = await chunks(alone)

    assert (answer.status, body["code"]) == (503, "provider_unavailable")
    assert "Retry-After" in answer.headers
    assert after == before


async def test_a_store_that_was_asked_and_says_nothing_may_need_the_file(nats_server: NatsServer):
    async with stage(nats_server.url, with_store=False) as alone:
        await alone.store.serve(CheckToken)
        requested = asyncio.Event()
        await alone.bus.listen(store_command("create_job"), lambda _: requested.set())
        before = await chunks(alone)
        async with alone.http.post("/api/upload", data=form()) as answer:
            status = answer.status
        after = await chunks(alone)

    assert (status, requested.is_set(), after - before) == (503, True, 1)


# -- jobs ---------------------------------------------------------------------------


async def get(on_stage: Stage, path: str) -> tuple[int, dict[str, Any]]:
    async with on_stage.http.get(path) as answer:
        return answer.status, await answer.json()


async def test_a_job_is_told_as_the_seed_says_with_its_steps_and_its_error(on_stage: Stage):
    job_id = await accepted(on_stage)
    jobs = on_stage.store.jobs
    await jobs.claim(job_id)
    await jobs.finish_step(job_id, "the text", notes=["Page 3 could not be read."])
    await jobs.claim(job_id)
    await jobs.end(job_id, "Ada is 36.")

    status, body = await get(on_stage, f"/api/jobs/{job_id}")

    data = body["data"]
    steps = data.pop("steps")
    assert datetime.fromisoformat(data.pop("created_at")) <= datetime.fromisoformat(
        data.pop("completed_at")
    )
    assert (status, body["success"]) == (200, True)
    assert data == {
        "job_id": job_id,
        "status": "completed",
        "progress": 100,
        "file_name": "people.csv",
        "ai_response": "Ada is 36.",
        "error": None,
    }
    assert [step["name"] for step in steps] == ["extract", "answer"]
    assert steps[0]["notes"] == ["Page 3 could not be read."]


async def test_progress_is_as_far_as_the_job_has_got_at_any_gateway(
    on_stage: Stage, nats_server: NatsServer
):
    job_id = await accepted(on_stage)
    jobs = on_stage.store.jobs
    seen = [(await get(on_stage, f"/api/jobs/{job_id}"))[1]["data"]["progress"]]
    await jobs.claim(job_id)
    await jobs.progress(job_id, "extract", 0.5)
    async with stage(nats_server.url, store=on_stage.store) as other:
        seen.append((await get(other, f"/api/jobs/{job_id}"))[1]["data"]["progress"])
    await jobs.finish_step(job_id, "the text")
    await jobs.claim(job_id, max_tokens=100)
    await on_stage.store.write(job_id, 0, "x" * 200)
    async with stage(nats_server.url, store=on_stage.store) as other:
        seen.append((await get(other, f"/api/jobs/{job_id}"))[1]["data"]["progress"])
    await jobs.end(job_id, "x" * 200, status="failed", error=Fault(code="timeout", message="Slow."))
    async with stage(nats_server.url, store=on_stage.store) as other:
        ended = (await get(other, f"/api/jobs/{job_id}"))[1]["data"]

    assert seen == [0, 25, 74]
    assert (ended["progress"], ended["status"], ended["error"]) == (74, "failed", "Slow.")


async def test_jobs_are_listed_newest_first_by_status_and_page(on_stage: Stage):
    ids = [await accepted(on_stage) for _ in range(3)]
    await on_stage.store.jobs.end(ids[1], "", status="failed")

    _, everything = await get(on_stage, "/api/jobs")
    _, failed = await get(on_stage, "/api/jobs?status=failed")
    _, pending = await get(on_stage, "/api/jobs/?status=pending")
    _, first = await get(on_stage, "/api/jobs?limit=2")
    _, second = await get(on_stage, f"/api/jobs?limit=2&cursor={first['data']['next_cursor']}")

    def listed(page: dict[str, Any]) -> list[str]:
        return [job["job_id"] for job in page["data"]["jobs"]]

    assert listed(everything) == ids[::-1]
    assert everything["data"]["next_cursor"] is None
    assert listed(failed) == [ids[1]]
    assert listed(pending) == [ids[2], ids[0]]
    assert listed(first) + listed(second) == ids[::-1]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/jobs/nonsense", 404, "not_found"),
        (f"/api/jobs/{ABSENT_ID}", 404, "not_found"),
        ("/api/jobs?status=running", 400, "invalid_request"),
        ("/api/jobs?limit=0", 400, "invalid_request"),
        ("/api/jobs?cursor=x", 404, "not_found"),
    ],
)
async def test_refusals_have_the_dialects_envelope(
    on_stage: Stage, path: str, status: int, code: str
):
    async with on_stage.http.get(path) as answer:
        body = await answer.json()

    assert (answer.status, body["success"], body["code"]) == (status, False, code)
    assert set(body) == {"success", "error", "code"}


async def test_a_job_of_another_kind_is_not_there(on_stage: Stage):
    body = {"topic": "a", "query": "b", "platform": "tiktok"}
    async with on_stage.http.post("/chat/start", json=body) as answer:
        run_id = answer.headers["X-Run-Id"]

    status, _ = await get(on_stage, f"/api/jobs/{run_id}")
    _, listed = await get(on_stage, "/api/jobs")

    assert (status, listed["data"]["jobs"]) == (404, [])


async def test_a_cancel_answers_with_the_job_and_a_second_one_is_a_conflict(on_stage: Stage):
    job_id = await accepted(on_stage, scheduled_at=(datetime.now(UTC) + timedelta(1)).isoformat())
    path = f"/api/jobs/{job_id}/cancel"
    on_stage.store.on_cancel = lambda run_id: on_stage.store.jobs.end(
        run_id, "", status="cancelled"
    )

    async with on_stage.http.post(path) as first, on_stage.http.post(path) as second:
        job, refusal = json.loads(await first.read()), json.loads(await second.read())

    assert (first.status, job["data"]["status"], job["data"]["job_id"]) == (
        200,
        "cancelled",
        job_id,
    )
    assert (second.status, refusal["success"], refusal["code"]) == (409, False, "conflict")
