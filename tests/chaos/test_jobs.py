"""Kill any service in the middle of a job: a front end that comes back five times loses nothing."""

import asyncio

import aiohttp
import pytest

from shared.streams import FILES
from tests.support.content_client import ContentClient
from tests.support.documents_client import Answer, DocumentsClient
from tests.support.fake_provider import check_unspliced
from tests.support.fake_script import Script
from tests.support.log_checks import wait_until_ended
from tests.support.memory import MEASURABLE, MEBIBYTE, peak, reset_peak, resident
from tests.support.running import Running, short_lease

SERVICES = ["gateway", "processor", "llm-worker", "store"]
ROWS = b"name,age\n" + b"Ada,36\n" * 2000
STEPS = ["keywords", "content_generation", "compliance_check"]


HEAD = (
    b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
)
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\ntokens=5\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
)


async def kill_and_restart(natterlog: Running, service: str) -> None:
    process = natterlog.system.one(service)
    await process.kill()
    await process.start()


@short_lease
@pytest.mark.parametrize("service", SERVICES)
async def test_a_file_gets_its_answer_although_a_service_is_killed(
    natterlog: Running, service: str
):
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(90):
        early = await client.upload(ROWS, "One: tokens=100 rate=40", name="people.csv")
        await kill_and_restart(natterlog, service)
        late = await client.upload(ROWS, "Two: tokens=100 rate=40", name="people.csv")
        await client.watch(until=lambda: len(client.answers[late].text) > 100)
        await kill_and_restart(natterlog, service)
        await client.watch()

    for job_id in (early, late):
        answer = client.answers[job_id]
        run = await wait_until_ended(natterlog.bus, job_id)
        assert answer.end == {"type": "job_completed", "job_id": job_id, "ai_response": answer.text}
        assert answer.progress == 100
        assert check_unspliced(answer.text)[1] == 100
        assert answer.text == run.final.text


@short_lease
@pytest.mark.settings(LLM_DEFAULT_MODEL="demo", NATTERLOG_DEMO_RATE="20")
@pytest.mark.parametrize("service", SERVICES)
async def test_each_step_is_told_once_although_a_service_is_killed(
    natterlog: Running, service: str
):
    async with ContentClient(natterlog.system.url) as client, asyncio.timeout(90):
        path = await client.start()
        await kill_and_restart(natterlog, service)
        for step in STEPS[:2]:
            await client.watch(path, until=lambda frame, step=step: frame.get("step") == step)
            await kill_and_restart(natterlog, service)
        await client.watch(path)
        async with ContentClient(natterlog.system.url) as late:
            await late.watch(path)

    for steps in client.steps():
        assert steps == STEPS[: len(steps)]
    assert client.end is not None
    assert client.end["type"] == "result"
    assert client.end["response_text"]
    assert set(client.end["strategy"]) == {"keywords", "audience", "tone", "hooks", "hashtags"}
    assert set(client.end["compliance"]) == {"approved", "issues", "disclaimer"}
    assert late.steps() == [STEPS]
    assert late.end == client.end


async def test_a_second_gateway_tells_the_rest_when_the_first_is_killed(natterlog: Running):
    other = await natterlog.system.start("gateway")
    urls = natterlog.system.url, other.url
    async with DocumentsClient(*urls) as client, asyncio.timeout(60):
        job_id = await client.upload(ROWS, "tokens=150 rate=50", name="people.csv")
        answer = client.answers[job_id]
        await client.watch(until=lambda: len(answer.text) > 200)

        await natterlog.system.one("gateway").kill()
        await client.watch()

    assert answer.end == {"type": "job_completed", "job_id": job_id, "ai_response": answer.text}
    assert (answer.resets, client.reconnects) == (0, 1)
    assert check_unspliced(answer.text)[1] == 150


async def test_a_reference_means_one_job_at_two_gateways_and_two_stores_one_of_which_dies(
    natterlog: Running,
):
    natterlog.fake.default = Script(tokens=5000, rate=20)
    other = await natterlog.system.start("gateway")
    second = natterlog.system.data_dir.parent / "second"
    await natterlog.system.start("store", NATTERLOG_DATA_DIR=str(second))
    async with (
        ContentClient(natterlog.system.url) as one,
        ContentClient(other.url) as two,
        asyncio.timeout(90),
    ):
        begun = await asyncio.gather(*(c.start(session_id="job_1") for c in (one, two) * 4))
        await kill_and_restart(natterlog, "store")
        later = await asyncio.gather(*(c.start(session_id="job_1") for c in (one, two) * 4))
        status, _ = await one.call("POST", f"/chat/{begun[0].rpartition('/')[2]}/cancel")
        assert status == 200
        await one.watch(begun[0])
        after = await asyncio.gather(*(c.start(session_id="job_1") for c in (one, two) * 4))

    assert set(begun) == set(later) == {begun[0]}
    assert len(set(after)) == 1
    assert after[0] != begun[0]


async def test_nothing_is_left_of_an_upload_whose_client_was_cut_off(natterlog: Running):
    port = int(natterlog.system.url.rpartition(":")[2])
    begun, gone = asyncio.Event(), asyncio.Event()
    listening = await natterlog.bus.listen("$O.FILES.C.>", lambda _: begun.set())
    erased = await natterlog.bus.listen("$JS.API.STREAM.MSG.DELETE.OBJ_FILES", lambda _: gone.set())
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    )
    writer.write(b"a" * 1_000_000)
    await writer.drain()
    async with asyncio.timeout(20):
        await begun.wait()
        writer.transport.abort()
        await gone.wait()
        while await chunks(natterlog):
            pass  # they are erased one after another

    await listening.close()
    await erased.close()
    async with DocumentsClient(natterlog.system.url) as client:
        _, body = await client.call("GET", "/api/jobs")
    assert body["data"]["jobs"] == []


async def test_a_job_is_answered_while_the_store_is_dead(natterlog: Running):
    store = natterlog.system.one("store")
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(90):
        job_id = await client.upload(ROWS, "tokens=150 rate=50", name="people.csv")
        answer = client.answers[job_id]
        await client.watch(until=lambda: answer.text)

        await store.kill()
        await client.watch()
        refused, _ = await client.call("GET", f"/api/jobs/{job_id}")
        await store.start()
        status, body = await client.call("GET", f"/api/jobs/{job_id}")

    assert answer.end == {"type": "job_completed", "job_id": job_id, "ai_response": answer.text}
    assert (answer.progress, answer.resets, client.reconnects) == (100, 0, 0)
    assert check_unspliced(answer.text)[1] == 150
    assert (refused, status) == (503, 200)
    assert (body["data"]["status"], body["data"]["ai_response"]) == ("completed", answer.text)


@pytest.mark.skipif(not MEASURABLE, reason="asks Linux for memory")
async def test_a_client_that_does_not_read_costs_no_memory_and_loses_nothing(natterlog: Running):
    pid = natterlog.system.one("gateway").pid
    async with (
        DocumentsClient(natterlog.system.url) as client,
        DocumentsClient(natterlog.system.url) as reader,
        asyncio.timeout(100),
        client.http.ws_connect(f"{client.url}/ws", max_msg_size=0) as ws,
    ):
        transport = transport_of(ws)
        transport.pause_reading()
        warm = await reader.upload(ROWS, "tokens=4000 rate=2000", name="people.csv")
        await reader.watch()
        before = resident(pid)
        reset_peak(pid)
        for number in range(4):
            await reader.upload(ROWS, f"{number}: tokens=4000 rate=1000", name="people.csv")
        await reader.watch()
        most = peak(pid)
        client.answers = {job_id: Answer() for job_id in reader.answers}

        transport.resume_reading()
        while not all(answer.end for answer in client.answers.values()):
            frame = await ws.receive_json()
            if frame["job_id"] in client.answers:
                client.answers[frame["job_id"]].take(frame)

    assert len(reader.answers[warm].text) > 30_000
    for job_id, answer in client.answers.items():
        assert (answer.text, answer.end) == (
            reader.answers[job_id].text,
            reader.answers[job_id].end,
        )
        assert (answer.progress, answer.resets) == (100, 0)
        assert check_unspliced(answer.text)[1] == 4000
    assert most - before < 16 * MEBIBYTE, f"{(most - before) / MEBIBYTE:.1f} MiB"


def transport_of(ws: aiohttp.ClientWebSocketResponse) -> asyncio.Transport:
    """What the socket is read from: paused, its client is one that does not read."""
    assert ws._response.connection is not None
    transport = ws._response.connection.transport
    assert isinstance(transport, asyncio.Transport)
    return transport


@pytest.mark.parametrize("back", ["at once", "after the answer"])
async def test_an_upload_whose_server_is_killed_is_told_clearly_and_leaves_nothing(
    natterlog: Running, back: str
):
    nats, port = natterlog.system.nats, int(natterlog.system.url.rpartition(":")[2])
    begun = asyncio.Event()
    await natterlog.bus.listen("$O.FILES.C.>", lambda _: begun.set())
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = FORM + b"a" * 4_000_000 + b"\r\n--x--\r\n"
        writer.write(HEAD % len(body) + body[:1_000_000])
        await begun.wait()

        await nats.kill()
        writer.write(body[1_000_000:])
        if back == "at once":
            await nats.start()
        status = int((await reader.readline()).split()[1])
        if back == "after the answer":
            await nats.start()
        writer.close()
        await natterlog.bus.wait_connected()
        while status != 200 and await chunks(natterlog):
            pass  # they are erased as soon as the gateway is connected again
        good = await client.upload(ROWS, "tokens=20", name="people.csv")
        await client.watch()
        _, listed = await client.call("GET", "/api/jobs")

    assert status in (200, 503)
    assert client.answers[good].progress == 100
    jobs = [job["job_id"] for job in listed["data"]["jobs"]]
    assert (jobs[0], len(jobs)) == (good, 2 if status == 200 else 1)


async def chunks(natterlog: Running) -> int:
    query = {"subjects_filter": "$O.FILES.C.>"}
    info = await natterlog.bus.api(f"STREAM.INFO.{FILES}", query)
    return len(info["state"].get("subjects") or ())
