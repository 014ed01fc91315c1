"""The benchmarks still run; what they measure here means nothing."""

import asyncio
import json
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
WAYS = ["direct", "relay", "natterlog"]


async def test_every_way_delivers_every_token_and_is_measured(tmp_path: Path):
    numbers = tmp_path / "numbers.json"

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", "--quick", "--json", str(numbers)),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    report = json.loads(numbers.read_text())
    assert [(m["way"], m["lost"]) for m in report["measured"]] == [(way, 0) for way in WAYS]
    for measured in report["measured"]:
        assert measured["tokens_per_second"] > 0
        assert 0 < measured["token_ms"]["p50"] <= measured["token_ms"]["p99"]
        assert 0 < measured["first_token_ms"]["p50"] <= measured["first_token_ms"]["p99"]
    assert "gateway" in report["measured"][-1]["cpu_us_per_token"]
    assert [m["what"] for m in report["memory"]] == ["relay", "gateway, idle", "gateway, watching"]
    assert b"CPU against the relay's" in output


async def test_recordings_are_shown_as_fast_as_can_be():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.replay", "--seconds", "0"),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()

    assert process.returncode == 0
    _, *rows = output.decode().splitlines()
    assert [row.split()[:2] for row in rows] == [
        [dialect, deltas]
        for deltas in ("1", "50", "1000")
        for dialect in ("assistant", "assistant-socket", "channels", "interview")
    ]


async def test_short_turns_are_answered_on_both_ways_and_measured(tmp_path: Path):
    numbers = tmp_path / "turns.json"

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.turns", "--rates", "10", "--seconds", "1"),
        *("--talkers", "3", "--json", str(numbers)),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
    measured = json.loads(numbers.read_text())
    assert [(m["way"], m["turns"], m["refused"], m["lost"]) for m in measured] == [
        ("relay", 10, {}, 0),
        ("natterlog", 10, {}, 0),
    ]
    assert all(0 < m["first_token_ms"]["p50"] <= m["whole_ms"]["p50"] for m in measured)
    assert "store" in measured[1]["cpu_ms_per_turn"]
