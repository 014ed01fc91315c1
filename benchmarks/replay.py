"""Measure how fast recordings are shown: ``python -m benchmarks.replay``.

Runs of 1, 50 and 1,000 deltas are replayed at ``max`` in each conversation's dialect,
from facts in memory to frames: what a gateway, and ``natterlog verify``, pay for one.
"""

import argparse
import asyncio
import hashlib
import time
from datetime import timedelta

from services.gateway.playback import Playback
from shared.events import RunClaimed, RunEnded, TodoChat, Turn
from shared.ids import new_id, now
from shared.log_entry import LogEntry
from shared.subjects import Address

DELTAS = (1, 50, 1_000)
WORD = "token "


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.replay", description="Measure replays.")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long is counted (2)")
    arguments = parser.parse_args()
    print(f"{'dialect':<18} {'deltas':>6} {'runs/s':>10} {'frames/s':>12}")
    for deltas in DELTAS:
        for dialect in a_playback(1).dialects:
            runs, frames = asyncio.run(measure(dialect, deltas, arguments.seconds))
            print(f"{dialect:<18} {deltas:>6} {runs:>10,.0f} {frames:>12,.0f}")


async def measure(dialect: str, deltas: int, seconds: float) -> tuple[float, float]:
    """(runs, frames) a second."""
    playback = a_playback(deltas)
    runs = frames = 0
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or not runs:
        async for _ in playback.frames(dialect):
            frames += 1
        runs += 1
    return runs / passed, frames / passed


def a_playback(deltas: int) -> Playback:
    """A reply in so many pieces of a word."""
    address, at = Address(new_id(), new_id(), new_id()), now()
    text = WORD * deltas
    turn = Turn(user_message_id=new_id(), assistant_message_id=new_id(), content="Hello")
    facts = [
        (address.todo_chat(0), TodoChat(at=at, n=0, turn=turn)),
        (address.fact("claim"), RunClaimed(at=at, worker="w", todo=1, prompt=None)),
        (
            address.fact("final"),
            RunEnded(
                at=at + timedelta(milliseconds=20 * deltas + 20),
                status="completed",
                attempt=2,
                text=text,
                length=len(text),
                sha256=hashlib.sha256(text.encode()).hexdigest(),
                timeline=[(20 * n, len(WORD) * n) for n in range(1, deltas + 1)],
            ),
        ),
    ]
    links = [LogEntry.of(seq, subject, fact) for seq, (subject, fact) in enumerate(facts, start=1)]
    return Playback(links, user=address.user, session_id=address.session, run_id=address.run)


if __name__ == "__main__":
    main()
