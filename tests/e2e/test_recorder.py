"""The flight recorder at work: what an operator reads after things went wrong."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from services.cli.log_files.export_file import FactLine, LogLine, SessionLine, writing
from shared.events import SessionCreated, SessionUpdated, encode
from shared.ids import LOCAL_USER, new_id, now
from shared.subjects import EVENTS, NONE
from tests.support.command_line import begin, run_command
from tests.support.log_checks import wait_until_ended
from tests.support.native_client import Reply
from tests.support.running import Running, running_system, short_lease
from tests.support.system import DEADLINE

pytestmark = pytest.mark.asyncio(loop_scope="session")


@short_lease
async def test_the_story_of_a_reply_whose_worker_was_killed(own_natterlog: Running):
    client = own_natterlog.client
    session = await client.session(system_prompt="Be brief.")
    reply = Reply()
    await client.start(reply, session, "tokens=60 rate=40")
    await client.follow(reply, until=60)
    shown_before = len(reply.text)
    worker = own_natterlog.system.one("llm-worker")
    await worker.kill()
    await worker.start()
    await client.follow(reply)
    await wait_until_ended(own_natterlog.bus, reply.run_id)

    shown = await run_command(
        own_natterlog, "runs", "show", reply.run_id[:20], "--prompt", "--json"
    )
    read = await run_command(own_natterlog, "runs", "show", reply.run_id)

    story, [first, second] = shown.json["story"], shown.json["prompts"]
    lost, wrote = story["attempts"]
    assert (shown.code, read.code, read.err) == (0, 0, "")
    assert lost["ended"] == "its worker was lost"
    assert lost["length"] >= shown_before
    assert lost["worker"] != wrote["worker"]
    assert (wrote["ended"], wrote["length"]) == ("the run completed", len(reply.text))
    assert wrote["deltas"] > 1
    assert (story["state"], story["end"]["intact"]) == ("completed", True)
    assert [part["role"] for part in first["parts"]] == ["system", "user"]
    assert first["parts"] == second["parts"]
    lines = read.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in read.out
    assert [line.split(", after")[0] for line in lines if line.startswith("  ended")] == [
        "  ended   its worker was lost",
        "  ended   the run completed",
    ]


async def test_a_session_is_answered_for_as_it_was_at_a_cursor(natterlog: Running):
    client = natterlog.client
    session = await client.session(title="Then")
    first = await client.send(session, "one tokens=3")
    then = await both(natterlog, session)
    await client.send(session, "two tokens=3")
    await client.call("PATCH", f"/sessions/{session}", json={"title": "Now"})

    assert await both(natterlog, session, first.cursor) == then
    assert await both(natterlog, session) != then


async def both(natterlog: Running, session: str, cursor: str = "") -> list[bytes]:
    at = f"?at={cursor}" if cursor else ""
    answers: list[bytes] = []
    for path in (f"/sessions/{session}{at}", f"/messages/{session}{at}"):
        async with natterlog.client.http.get(natterlog.client.url(path)) as response:
            answers.append(await response.read())
    return answers


async def test_a_cursor_of_another_log_or_of_the_future_is_refused(natterlog: Running):
    client = natterlog.client
    session = await client.session()
    reply = await client.send(session, "tokens=3")
    epoch, seq, _, _ = reply.cursor.split("-")

    answers = [
        await client.call("GET", f"/{where}/{session}?at={cursor}")
        for where in ("sessions", "messages")
        for cursor in (
            "0123456789ab-1-0-0",
            "x",
            f"{epoch}-{int(seq) + 10**9}-0-0",
            f"{epoch}-0-0-0",
        )
    ]

    assert [(status, body["code"], body.get("path")) for status, body in answers] == [
        (404, "not_found", None),
        (400, "invalid_request", "$.at"),
        (404, "not_found", None),
        (404, "not_found", None),
    ] * 2


ALL_WELL = {"bus": "ok", "store": "ok", "llm_worker": "ok", "processor": "ok"}


@pytest.mark.parametrize("service", ["store", "llm-worker", "processor"])
async def test_the_gateway_says_who_does_not_answer(natterlog: Running, service: str):
    gateway, other = natterlog.system.one("gateway"), natterlog.system.one(service)
    kind = service.replace("-", "_")

    async def ready() -> tuple[int, dict[str, Any]]:
        async with natterlog.client.http.get(f"{gateway.url}/readyz") as response:
            return response.status, await response.json()

    before = await ready()
    await other.kill()
    away = await ready()
    await other.start()
    after = await ready()

    well = {"status": "ready", "service": "gateway", "checks": ALL_WELL, "restart_for": []}
    missing = {"status": "not ready", "checks": ALL_WELL | {kind: f"no {kind} answers"}}
    assert before == after == (200, well)
    assert away == (503, well | missing)


async def test_the_gateway_counts_what_it_does(natterlog: Running):
    gateway = natterlog.system.one("gateway")
    await natterlog.client.session()

    metrics = await text_of(natterlog.client.http, f"{gateway.url}/metrics")

    assert 'natterlog_requests_total{dialect="assistant",status="201"}' in metrics
    assert "natterlog_feeds" in metrics


async def text_of(http: aiohttp.ClientSession, url: str) -> str:
    async with http.get(url) as response:
        return await response.text()


async def test_what_is_recorded_is_read_although_the_store_or_everything_is_away(
    natterlog: Running,
):
    session = await natterlog.client.session()
    reply = await natterlog.client.send(session, "tokens=3")
    store = natterlog.system.one("store")
    with_store = await run_command(natterlog, "runs", "show", reply.run_id)
    await store.kill()

    without = await run_command(natterlog, "runs", "show", reply.run_id)
    from_files = await run_command(natterlog, "runs", "show", reply.run_id, at=None)
    await store.start()

    assert without == with_store
    assert from_files == with_store


async def test_the_tables_are_checked_beside_the_running_system(natterlog: Running):
    session = await natterlog.client.session()
    await natterlog.client.send(session, "tokens=3")

    checked = await run_command(natterlog, "rebuild", "--check")

    assert (checked.code, checked.out.endswith(": no differences.\n")) == (0, True), checked


async def test_faults_are_told_in_a_line_with_a_code(natterlog: Running, tmp_path: Path):
    unknown = await run_command(natterlog, "runs", "show", "ffff")
    missing = await run_command(natterlog, "import-log", str(tmp_path / "none.jsonl"), at=None)
    unnamed = await run_command(natterlog, "import-log", at=None)
    (tmp_path / "picture").write_bytes(b"\xff")
    unreadable = await run_command(
        natterlog, "rerun", "ffff", "--system", str(tmp_path / "picture"), at=None
    )
    wrong = await run_command(natterlog, "runs", "ls", "--since", "soon")
    at_rest = await run_command(natterlog, "runs", "tail", at=None)

    assert (unknown.code, unknown.err.count("\n")) == (3, 1)
    assert missing.code == 1
    assert "none.jsonl" in missing.err
    assert unnamed.code == 2
    assert "Name a file" in unnamed.err
    assert unreadable.code == 2
    assert "picture is no text in UTF-8." in unreadable.err
    assert wrong.code == 2
    assert (at_rest.code, at_rest.err) == (
        1,
        "natterlog runs: Nothing runs here, so nothing happens that could be followed.\n",
    )


async def test_a_session_travels_between_two_whole_systems(natterlog: Running, tmp_path: Path):
    file = str(tmp_path / "log.jsonl.gz")
    session = await natterlog.client.session(title="Tea")
    reply = await natterlog.client.send(session, "tokens=20")
    await run_command(natterlog, "export-log", session, file)

    async with running_system() as other:
        imported = await run_command(other, "import-log", file)
        again = Reply(run_id=reply.run_id)
        await other.client.follow(again)
        checked = await run_command(other, "rebuild", "--check")
        calls = len(other.fake.seen)
        more = await other.client.send(session, "tokens=3")

    assert imported.code == 0, imported.err
    assert (again.text, again.end) == (reply.text, reply.end)
    assert checked.code == 0, checked.out
    assert calls == 0
    more.check()


async def test_files_travel_along_so_that_a_reply_with_them_is_written_anew_elsewhere(
    natterlog: Running, tmp_path: Path
):
    form = aiohttp.FormData()
    form.add_field("file", b"Some words.", filename="notes.txt")
    _, uploaded = await natterlog.client.call("POST", "/files", data=form)
    session = await natterlog.client.session()
    reply = await natterlog.client.send(session, "Look tokens=3", attachments=[uploaded["id"]])
    assert reply.end is not None
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("whole", "named", "redacted")}
    exports = [
        await run_command(natterlog, "export-log", session, files["whole"]),
        await run_command(natterlog, "export-log", session, files["named"], "--without-files"),
        await run_command(natterlog, "export-log", session, files["redacted"], "--redact"),
    ]

    async with running_system() as other:
        moved = await run_command(other, "import-log", files["whole"])
        again = await run_command(other, "import-log", files["whole"])
        message = reply.end["message"]["id"]
        status, body = await other.client.call("POST", f"/messages/{message}/regenerate")
        assert status == 201, body
        await wait_until_ended(other.bus, body["assistant_message"]["run_id"])
        prompt = other.fake.seen[-1].message
        checked = await run_command(other, "rebuild", "--check")

    texts = {name: read(Path(file)) for name, file in files.items()}
    heads = [json.loads(text.splitlines()[0]) for text in texts.values()]
    assert [(head["format"], head["files"]) for head in heads] == [
        (2, True),
        (1, False),
        (1, False),
    ]
    assert [each.code for each in exports] == [0, 0, 0]
    assert exports[0].out.endswith(": 2 sessions, 8 facts, 2 files.\n")
    assert exports[1].out.endswith(": 1 sessions, 4 facts; files are named only.\n")
    in_base64 = "U29tZSB3b3Jkcy4"
    assert [in_base64 in text for text in texts.values()] == [True, False, False]
    assert (moved.code, moved.out.splitlines()[-1]) == (0, "2 files were brought here."), moved
    assert (again.code, again.out.count("was here already")) == (0, 2)
    assert "Some words." in prompt
    assert (checked.code, checked.out.endswith(": no differences.\n")) == (0, True), checked


def read(file: Path) -> str:
    return file.read_text()


async def test_an_import_whose_process_was_killed_goes_on_where_it_was(
    natterlog: Running, tmp_path: Path
):
    session, file = new_id(), tmp_path / "long.jsonl"
    write_long(file, session, facts=1500)
    facts = f"evt.*.{session}.>"

    heard = asyncio.Event()
    listening = await natterlog.bus.listen_live(f"live.{facts}", lambda _: heard.set())
    process = await begin(natterlog, "import-log", str(file))
    async with asyncio.timeout(DEADLINE):
        await heard.wait()
    process.kill()
    await listening.close()
    await process.communicate()
    came = len(await natterlog.bus.read(EVENTS, facts, limit=2000))
    hidden, _ = await natterlog.client.call("GET", f"/sessions/{session}")
    imported = await run_command(natterlog, "import-log", str(file))
    shown, body = await natterlog.client.call("GET", f"/sessions/{session}")
    again = await run_command(natterlog, "import-log", str(file))

    assert 0 < came < 1500
    assert (hidden, shown) == (404, 200)
    assert body["title"] == "Change 1499"
    assert (imported.code, imported.out) == (0, f"{session}: brought here, 1500 facts.\n")
    assert again.out == f"{session}: was here already, from this file, 1500 facts.\n"
    assert len(await natterlog.bus.read(EVENTS, facts, limit=2000)) == 1500


def write_long(file: Path, session: str, *, facts: int) -> None:
    """An export of one session whose title was changed again and again."""
    opened = SessionCreated(
        at=now(),
        title=None,
        mode="general",
        model=None,
        temperature=None,
        max_tokens=None,
        system_prompt=None,
        context_tags=[],
        on_busy="queue",
    )
    changes = [SessionUpdated(at=now(), prev=n, title=f"Change {n}") for n in range(1, facts)]
    with writing(file) as writer:
        writer.write(LogLine(format=1, natterlog="0.1.0", made_at=now(), redacted=False))
        writer.write(SessionLine(id=session, user=LOCAL_USER, facts=facts))
        for seq, fact in enumerate([opened, *changes], start=1):
            writer.write(FactLine(seq=seq, run=NONE, fact=msgspec.Raw(encode(fact))))
