"""The corpus is shown today as it was when it was recorded; what differs is named."""

import io
import shutil
from pathlib import Path

import msgspec
import pytest

from services.cli.commands.verify import CORPUS, check, render
from services.cli.display.terminal import Output
from services.cli.log_files import corpus
from services.store import queries
from services.store.applying import apply
from shared.commands import ListMessages
from shared.errors import InvalidRequest
from shared.records import Message
from tests.unit.store.story import tables

RECORDED = Path(__file__).parents[3] / CORPUS
NAMES = corpus.names(RECORDED)


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_session_is_shown_as_it_was(name: str):
    compared, difference = await corpus.difference(RECORDED, name)

    assert difference is None
    assert compared > 0


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(("document", "pipeline"))])
def test_the_tables_hold_the_messages_that_clients_were_told(name: str):
    named = corpus.read(RECORDED / f"{name}.jsonl")
    lines = [
        msgspec.json.decode(line, type=corpus.FrameLine)
        for line in (RECORDED / f"{name}.frames.jsonl").read_bytes().splitlines()[1:]
    ]
    events = [msgspec.json.decode(x.frame) for x in lines if x.dialect == "assistant-socket"]
    completed: dict[str, Message] = {}
    for event in events:
        if event["type"] == "message_complete":
            completed[event["message"]["id"]] = msgspec.convert(event["message"], Message)
        for message in event.get("messages", []):  # told anew: it was rated
            if message["id"] in completed:
                completed[message["id"]] = msgspec.convert(message, Message)
    with tables() as connection:
        apply(connection, named.facts, named.facts[-1].seq)
        request = ListMessages(user_id=named.user, session_id=named.session_id, limit=1000)
        kept = {m.id: m for m in queries.list_messages(connection, request).items}

    shown = [message for message in completed.values() if message.id in kept]
    assert [kept[message.id] for message in shown] == shown
    assert shown or name in ("failed", "empty", "queued")


@pytest.fixture
def a_copy(tmp_path: Path) -> Path:
    for path in RECORDED.glob("reset.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


async def test_the_first_frame_that_differs_is_named(a_copy: Path):
    path = a_copy / "reset.frames.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if '"reset' in line or '\\"reset' in line)
    lines[number] = lines[number].replace("reset", "again")
    path.write_text("".join(lines))
    out = io.StringIO()

    code = await check(a_copy, Output(out, coloured=False))

    assert code == 1
    head, was, now = out.getvalue().splitlines()
    assert head == f"reset: frame {number} of assistant is another one."
    assert "again" in was
    assert "reset" in now


async def test_a_frame_that_is_missing_is_a_difference(a_copy: Path):
    path = a_copy / "reset.frames.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    _, difference = await corpus.difference(a_copy, "reset")

    assert difference is not None
    assert (difference.was, difference.dialect) == (None, "channels")


async def test_frames_are_written_anew_where_that_is_meant_and_facts_never(a_copy: Path):
    frames, facts = a_copy / "reset.frames.jsonl", (a_copy / "reset.jsonl").read_bytes()
    recorded = frames.read_bytes()
    header, first, *rest = recorded.splitlines(keepends=True)
    older = [line for line in (first, *rest) if b'"dialect":"channels"' not in line]
    frames.write_bytes(header + b"".join(older).replace(b"message_start", b"message_begin"))

    code = await render(a_copy, Output(io.StringIO(), coloured=False))

    assert code == 0
    assert await corpus.difference(a_copy, "reset") == (len(older), None)
    assert frames.read_bytes() == header + b"".join(older)  # no dialect that it had not
    assert (a_copy / "reset.jsonl").read_bytes() == facts


async def test_a_fact_that_was_changed_is_seen(a_copy: Path):
    path = a_copy / "reset.jsonl"
    path.write_text(path.read_text().replace('"completed"', '"cancelled"'))

    with pytest.raises(InvalidRequest, match="was changed since"):
        await corpus.difference(a_copy, "reset")


async def test_frames_of_another_format_are_refused(a_copy: Path):
    path = a_copy / "reset.frames.jsonl"
    path.write_text(path.read_text().replace('"format":1', '"format":9', 1))

    with pytest.raises(InvalidRequest, match="has format 9"):
        await corpus.difference(a_copy, "reset")


def test_an_empty_directory_is_no_corpus(tmp_path: Path):
    with pytest.raises(InvalidRequest, match="no recorded session"):
        corpus.names(tmp_path)


async def test_a_session_that_is_added_is_the_same_at_once_and_only_once(tmp_path: Path):
    named = corpus.read(RECORDED / "unicode.jsonl")

    frames = await corpus.add(tmp_path, "again", named)

    assert await corpus.difference(tmp_path, "again") == (frames, None)
    assert corpus.names(tmp_path) == ["again"]
    with pytest.raises(InvalidRequest, match="is there already"):
        await corpus.add(tmp_path, "again", named)
