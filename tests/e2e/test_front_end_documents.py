"""The document front end, unchanged, before the whole system."""

import asyncio
import io
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image

from tests.support.documents_client import DocumentsClient
from tests.support.fake_provider import check_unspliced
from tests.support.made_files import pdf_of
from tests.support.running import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

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
    assert (answer.progress, answer.resets) == (100, 0)
    # so short a file may have been read before the client listens
    assert answer.steps in (["extract", "answer"], ["answer"])
    assert (status, job["status"], job["progress"], job["error"]) == (200, "completed", 100, None)
    assert (job["file_name"], job["ai_response"]) == ("ada.txt", answer.text)
    assert [(s["name"], s["status"]) for s in job["steps"]] == [
        ("extract", "completed"),
        ("answer", "completed"),
    ]
    assert "Ada Lovelace was born in 1815." in natterlog.fake.seen[-1].message


def a_picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "orange").save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "shown"),
    [
        ("paper.pdf", pdf_of("A page of words"), "A page of words"),
        ("people.csv", b"name,age\nAda,36\n", "Ada"),
        ("cat.png", a_picture(), "data:image/"),
    ],
)
async def test_a_pdf_a_csv_and_an_image_reach_the_model(
    natterlog: Running, name: str, data: bytes, shown: str
):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(data, f"What is {name}? tokens=8", name=name)
        await client.watch()

    answer = client.answers[job_id]
    assert answer.end == {"type": "job_completed", "job_id": job_id, "ai_response": answer.text}
    prompt = str(natterlog.fake.seen[-1].body["messages"])
    assert f"What is {name}?" in prompt
    assert shown in prompt or "'type': 'file'" in prompt


async def test_progress_and_answer_are_told_while_they_grow(natterlog: Running):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(TEXT, "tokens=60 rate=60")
        await client.watch()

    answer = client.answers[job_id]
    assert answer.chunks > 5
    assert answer.seen == sorted(answer.seen)
    assert len(set(answer.seen)) > 2


@pytest.mark.settings(NATTERLOG_STEPS="1")
async def test_the_more_urgent_file_goes_first(own_natterlog: Running):
    processor = own_natterlog.system.one("processor")
    await processor.stop()
    async with DocumentsClient(own_natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        for priority in ("0", "9"):
            await client.upload(TEXT, f"Of priority {priority}: tokens=2", priority=priority)
        status, refusal = await client.uploaded(
            TEXT, name="a.txt", prompt="tokens=2", priority="urgent"
        )
        await processor.start()
        await client.watch()

    prompts = [seen.message for seen in own_natterlog.fake.seen]
    assert ["priority 9" in prompts[0], "priority 0" in prompts[1]] == [True, True]
    assert (status, refusal["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("name", "data", "fields", "status", "code"),
    [
        ("virus.exe", b"MZ\x00\x01", {"prompt": "Hi"}, 415, "unsupported_media_type"),
        ("empty.txt", b"", {"prompt": "Hi"}, 400, "invalid_request"),
        ("a.txt", b"words", {}, 400, "invalid_request"),
        ("a.txt", b"words", {"prompt": "  "}, 400, "invalid_request"),
    ],
)
async def test_an_upload_that_fails_is_told_in_a_sentence(
    natterlog: Running, name: str, data: bytes, fields: dict[str, str], status: int, code: str
):
    async with DocumentsClient(natterlog.system.url) as client:
        answered, body = await client.uploaded(data, name=name, **fields)

    assert (answered, body["success"], body["code"]) == (status, False, code)
    assert body["error"].endswith(".")


async def test_a_cut_line_is_mended_without_a_lost_or_doubled_character(natterlog: Running):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(TEXT, "tokens=90 rate=40")
        answer = client.answers[job_id]
        await client.watch(until=lambda: len(answer.text) > 100)

        gateway = natterlog.system.one("gateway")
        await gateway.kill()
        watching = asyncio.create_task(client.watch())
        await gateway.start()
        await watching

    assert 1 <= client.reconnects <= 5
    assert answer.resets == 0
    assert answer.end == {"type": "job_completed", "job_id": job_id, "ai_response": answer.text}
    assert check_unspliced(answer.text)[1] == 90


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
