"""Many senders at once in one session, under each policy of what a busy session does."""

import asyncio
import time
from collections.abc import Sequence
from typing import get_args

import msgspec

from shared.events import CancelRequested, RunEnded, RunWaiting, TodoChat
from shared.log_entry import LogEntry
from tests.chaos.harness.checker import Finding
from tests.chaos.harness.choices import chooser
from tests.chaos.harness.errand import Errand
from tests.chaos.harness.policy_model import Answered, Played, Policy, SessionFact, faults_of
from tests.chaos.harness.scene import Scene, concluded
from tests.chaos.harness.world import World
from tests.support.log_checks import read_runs, wait_until_all_ended
from tests.support.native_client import NativeClient

SENDERS = 20
DEADLINE = 60.0


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """When and by which gateway one sender comes, and how long its reply is."""

    after: float = 0.0
    """Seconds after the first."""
    gateway: int = 0
    tokens: int = 3
    rate: int = 0


async def crowd(made: World, *, rounds: int) -> Scene:
    """So many rounds, of each policy in turn, with sends that follow from the round's number."""
    errands: list[Errand] = []
    findings: list[Finding] = []
    for number in range(rounds):
        policy: Policy = get_args(Policy)[number % 3]
        errand = Errand(f"crowd-{policy}", number, chooser(number, "crowd"), list(made.urls))
        errands.append(errand)
        faults = faults_of(await play(made, errand, policy, draw_sends(errand)))
        findings += [Finding(rule="policy", where=errand.mark(0), detail=each) for each in faults]
    counts = {"rounds": rounds, "sends": rounds * SENDERS}
    done = await concluded("policies", made, errands, counts)
    return msgspec.structs.replace(done, findings=[*findings, *done.findings])


def draw_sends(errand: Errand) -> list[Send]:
    rng, spread = errand.rng, errand.rng.choice((0.0, 0.05, 0.5))
    return [
        Send(
            after=rng.uniform(0, spread),
            gateway=rng.randrange(2),
            tokens=rng.randint(1, 8),
            rate=rng.choice((0, 0, 60)),
        )
        for _ in range(SENDERS)
    ]


async def play(made: World, errand: Errand, policy: Policy, sends: Sequence[Send]) -> Played:
    """Let all senders into one session, wait until it is at rest, and see what became of them."""
    async with NativeClient(*made.urls) as client, asyncio.timeout(DEADLINE):
        session_id = await client.session(on_busy=policy)
        errand.sessions.add(session_id)
        answers = await asyncio.gather(
            *(_send(made, errand, session_id, n, send) for n, send in enumerate(sends, 1))
        )
        await wait_until_all_ended(made.bus, DEADLINE)
        runs = await read_runs(made.bus)
        entries = [entry for run in runs.values() for entry in run.links]
        _, page = await client.call("GET", f"/messages/{session_id}?limit=200")
    return Played(
        policy=policy,
        facts=[_fact(e) for e in sorted(entries, key=_seq) if e.address.session == session_id],
        answers=list(answers),
        branch=[message["run_id"] for message in page["items"]],
    )


async def _send(made: World, errand: Errand, session_id: str, number: int, send: Send) -> Answered:
    """One sender, who waits for the whole reply; a run's id comes with any answer about it."""
    content = f"mark={errand.mark(number)} tokens={send.tokens} rate={send.rate}"
    await asyncio.sleep(send.after)  # when it comes is part of the example
    sent_at = time.time()
    async with NativeClient(made.urls[send.gateway]) as client:
        body = {"session_id": session_id, "content": content}
        async with client.http.post(client.url("/messages?stream=true"), json=body) as response:
            assert response.status in (200, 409), await response.text()
            run = response.headers.get("X-Run-Id", "") if response.status == 200 else ""
            answered_at = time.time()
            await response.read()
    return Answered(run=run, sent_at=sent_at, answered_at=answered_at)


def _seq(entry: LogEntry) -> int:
    return entry.seq


def _fact(entry: LogEntry) -> SessionFact:
    match entry.fact:
        case RunWaiting():
            kind = "waiting"
        case TodoChat():
            kind = "todo"
        case CancelRequested():
            kind = "cancel"
        case RunEnded(status=status):
            kind = status
        case _:
            kind = "claim"
    return SessionFact(kind=kind, run=entry.address.run, at=entry.fact.at.timestamp())
