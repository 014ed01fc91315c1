"""What contract tests may ask for."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.between import Between
from tests.support.nats_server import NatsServer, forget_everything
from tests.support.stage import Stage, stage, stage_with_store
from tests.support.store_at_work import StoreAtWork


@pytest.fixture
async def on_stage(nats_server: NatsServer) -> AsyncIterator[Stage]:
    """A gateway with the default settings."""
    async with stage(nats_server.url) as made:
        yield made


@dataclass
class Whole:
    """A gateway before a real store; tests play the worker's part with ``store``."""

    stage: Stage
    store: StoreAtWork
    between: Between
    """What stands between the two."""

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """(status, decoded body) of a request to the native API."""
        url = f"/api/v1/chat{path}"
        async with self.stage.http.request(method, url, **options) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else None

    async def shown(self, session_id: str) -> list[str]:
        """What the active branch says."""
        status, page = await self.call("GET", f"/messages/{session_id}")
        assert status == 200
        return [message["content"] for message in page["items"]]

    async def answered(self, run_id: str, text: str, **fields: Any) -> None:
        """The worker's part of one reply."""
        run = await self.store.run(run_id)
        await self.store.claim(run)
        await self.store.end(run, text, **fields)


@pytest.fixture
async def whole(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Whole]:
    await forget_everything(nats_server)
    between = Between()
    async with stage_with_store(nats_server, tmp_path, between) as (made, store):
        yield Whole(made, store, between)
