"""Short turns: so many messages a second, each answered by a few tokens.

``python -m benchmarks.turns`` puts the same load on natterlog and on the bare relay, each
beside the same provider, and prints what a turn costs and how long its first token takes.
Sessions and sockets are opened before; each is used for one turn at a time, in rotation.
"""

import argparse
import asyncio
import gc
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop

from benchmarks.load import Spread, Window, spread
from benchmarks.stage import ROOT, Target, stage
from benchmarks.ways import CONTENT, new_session, open_socket, watch

TOKENS = 5
TIMEOUT = 30.0
"""Seconds after the last message was sent; what is not answered then is lost."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    way: str
    port: int
    pids: dict[str, int]
    rate: float
    """Messages a second."""
    seconds: float
    talkers: int

    @property
    def turns(self) -> int:
        return round(self.rate * self.seconds)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One way at one rate."""

    way: str
    rate: float
    turns: int
    refused: dict[str, int]
    """Turns that were answered by an error, by its code."""
    lost: int
    """Turns that were not answered in time."""
    first_token_ms: Spread
    whole_ms: Spread
    cpu_ms_per_turn: dict[str, float]
    seconds: float
    """From the first message sent to the last reply ended."""

    @property
    def cpu_ms(self) -> float:
        """All that serves, but for the load and the provider."""
        apart = ("load", "provider")
        return round(sum(ms for name, ms in self.cpu_ms_per_turn.items() if name not in apart), 2)


class Turn:
    """One message and its reply, as the sender sees them."""

    def __init__(self) -> None:
        self.sent_at = self.first_at = self.ended_at = 0
        self.refused = ""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def heard(self, at: int) -> None:
        self.first_at = self.first_at or at

    def end(self, at: int, refused: str = "") -> None:
        self.ended_at, self.refused = at, refused
        if not self.ended.done():
            self.ended.set_result(None)


class Talker:
    """A socket on which one turn after the other goes; ``turn`` is the one that is going."""

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self.send: Callable[[], None] = lambda: None

    def begin(self, turn: Turn) -> None:
        self.turn = turn
        turn.sent_at = time.monotonic_ns() // 1000
        self.send()

    @property
    def free(self) -> bool:
        return self.turn is None or self.turn.ended.done()


Connect = Callable[[int, Talker], Awaitable[None]]

_PROMPT = f"tokens={TOKENS} rate=1000"


async def natterlog(port: int, talker: Talker) -> None:
    """A socket of the native dialect, on a session of its own."""

    def heard(at: int, frame: bytes) -> None:
        turn = talker.turn
        if turn is None:
            return
        if b'"chunk"' in frame:
            turn.heard(at)
        elif b'"message_complete"' in frame:
            turn.end(at)
        elif frame.startswith(b'{"type":"error"'):
            turn.end(at, refused=_code(frame))

    session_id = await new_session(port)
    socket = await watch(port, session_id, heard)
    message = {"type": "send", "session_id": session_id, "content": _PROMPT}
    encoded = msgspec.json.encode(message)
    talker.send = lambda: socket.send(encoded)


async def relay(port: int, talker: Talker) -> None:
    """A socket of :mod:`benchmarks.relay`."""

    def heard(at: int, frame: bytes) -> None:
        turn = talker.turn
        if turn is None:
            return
        if CONTENT in frame:
            turn.heard(at)
        else:
            turn.end(at)

    socket = await open_socket(port, "/ws", heard)
    message = msgspec.json.encode({"content": _PROMPT})
    talker.send = lambda: socket.send(message)


WAYS: dict[str, Connect] = {"relay": relay, "natterlog": natterlog}


def _code(frame: bytes) -> str:
    error = msgspec.json.decode(frame)
    return str(error.get("code") or error.get("error", {}).get("code", "error"))


async def measure(plan: Plan) -> Measured:
    talkers = [Talker() for _ in range(plan.talkers)]
    for talker in talkers:
        await WAYS[plan.way](plan.port, talker)
    await asyncio.sleep(1.0)  # what opening them costs is not counted
    gc.disable()
    window = Window(plan.pids)
    turns = await _send(plan, talkers)
    await asyncio.wait([turn.ended for turn in turns], timeout=TIMEOUT)
    window.close()
    return _summary(plan, window, turns)


async def _send(plan: Plan, talkers: list[Talker]) -> list[Turn]:
    """Send evenly over time; one whose turn is still going lets the next one begin."""
    loop = asyncio.get_running_loop()
    due, turns, waiting = loop.time(), list[Turn](), deque(talkers)
    for _ in range(plan.turns):
        for _ in range(len(talkers)):
            waiting.rotate(-1)
            if waiting[0].free:
                break
        talker, turn = waiting[0], Turn()
        talker.begin(turn)
        turns.append(turn)
        due += 1 / plan.rate
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
    return turns


def _summary(plan: Plan, window: Window, turns: list[Turn]) -> Measured:
    answered = [turn for turn in turns if turn.ended_at and not turn.refused]
    cpu = {name: us for name, us in window.cpu.items() if name != "machine"}
    return Measured(
        way=plan.way,
        rate=plan.rate,
        turns=len(turns),
        refused=dict(Counter(turn.refused for turn in turns if turn.refused)),
        lost=sum(not turn.ended_at for turn in turns),
        first_token_ms=spread([turn.first_at - turn.sent_at for turn in answered]),
        whole_ms=spread([turn.ended_at - turn.sent_at for turn in answered]),
        cpu_ms_per_turn={n: round(us / 1000 / max(1, len(answered)), 2) for n, us in cpu.items()},
        seconds=round((window.end - window.start) / 1e6, 1),
    )


# -- the command ---------------------------------------------------------------------


def main() -> None:
    """Measure as a command, or, told a plan on standard input, as the load's own process."""
    if sys.argv[1:] == ["load"]:
        plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
        sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(plan))))
        return
    arguments = _arguments()
    found = asyncio.run(_measure_all(arguments))
    print("\n".join(table(found)))
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.turns", description="Measure short turns.")
    add = parser.add_argument
    add("--rates", default="1,100,200", help="messages a second (1,100,200)")
    add("--seconds", type=float, default=10.0, help="for how long they are sent (10)")
    add("--burst", type=int, default=0, help="instead: so many messages in one second")
    add("--talkers", type=int, default=500, help="sockets, each with a session (500)")
    add("--workers", type=int, default=1, help="llm_workers (1)")
    add("--ways", default=",".join(WAYS), help=f"which ({','.join(WAYS)})")
    add("--json", type=Path, help="where the numbers go as well")
    return parser.parse_args()


async def _measure_all(arguments: argparse.Namespace) -> list[Measured]:
    ways = arguments.ways.split(",")
    rates = [float(rate) for rate in arguments.rates.split(",")]
    seconds = arguments.seconds
    if arguments.burst:
        rates, seconds = [float(arguments.burst)], 1.0
    found: list[Measured] = []
    async with stage(ways, arguments.workers) as targets:
        for rate in rates:
            for way in ways:
                print(f"{rate:g} turns a second, {way}", file=sys.stderr)
                found.append(await _load(way, targets[way], rate, seconds, arguments.talkers))
    return found


async def _load(way: str, target: Target, rate: float, seconds: float, talkers: int) -> Measured:
    talkers = max(1, min(talkers, round(rate * seconds)))
    plan = Plan(
        way=way, port=target.port, pids=target.pids, rate=rate, seconds=seconds, talkers=talkers
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.turns", "load"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await process.communicate(msgspec.json.encode(plan))
    if process.returncode:
        raise SystemExit(f"The load through {way} failed.")
    return msgspec.json.decode(answer, type=Measured)


def table(found: list[Measured]) -> list[str]:
    """Everything that was measured, a line each, and the processes below."""
    lines = [
        "turns/s  way         turns refused  lost  first token ms     whole ms    CPU ms/turn",
        "                                           p50     p99    p50     p99",
    ]
    for m in found:
        first, whole = m.first_token_ms, m.whole_ms
        lines.append(
            f"{m.rate:>7g}  {m.way:<10} {m.turns:>6} {sum(m.refused.values()):>7} {m.lost:>5} "
            f"{first.p50:>7.1f} {first.p99:>7.1f} {whole.p50:>6.1f} {whole.p99:>7.1f} "
            f"{m.cpu_ms:>10.2f}"
        )
    lines += ["", "CPU ms/turn by process"]
    for m in found:
        parts = ", ".join(f"{name} {ms:.2f}" for name, ms in m.cpu_ms_per_turn.items())
        lines.append(f"{m.rate:>7g}  {m.way:<10} {parts}")
        lines += [f"         refused: {m.refused}"] if m.refused else []
    return lines


if __name__ == "__main__":
    main()
