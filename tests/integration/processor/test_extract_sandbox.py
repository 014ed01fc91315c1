"""Whatever a reader does, the service gets a sentence and nothing is left behind."""

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from services.processor.extract.findings import MIB, ExtractError, Limits
from services.processor.extract.sandbox import extract, read_with

READERS = "tests.support.hostile_readers"


@pytest.fixture(autouse=True)
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the private directories are made."""
    directory = tmp_path / "workshop"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("Hello")
    return path


def is_empty(directory: Path) -> bool:
    return list(directory.iterdir()) == []


def write(file: Path, text: str) -> None:
    file.write_text(text)


def pids_in(file: Path) -> list[int]:
    return [int(word) for word in file.read_text().split()]


def ignore(_: float) -> None:
    pass


SMALL = Limits(memory=128 * MIB, cpu_seconds=1, file_bytes=MIB, characters=1000)
NO_TIME = Limits(seconds=0.3)


@pytest.mark.parametrize(
    ("reader", "limits", "code", "sentence"),
    [
        ("eat_memory", SMALL, "too_large", "Reading the file takes more than 128 MiB of memory."),
        ("spin", SMALL, "timeout", "Reading the file takes more than 1 s of computing."),
        ("spin", NO_TIME, "timeout", "Reading the file took longer than 0.3 s."),
        ("abort", SMALL, "too_large", "Reading the file takes more than 128 MiB of memory."),
        (
            "crash",
            SMALL,
            "invalid_request",
            "The file is damaged in a way that breaks its reader.",
        ),
        (
            "leave",
            SMALL,
            "invalid_request",
            "The file is damaged in a way that breaks its reader.",
        ),
        ("blunder", SMALL, "internal", "The file could not be read: a fault of ours."),
        ("missing", SMALL, "internal", "The file could not be read: a fault of ours."),
        ("fill_the_disk", SMALL, "internal", "The file could not be read: a fault of ours."),
        (
            "point_elsewhere",
            SMALL,
            "invalid_request",
            "The file is damaged in a way that breaks its reader.",
        ),
        (
            "link_elsewhere",
            SMALL,
            "invalid_request",
            "The file is damaged in a way that breaks its reader.",
        ),
        (
            "ramble",
            SMALL,
            "invalid_request",
            "The file is damaged in a way that breaks its reader.",
        ),
    ],
)
async def test_a_reader_that_goes_wrong_is_stopped_and_leaves_nothing(
    reader: str, limits: Limits, code: str, sentence: str, file: Path, workshop: Path
):
    with pytest.raises(ExtractError) as failed:
        await read_with(f"{READERS}:{reader}", file, limits, ignore)

    assert (failed.value.code, failed.value.message) == (code, sentence)
    assert is_empty(workshop)


async def test_a_cancel_kills_the_reader_and_all_that_it_started(file: Path, workshop: Path):
    under_way = asyncio.Event()
    reading = asyncio.create_task(
        read_with(f"{READERS}:wait", file, Limits(), lambda _: under_way.set())
    )
    await under_way.wait()
    reader, its_child = pids_in(file)

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    with pytest.raises(ProcessLookupError):
        os.kill(reader, 0)
    async with asyncio.timeout(10):
        while not has_ended(its_child):  # noqa: ASYNC110  (only its parent is told)
            await asyncio.sleep(0.01)
    assert is_empty(workshop)


def has_ended(pid: int) -> bool:
    """Gone, or dead and waiting for the machine's first process to take notice."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return True


async def test_a_cancel_at_the_very_start_leaves_nothing_either(file: Path, workshop: Path):
    reading = asyncio.create_task(read_with(f"{READERS}:wait", file, Limits(), ignore))
    await asyncio.sleep(0)

    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert is_empty(workshop)


async def test_a_listener_that_fails_ends_the_reading(file: Path, workshop: Path):
    def fail(_: float) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await read_with(f"{READERS}:wait", file, Limits(), fail)

    assert is_empty(workshop)


def a_file(directory: Path, n: int) -> Path:
    path = directory / f"{n}.txt"
    path.write_text(f"text {n}")
    return path


async def test_files_are_read_side_by_side_and_a_bad_one_disturbs_no_other(
    tmp_path: Path, workshop: Path
):
    files = [a_file(tmp_path, n) for n in range(4)]
    *found, failed = await asyncio.gather(
        *(extract(file, "text", Limits(), ignore) for file in files),
        read_with(f"{READERS}:crash", files[0], Limits(), ignore),
        return_exceptions=True,
    )

    assert [one.text for one in found if not isinstance(one, BaseException)] == [
        f"text {n}" for n in range(4)
    ]
    assert isinstance(failed, ExtractError)
    for one in found:
        if not isinstance(one, BaseException):
            one.discard()
    assert is_empty(workshop)


async def test_what_a_library_prints_is_no_answer(file: Path):
    with await read_with(f"{READERS}:chatter", file, Limits(), ignore) as found:
        assert found.text == "said"


async def test_a_reader_knows_nothing_of_the_services_surroundings(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")

    with await read_with(f"{READERS}:show_surroundings", file, Limits(), ignore) as found:
        assert set(found.text.split()) <= {"LC_CTYPE", "PYTHONPATH", "PYTHONUTF8", "TMPDIR"}


async def test_a_file_that_is_not_there_is_a_fault_of_ours(tmp_path: Path):
    with pytest.raises(ExtractError) as failed:
        await extract(tmp_path / "nothing.txt", "text", Limits(), ignore)

    assert failed.value.code == "internal"


async def test_pages_that_crash_the_reader_are_left_out_and_the_others_read(
    file: Path, workshop: Path
):
    write(file, "3 7")
    progress: list[float] = []

    with await read_with(f"{READERS}:crash_at_pages", file, SMALL, progress.append) as found:
        assert found.text == "1 2 4 5 6 8 9 10 "
        assert found.notes == ["Left out: [3, 7]"]
        assert not is_empty(workshop)
    assert is_empty(workshop)

    assert progress == sorted(set(progress))
    assert progress[-1] == 1.0


@pytest.mark.parametrize("pages", ["1 2 3 4", " ".join(map(str, range(1, 11)))])
async def test_a_file_that_crashes_its_reader_again_and_again_is_given_up(
    file: Path, workshop: Path, pages: str
):
    write(file, pages)

    with pytest.raises(ExtractError) as raised:
        await read_with(f"{READERS}:crash_at_pages", file, SMALL, ignore)

    assert raised.value.code == "invalid_request"
    assert raised.value.message == "The file is damaged in a way that breaks its reader."
    assert is_empty(workshop)
