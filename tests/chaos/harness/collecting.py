"""Asks all four sides what they know, once everything is at rest."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from tests.chaos.harness.errand import Errand, patiently
from tests.chaos.harness.evidence import Evidence, StoredMessage, StoredRun
from tests.chaos.harness.logged import logged_run
from tests.chaos.harness.world import World
from tests.support.log_checks import RunLog, read_runs, wait_until_all_ended
from tests.support.native_client import NativeClient

_AT_ONCE = 8
_PAGE = 200
T = TypeVar("T")
U = TypeVar("U")


async def collect(world: World, errands: Sequence[Errand], *, settle: float) -> Evidence:
    """The evidence, ``settle`` seconds after which a run without an end counts as stuck."""
    try:
        runs = await wait_until_all_ended(world.bus, settle)
    except TimeoutError:
        runs = await read_runs(world.bus)
    sessions = sorted({session for errand in errands for session in errand.sessions})
    async with NativeClient(*world.urls, silence=20.0) as client:
        ask = _Questions(client)
        evidence = Evidence(
            shown=[shown for errand in errands for shown in errand.shown],
            runs=[logged_run(run) for run in runs.values()],
            calls=world.provider.calls(),
            output_tokens=(await ask.get("/usage"))["totals"]["output_tokens"],
        )
        for messages in await _each(sessions, ask.messages):
            evidence.messages += messages
        evidence.stored_runs = await _each(sorted(runs), ask.run)
        facts = await _each(sessions, ask.facts)
        evidence.api_facts = dict(zip(sessions, facts, strict=True))
        evidence.log_facts = {session: _facts_of(session, runs) for session in sessions}
    return evidence


class _Questions:
    """What the store is asked through a gateway."""

    def __init__(self, client: NativeClient) -> None:
        self._client = client

    async def get(self, path: str) -> Any:
        status, body = await patiently(lambda: self._client.call("GET", path))
        assert status == 200, (path, body)
        return body

    async def messages(self, session_id: str) -> list[StoredMessage]:
        """Every message of a session, those of abandoned branches included."""
        page = await self.get(f"/messages/{session_id}?branches=all&limit={_PAGE}")
        assert page["next_cursor"] is None, "a session has more messages than the harness reads"
        return [
            StoredMessage(
                id=item["id"],
                session_id=session_id,
                role=item["role"],
                status=item["status"],
                run_id=item["run_id"],
                content=item["content"],
            )
            for item in page["items"]
        ]

    async def run(self, run_id: str) -> StoredRun:
        run = await self.get(f"/runs/{run_id}")
        return StoredRun(
            id=run_id,
            status=run["status"],
            attempt=run["attempt"],
            sha256=run["sha256"],
            length=run["length"],
        )

    async def facts(self, session_id: str) -> list[int]:
        """The sequences of a session's facts about runs, as the API shows its log."""
        url = self._client.url(f"/sessions/{session_id}/events")
        async with self._client.http.get(url) as response:
            assert response.status == 200, await response.text()
            lines = (await response.text()).split("\n")  # and not at U+2028, which texts have
        facts = [json.loads(line) for line in lines if line]
        return [fact["seq"] for fact in facts if fact["subject"].split(".")[3] != "_"]


async def _each(items: Iterable[T], ask: Callable[[T], Awaitable[U]]) -> list[U]:
    """The answers about all of them, a few at a time."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(item: T) -> U:
        async with slots:
            return await ask(item)

    return list(await asyncio.gather(*(one(item) for item in items)))


def _facts_of(session_id: str, runs: dict[str, RunLog]) -> list[int]:
    links = [link for run in runs.values() for link in run.links]
    return sorted(link.seq for link in links if link.address.session == session_id)
