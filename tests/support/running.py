"""A running system with a fake provider behind it and a bus to look into its log."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from shared.bus import Bus
from tests.support.fake_provider import MODELS, FakeProvider
from tests.support.native_client import NativeClient
from tests.support.system import System


@dataclass
class Running:
    """What a test of the whole system is given."""

    system: System
    fake: FakeProvider
    bus: Bus
    client: NativeClient


LEASE = "2"
"""For systems whose workers are killed: what those had at hand goes to another the sooner."""
short_lease = pytest.mark.settings(NATTERLOG_LEASE=LEASE)


def settings_of(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that all ``@pytest.mark.settings`` of the test give its system."""
    return {
        k: v for marked in request.node.iter_markers("settings") for k, v in marked.kwargs.items()
    }


def as_openai(fake: FakeProvider) -> dict[str, str]:
    """The settings with which the fake is a server that speaks OpenAI's API."""
    return {
        "OPENAI_BASE_URL": fake.openai_url,
        "OPENAI_API_KEY": "fake",
        "LLM_DEFAULT_MODEL": "openai/fake-gpt",
    }


@asynccontextmanager
async def running_system(
    *,
    services: tuple[str, ...] = ("store", "llm-worker", "processor", "gateway"),
    models: Mapping[str, list[str]] = MODELS,
    provided: Callable[[FakeProvider], Mapping[str, str]] = as_openai,
    **environ: str,
) -> AsyncIterator[Running]:
    """Every service as a process, the fake provider behind them as ``provided`` says."""
    async with FakeProvider(models=models) as fake:
        settings = {**provided(fake), **environ}
        async with (
            System(settings, services=services) as system,
            Bus(system.nats.url, name="test") as bus,
            NativeClient(*(gateway.url for gateway in system.of("gateway"))) as client,
        ):
            yield Running(system, fake, bus, client)
