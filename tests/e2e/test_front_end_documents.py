"""A document front end, written from its own document, before the whole system."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.fake_provider import check_unspliced
from tests.support.job_clients import DocumentsClient
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = b"Ada Lovelace was born in 1815.\n" * 40
DEADLINE = 60


async def test_a_file_is_uploaded_and_its_answer_streamed(natterlog: Running):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(TEXT, "When was Ada born? tokens=60 rate=60", name="ada.txt")
        await client.watch()
        status, body = await client.call("GET", f"/api/jobs/{job_id}")

    answer, job = client.answers[job_id], body["data"]
    assert answer.end == {"type": "job_completed", "job_id": job_id, "ai_response": answer.text}
    assert check_unspliced(answer.text)[1] == 60
    assert (answer.progress, answer.steps, answer.resets) == (100, ["extract", "answer"], 0)
    assert (status, job["status"], job["progress"], job["error"]) == (200, "completed", 100, None)
    assert (job["file_name"], job["ai_response"]) == ("ada.txt", answer.text)
    assert [(s["name"], s["status"]) for s in job["steps"]] == [
        ("extract", "completed"),
        ("answer", "completed"),
    ]
    assert "Ada Lovelace was born in 1815." in natterlog.fake.seen[-1].message


async def test_who_connects_late_is_told_the_whole_answer_at_once(natterlog: Running):
    url = natterlog.system.url
    async with DocumentsClient(url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(TEXT, "tokens=20")
        await client.watch()
        late = DocumentsClient(url)
        late.answers[job_id] = type(client.answers[job_id])()
        async with late:
            await late.watch()

    assert late.answers[job_id].text == client.answers[job_id].text
    assert late.answers[job_id].end == client.answers[job_id].end


async def test_several_files_at_once_each_get_their_own_answer(natterlog: Running):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        for number in range(6):
            await client.upload(TEXT, f"Number {number}: tokens=40 rate=60")
        await client.watch()

    tags = {check_unspliced(answer.text)[0] for answer in client.answers.values()}
    assert len(tags) == 6
    assert all(answer.end for answer in client.answers.values())


async def test_a_cancel_stops_the_model_and_is_told_to_all(natterlog: Running):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(TEXT, "tokens=5000 rate=50")
        answer = client.answers[job_id]
        await client.watch(until=lambda: len(answer.text) > 100)

        status, body = await client.call("POST", f"/api/jobs/{job_id}/cancel")
        again, refusal = await client.call("POST", f"/api/jobs/{job_id}/cancel")
        await client.watch()

    assert (status, body["data"]["status"]) == (200, "cancelled")
    assert (again, refusal["code"]) == (409, "conflict")
    assert answer.end is not None
    assert (answer.end["type"], answer.end["code"]) == ("job_failed", "cancelled")
    assert answer.text.startswith(body["data"]["ai_response"])
    await natterlog.fake.wait_for(lambda: natterlog.fake.seen[-1].closed_at is not None)


async def test_a_scheduled_job_waits_for_its_time(natterlog: Running):
    due = datetime.now(UTC) + timedelta(seconds=4)
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(TEXT, "tokens=5", scheduled_at=due.isoformat())
        _, waiting = await client.call("GET", f"/api/jobs/{job_id}")
        await client.watch()
        _, done = await client.call("GET", f"/api/jobs/{job_id}")

    assert waiting["data"]["status"] == "scheduled"
    assert done["data"]["status"] == "completed"
    assert datetime.fromisoformat(done["data"]["completed_at"]) >= due


async def test_a_provider_that_fails_for_good_is_told_as_a_failure(natterlog: Running):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(TEXT, "tokens=5 fail=400x9")
        await client.watch()
        _, body = await client.call("GET", f"/api/jobs/{job_id}")

    end = client.answers[job_id].end
    assert end is not None
    assert end["type"] == "job_failed"
    assert (body["data"]["status"], body["data"]["error"]) == ("failed", end["error"])
