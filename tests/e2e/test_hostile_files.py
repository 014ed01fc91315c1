"""Hostile files over HTTP, to the end of their jobs: a sentence, a code, and service as before."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from shared.streams import FILES
from tests.support.documents_client import DocumentsClient
from tests.support.hostile_files import (
    MIB,
    a_cyclic_pdf,
    a_pdf_bomb,
    a_pdf_that_draws_itself,
    a_png_of_too_many_pixels,
    a_png_that_is_cut_short,
    a_png_with_a_text_bomb,
    an_encrypted_pdf,
)
from tests.support.made_files import pdf_of, png
from tests.support.running import Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEADLINE = 90
MOST = 4 * MIB
"""Bytes that an upload may have here."""
TOO_MUCH_MEMORY = "Reading the file takes more than 512 MiB of memory."
GOOD = b"name,age\nAda,36\n"
PICTURE = png(4, 4, bytes([0, *range(0, 200, 50)]) * 4)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system_of_module() -> AsyncIterator[Running]:
    """One system for all of them: none may harm it for the next."""
    async with running_system(NATTERLOG_MAX_UPLOAD=str(MOST)) as running:
        yield running


async def outcome(natterlog: Running, data: bytes, name: str) -> dict[str, Any]:
    """What becomes of a job about this file: its end as told, and the job as asked for."""
    async with DocumentsClient(natterlog.system.url) as client, asyncio.timeout(DEADLINE):
        job_id = await client.upload(data, "tokens=3", name=name)
        await client.watch()
        _, body = await client.call("GET", f"/api/jobs/{job_id}")
    end, job = client.answers[job_id].end, body["data"]
    assert end is not None
    assert (job["status"], job["error"]) == (
        "completed" if end["type"] == "job_completed" else "failed",
        end.get("error"),
    )
    return {**job, "code": end.get("code")}


async def is_served(natterlog: Running) -> None:
    """A good file gets its answer, and every process lives."""
    job = await outcome(natterlog, GOOD, "people.csv")
    assert (job["status"], job["progress"]) == ("completed", 100)
    assert all(process.running for process in natterlog.system.processes)


@pytest.mark.parametrize(
    ("name", "data", "code", "sentence"),
    [
        ("encrypted.pdf", an_encrypted_pdf(), "invalid_request", "The PDF is encrypted."),
        (
            "truncated.pdf",
            pdf_of("Hello")[:300],
            "invalid_request",
            "The PDF is damaged or cut short.",
        ),
        (
            "cyclic.pdf",
            a_cyclic_pdf(),
            "invalid_request",
            "The PDF is damaged: none of its pages can be read.",
        ),
        ("bomb.pdf", a_pdf_bomb(640 * MIB), "too_large", TOO_MUCH_MEMORY),
        ("draws-itself.pdf", a_pdf_that_draws_itself(), "too_large", TOO_MUCH_MEMORY),
        (
            "pixels.png",
            a_png_of_too_many_pixels(),
            "too_large",
            "The image has more than the 50,000,000 pixels that it may have.",
        ),
        (
            "text-bomb.png",
            a_png_with_a_text_bomb(),
            "invalid_request",
            "The image is damaged or cut short.",
        ),
        (
            "cut.png",
            a_png_that_is_cut_short(),
            "invalid_request",
            "The image is damaged or cut short.",
        ),
        (
            "endless.csv",
            b"a,b\n" + b"x" * (3 * MIB),
            "too_large",
            "Line 2 is longer than 1,048,576 characters: "
            "the file is no table, or its lines do not end.",
        ),
        (
            "picture-and-script.gif",
            b"GIF89a/*" + b"x" * 2000 + b"*/=1;alert(1)//",
            "unsupported_media_type",
            "The file is no PNG, JPEG, GIF or WebP image.",
        ),
        (
            "picture-and-document.png",
            b"\x89PNG\r\n\x1a\n" + pdf_of("Hello"),
            "unsupported_media_type",
            "The file is no PNG, JPEG, GIF or WebP image.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[-5:-1] else "",
)
async def test_a_file_that_cannot_be_read_fails_its_job_with_a_sentence(
    natterlog: Running, name: str, data: bytes, code: str, sentence: str
):
    job = await outcome(natterlog, data, name)

    assert (job["status"], job["code"], job["error"]) == ("failed", code, sentence)
    assert job["progress"] < 100
    assert job["file_name"] == name
    assert [(step["name"], step["status"]) for step in job["steps"]] == [
        ("extract", "failed"),
        ("answer", "pending"),
    ]
    assert natterlog.fake.seen == []


@pytest.mark.parametrize(
    ("name", "data", "notes"),
    [
        (
            "million.pdf",
            pdf_of("Hello", claim=1_000_000),
            [
                "Only the first 100 of 1,000,000 pages were read.",
                "Pages 2–100 could not be read.",
            ],
        ),
        (
            "notes.txt",
            pdf_of("Hello"),
            ["The file is a PDF, although its name ends in “.txt”."],
        ),
        (
            "report.pdf",
            PICTURE,
            ["The file is a PNG image, although its name ends in “.pdf”."],
        ),
        ("document-and-archive.pdf", pdf_of("Hello") + b"PK\x03\x04" + bytes(3000), []),
    ],
    ids=["million claimed pages", "PDF called text", "picture called PDF", "PDF and archive"],
)
async def test_what_can_be_read_of_a_doubtful_file_is_and_the_rest_is_told(
    natterlog: Running, name: str, data: bytes, notes: list[str]
):
    job = await outcome(natterlog, data, name)

    assert (job["status"], job["steps"][0]["notes"]) == ("completed", notes)
    assert all(note in natterlog.fake.seen[-1].message for note in notes)


# -- refused at the door ---------------------------------------------------------------


async def sent(natterlog: Running, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "multipart/form-data; boundary=x"} | headers
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{natterlog.system.url}/api/upload", data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


def form(data: bytes, name: bytes) -> bytes:
    """A form as no decent client would send it."""
    name = name if name.startswith(b"filename") else b'filename="%b"' % name
    return (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\ntokens=3\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; %b\r\n\r\n%b\r\n--x--\r\n'
        % (name, data)
    )


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        (form(b"MZ\x90\0\3", b"a.exe"), 415, "unsupported_media_type", "neither a known format"),
        (form(b"a,b\n\0", b"a.csv"), 415, "unsupported_media_type", "neither a known format"),
        (
            form(b"a" * 200_000 + b"\0", b"a.txt"),
            415,
            "unsupported_media_type",
            "neither a known format",
        ),
        (form(b"Hello", b"a.pdf"), 415, "unsupported_media_type", "is plain text, although"),
        (
            form(b"\xff\xfeH\0\0\xd8", b"a.txt"),
            415,
            "unsupported_media_type",
            "not valid in the encoding",
        ),
        (form(b"", b"a.txt"), 400, "invalid_request", "The file is empty."),
        (form(b"Hello", b"a.txt")[:-20], 400, "invalid_request", "broken off or malformed"),
        (form(b"Hello", b"a\7.txt"), 400, "invalid_request", "broken off or malformed"),
    ],
    ids=[
        *("program", "zero", "late zero", "text called PDF", "half a character"),
        *("empty", "cut", "control character in a header"),
    ],
)
async def test_what_is_no_file_to_read_is_refused_and_nothing_is_kept(
    natterlog: Running, body: bytes, status: int, code: str, sentence: str
):
    before = await chunks(natterlog)

    answered, refusal = await sent(natterlog, body)

    assert (answered, refusal["success"], refusal["code"]) == (status, False, code)
    assert sentence in refusal["error"]
    assert await chunks(natterlog) == before


async def test_a_body_that_unpacks_to_more_than_may_be_is_refused(natterlog: Running):
    before = await chunks(natterlog)
    packed = gzip.compress(form(b"a" * (3 * MOST), b"a.txt"), compresslevel=1)

    status, answer = await sent(natterlog, packed, **{"Content-Encoding": "gzip"})

    assert len(packed) < MOST // 50
    assert (status, answer["code"]) == (413, "too_large")
    assert await chunks(natterlog) == before


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b'filename="../../../etc/passwd"', "passwd"),
        (rb'filename="C:\\Windows\\..\\evil.txt"', "evil.txt"),
        (b"filename*=UTF-8''bell%07%0D%0A%00and%E2%80%AEtxt.exe.txt", "bellandtxt.exe.txt"),
        (b'filename="' + b"a" * 900 + b'.txt"', "a" * 196 + ".txt"),
        (b'filename="...."', "file"),
    ],
    ids=["path", "path of Windows", "control characters", "long", "dots"],
)
async def test_of_a_name_only_what_is_harmless_is_kept(natterlog: Running, name: bytes, kept: str):
    status, answer = await sent(natterlog, form(b"Hello", name))

    async with DocumentsClient(natterlog.system.url) as client:
        _, body = await client.call("GET", f"/api/jobs/{answer['data']['job_id']}")
    assert (status, body["data"]["file_name"]) == (200, kept)


async def test_an_upload_that_is_cut_off_half_way_leaves_nothing(natterlog: Running):
    before, begun = await chunks(natterlog), asyncio.Event()
    listening = await natterlog.bus.listen("$O.FILES.C.>", lambda _: begun.set())
    port = int(natterlog.system.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + form(b"a" * 2_000_000, b"a.txt")
    )
    async with asyncio.timeout(DEADLINE):
        await begun.wait()

        writer.transport.abort()

        while await chunks(natterlog) != before:
            pass  # they are erased one after another
    with suppress(ConnectionError):
        await writer.wait_closed()
    await listening.close()


async def test_after_all_of_them_a_good_file_gets_its_answer(natterlog: Running):
    bombs = [
        outcome(natterlog, pdf_of("Hello")[:300], "truncated.pdf"),
        outcome(natterlog, a_cyclic_pdf(), "cyclic.pdf"),
        outcome(natterlog, a_png_with_a_text_bomb(), "bomb.png"),
    ]

    ends = await asyncio.gather(*bombs)
    await is_served(natterlog)

    assert [job["status"] for job in ends] == ["failed"] * 3
    assert "Traceback" not in natterlog.system.logs()


async def chunks(natterlog: Running) -> int:
    query = {"subjects_filter": "$O.FILES.C.>"}
    info = await natterlog.bus.api(f"STREAM.INFO.{FILES}", query)
    return len(info["state"].get("subjects") or ())
