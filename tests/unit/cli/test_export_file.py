"""The file in which sessions travel: written whole or not at all, read whole or not at all."""

import gzip
import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from services.cli.log_files.export_file import (
    BytesLine,
    FactLine,
    FileLine,
    LogLine,
    SessionLine,
    check,
    files_in,
    sessions_of,
    writing,
)
from shared.errors import InvalidRequest
from tests.support.scripted_log import SESSION, USER, ScriptedLog
from tests.unit.cli.samples import at, restarted


def write(path: Path, log: ScriptedLog) -> None:
    with writing(path) as writer:
        writer.write(LogLine(format=1, natterlog="0.1.0", made_at=at(0), redacted=False))
        writer.write(SessionLine(id=SESSION, user=USER, facts=len(log.entries)))
        for fact in log.entries:
            raw = msgspec.Raw(fact.data)
            writer.write(FactLine(seq=fact.seq, run=fact.address.run, fact=raw))


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_what_was_written_is_read(tmp_path: Path, name: str):
    log = restarted()
    write(tmp_path / name, log)

    end = check(tmp_path / name)
    [(session, facts)] = sessions_of(tmp_path / name)

    assert (end.sessions, end.facts) == (1, 5)
    assert session == SessionLine(id=SESSION, user=USER, facts=5)
    assert [(f.seq, bytes(f.fact)) for f in facts] == [(f.seq, f.data) for f in log.entries]


def test_the_same_sessions_make_the_same_file(tmp_path: Path):
    write(tmp_path / "a.gz", restarted())
    write(tmp_path / "b.gz", restarted())

    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_it_is_for_its_owner_alone_and_never_written_over(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    write(path, restarted())

    with pytest.raises(InvalidRequest, match="is there already"):
        write(path, restarted())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_nothing_is_left_of_one_that_could_not_be_finished(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "log.jsonl"):
        raise ZeroDivisionError

    assert list(tmp_path.iterdir()) == []


def lines_of(tmp_path: Path) -> list[str]:
    write(tmp_path / "whole.jsonl", restarted())
    return (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda lines: lines[:-1], "was cut off"),
        (lambda lines: [*lines[:3], *lines[4:]], "another number of facts than it says"),
        (lambda lines: [line.replace('"facts":5,', '"facts":4,') for line in lines], "line 7"),
        (lambda lines: [*lines[:5], lines[5].replace("03:00", "03:01"), *lines[6:]], "was changed"),
        (lambda lines: lines[1:], "line 1: it stands in the wrong place"),
        (lambda lines: [*lines, lines[-1]], "line 9: it stands in the wrong place"),
        (lambda lines: [lines[0].replace('"format":1', '"format":3'), *lines[1:]], "has format 3"),
        (lambda lines: [*lines[:4], "{", *lines[4:]], "line 5: JSON is malformed"),
        (lambda lines: ['{"line": "other"}\n', *lines[1:]], "line 1: Invalid value 'other'"),
        (lambda lines: [], "was cut off"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_refused(
    tmp_path: Path, change: Callable[[list[str]], list[str]], fault: str
):
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(change(lines_of(tmp_path))))

    with pytest.raises(InvalidRequest, match=fault):
        check(changed)


def test_what_is_packed_badly_is_refused(tmp_path: Path):
    write(tmp_path / "log.gz", restarted())
    data = (tmp_path / "log.gz").read_bytes()
    (tmp_path / "cut.gz").write_bytes(data[:-20])
    (tmp_path / "none.gz").write_bytes(b"not packed at all")

    for name in ("cut.gz", "none.gz"):
        with pytest.raises(InvalidRequest, match="cannot be unpacked"):
            check(tmp_path / name)
    assert gzip.decompress(data).startswith(b'{"line":"log","format":1')


def write_file(path: Path, *parts: bytes, claimed: bytes) -> None:
    """An export of one session with a file of these parts, which says that it is another."""
    line = FileLine(
        session=SESSION, id="f", size=len(claimed), sha256=hashlib.sha256(claimed).hexdigest()
    )
    with writing(path) as writer:
        writer.write(
            LogLine(format=2, natterlog="0.1.0", made_at=at(0), redacted=False, files=True)
        )
        writer.write(SessionLine(id=SESSION, user=USER, facts=0))
        writer.write(line)
        for part in parts:
            writer.write(BytesLine(data=part))


def test_a_file_travels_in_pieces(tmp_path: Path):
    path = tmp_path / "log.jsonl.gz"
    write_file(path, b"\x00\xff", b"words", claimed=b"\x00\xffwords")

    check(path)
    found = [(line.session, line.id, list(parts)) for line, parts in files_in(path)]

    assert found == [(SESSION, "f", [b"\x00\xff", b"words"])]
    assert [session.id for session, _ in sessions_of(path)] == [SESSION]


def test_an_empty_file_has_no_pieces(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    write_file(path, claimed=b"")

    check(path)

    assert [list(parts) for _, parts in files_in(path)] == [[]]


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([b"wor"], "another size"),
        ([b"words", b"!"], "another size"),
        ([b"words!"], "another size"),
        ([b"sword"], "another than it says"),
        ([], "another size"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path: Path, parts: list[bytes], fault: str):
    path = tmp_path / "log.jsonl"
    write_file(path, *parts, claimed=b"words")

    with pytest.raises(InvalidRequest, match=fault):
        check(path)
