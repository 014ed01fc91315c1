"""The load: so many replies at once, read in one of three ways, in a process of its own.

``python -m benchmarks.load`` takes a :class:`Plan` as JSON on standard input and
answers a :class:`Measured` on standard output.  What it does:

=======  ====================================================================
ramp     all replies begin, one after the other, and go on to the end
settle   a second in which nothing is counted
window   tokens, their time on the way and the processes' CPU time are counted
probes   short replies begin among the others: the time to the first token
=======  ====================================================================
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Iterable

import msgspec
import uvloop

from benchmarks import procfs
from benchmarks.ways import WAYS, Ask, Reply

STARTS_PER_SECOND = 100
SETTLE = 1.0
PROBES_PER_SECOND = 20
PROBE_TOKENS = 3
TIMEOUT = 20.0
"""Seconds after the last token was due; what has not come then is lost."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    way: str
    port: int
    replies: int
    rate: float
    seconds: float
    pids: dict[str, int]
    """The processes whose CPU time is counted."""

    @property
    def ramp(self) -> float:
        return self.replies / STARTS_PER_SECOND

    @property
    def probes(self) -> int:
        return round(self.seconds * PROBES_PER_SECOND)

    @property
    def tokens(self) -> int:
        """How long a reply is that begins first and is still being written at the last probe."""
        return round((self.ramp + SETTLE + 2 * self.seconds + 1) * self.rate)


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How values lie, in milliseconds."""

    p50: float
    p99: float
    most: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One way at one number of replies."""

    way: str
    replies: int
    tokens_per_second: float
    """Delivered in the window."""
    pieces_per_second: float
    """The frames that brought them."""
    token_ms: Spread
    """From the provider's write to the client's read, of each token in the window."""
    first_token_ms: Spread
    """From the client's message to its first token, of the probes."""
    cpu_us_per_token: dict[str, float]
    cores: dict[str, float]
    """Cores that each process kept busy; ``machine`` is all of it, whoever else is at work."""
    lost: int
    """Tokens that never came, or came twice (below 0)."""


async def measure(plan: Plan) -> Measured:
    prepare = WAYS[plan.way]
    long = [Reply(plan.tokens, plan.rate) for _ in range(plan.replies)]
    short = [Reply(PROBE_TOKENS, plan.rate) for _ in range(plan.probes)]
    requests = [await prepare(plan.port, reply) for reply in [*long, *short]]
    gc.disable()

    await _begin(long, requests, STARTS_PER_SECOND)
    await asyncio.sleep(SETTLE)
    window = Window(plan.pids)
    await asyncio.sleep(plan.seconds)
    window.close()
    await _begin(short, requests[len(long) :], PROBES_PER_SECOND)
    due = plan.ramp + 2.0 + TIMEOUT
    await asyncio.wait([reply.ended for reply in [*long, *short]], timeout=due)
    return _summary(plan, window, long, short)


async def _begin(replies: list[Reply], requests: Iterable[Ask], per_second: float) -> None:
    """Ask for one reply after the other, evenly over time."""
    loop = asyncio.get_running_loop()
    turn = loop.time()
    for reply, ask in zip(replies, requests, strict=False):
        reply.sent_at = time.monotonic_ns() // 1000
        ask()
        turn += 1 / per_second
        await asyncio.sleep(turn - loop.time())


class Window:
    """What the processes used between its making and its end."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = {**pids, "load": os.getpid()}
        self._before = self._cpu()
        self.start = self.end = time.monotonic_ns() // 1000
        self.cpu: dict[str, int] = {}

    def close(self) -> None:
        self.end = time.monotonic_ns() // 1000
        self.cpu = {name: used - self._before[name] for name, used in self._cpu().items()}

    def _cpu(self) -> dict[str, int]:
        used = {name: procfs.cpu_us(pid) for name, pid in self._pids.items()}
        return {**used, "machine": procfs.machine_us()}


def _summary(plan: Plan, window: Window, long: list[Reply], short: list[Reply]) -> Measured:
    within = range(window.start, window.end)
    took = [came - sent for r in long for sent, came in r.tokens() if came in within]
    pieces = sum(at in within for reply in long for at, _ in reply.pieces)
    first = [reply.pieces[0][0] - reply.sent_at for reply in short if reply.pieces]
    length = window.end - window.start
    cpu = {name: used for name, used in window.cpu.items() if name != "machine"}
    return Measured(
        way=plan.way,
        replies=plan.replies,
        tokens_per_second=round(len(took) * 1e6 / length, 1),
        pieces_per_second=round(pieces * 1e6 / length, 1),
        token_ms=spread(took),
        first_token_ms=spread(first),
        cpu_us_per_token={name: round(us / max(1, len(took)), 1) for name, us in cpu.items()},
        cores={name: round(us / length, 3) for name, us in window.cpu.items()},
        lost=sum(reply.lost for reply in [*long, *short]),
    )


def spread(microseconds: list[int]) -> Spread:
    """The percentiles, by nearest rank."""
    ranked = sorted(microseconds) or [-1000]

    def at(share: float) -> float:
        return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))] / 1000, 2)

    return Spread(p50=at(0.5), p99=at(0.99), most=at(1))


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(plan))))


if __name__ == "__main__":
    main()
