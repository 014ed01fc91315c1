"""A recorded model says what was said, when it was said, and fails where that failed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.llm_worker.providers.base import Ended, Prompt, ProviderError
from services.llm_worker.providers.recorded import Recorded
from services.llm_worker.retries import worth_another
from shared.bus import Bus
from shared.commands import CreateSession, SendMessage
from shared.events import Fault, PromptSource
from shared.ids import LOCAL_USER, new_id
from shared.streams import ensure_streams
from shared.subjects import Address
from tests.support.fake_store import FakeStore
from tests.support.memory_bus import MemoryBus

SOURCE = PromptSource(
    provider="p", model="m", system=None, message_ids=[], temperature=None, max_tokens=None
)


class Stage:
    """A log with a recorded run, and a run that is to hear it again."""

    def __init__(self, bus: Bus, store: FakeStore) -> None:
        self.bus = bus
        self.store = store
        self.provider = Recorded(bus)

    async def session(self, user: str = LOCAL_USER) -> str:
        session_id = new_id()
        await self.store.create_session(CreateSession(user_id=user, session_id=session_id))
        return session_id

    async def run(self, session_id: str, user: str = LOCAL_USER) -> str:
        request = SendMessage(user_id=user, session_id=session_id, content="Hello", run_id=new_id())
        return (await self.store.send_message(request)).run.id

    async def claim(self, run_id: str, *, fault: Fault | None = None) -> None:
        await self.store.claim(run_id, prompt=SOURCE, fault=fault)

    async def hear(
        self, model: str, run_id: str, heard: list[str | Ended] | None = None
    ) -> list[str | Ended]:
        """What the model says in the run's latest attempt, also when it fails then."""
        found = [] if heard is None else heard
        asker = Address(LOCAL_USER, self.store.runs[run_id].session_id, run_id)
        prompt = Prompt(model=model, messages=[], asker=asker)
        found.append(await self.provider.stream(prompt, found.append))
        return found


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        store = FakeStore(bus)
        await store.serve()
        yield Stage(bus, store)


async def recorded_twice(stage: Stage, fault: Fault | None) -> str:
    """A run whose first attempt broke off, and whose second was whole."""
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)
    await stage.store.write(run_id, 0, "Half ")
    await stage.claim(run_id, fault=fault)
    await stage.store.write(run_id, 0, "The ")
    await stage.store.write(run_id, 4, "whole")
    await stage.store.end(run_id, "The whole.")
    return run_id


async def test_each_attempt_hears_what_the_recorded_one_heard_and_fails_where_it_failed(
    stage: Stage,
):
    fault = Fault(code="provider_unavailable", message="Overloaded.", retryable=True)
    model = f"{await recorded_twice(stage, fault)}@max"
    run_id = await stage.run(await stage.session())

    await stage.claim(run_id)
    heard: list[str | Ended] = []
    with pytest.raises(ProviderError) as failed:
        await stage.hear(model, run_id, heard)
    await stage.store.write(run_id, 0, "Half ")
    await stage.claim(run_id)
    whole = await stage.hear(model, run_id)

    assert heard == ["Half "]
    assert (failed.value.code, failed.value.message, failed.value.transient) == (
        "provider_unavailable",
        "Overloaded.",
        True,
    )
    assert whole[:3] == ["The ", "whole", "."]
    assert isinstance(whole[3], Ended)
    assert whole[3].usage == stage.store.runs[model.partition("@")[0]].usage


async def test_a_lost_worker_is_a_passing_fault(stage: Stage):
    model = f"{await recorded_twice(stage, None)}@max"
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)

    with pytest.raises(ProviderError) as failed:
        await stage.hear(model, run_id)

    assert failed.value.transient


async def test_an_attempt_that_was_lost_before_a_word_came_is_left_out(stage: Stage):
    recorded = await stage.run(await stage.session())
    await stage.claim(recorded)
    await stage.claim(recorded)
    await stage.store.write(recorded, 0, "Here")
    await stage.store.end(recorded, "Here")
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)
    await stage.claim(run_id)

    assert (await stage.hear(f"{recorded}@max", run_id))[0] == "Here"


async def test_a_failed_run_fails_with_its_fault(stage: Stage):
    recorded = await stage.run(await stage.session())
    await stage.claim(recorded)
    fault = Fault(code="timeout", message="It said nothing for 30 seconds.")
    await stage.store.end(recorded, "Half", status="failed", error=fault)
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)

    heard: list[str | Ended] = []
    with pytest.raises(ProviderError) as failed:
        await stage.hear(f"{recorded}@max", run_id, heard)

    assert heard == ["Half"]
    assert (failed.value.code, failed.value.transient) == ("timeout", False)


async def test_what_ended_a_run_is_not_tried_again(stage: Stage):
    recorded = await stage.run(await stage.session())
    await stage.claim(recorded)
    fault = Fault(code="timeout", message="Busy.", retryable=True, retry_after=90.0)
    await stage.store.end(recorded, "", status="failed", error=fault)
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)

    with pytest.raises(ProviderError) as failed:
        await stage.hear(f"{recorded}@max", run_id)

    assert (failed.value.transient, failed.value.retry_after) == (True, 90.0)
    assert not worth_another(failed.value, 1, 3)


async def test_a_recorded_session_answers_a_sessions_runs_in_their_order(stage: Stage):
    old, new = await stage.session(), await stage.session()
    for text in ("First", "Second"):
        run_id = await stage.run(old)
        await stage.claim(run_id)
        await stage.store.end(run_id, text)

    texts: list[str | Ended] = []
    for _ in range(2):
        run_id = await stage.run(new)
        await stage.claim(run_id)
        texts += (await stage.hear(f"{old}@max", run_id))[:1]
        await stage.store.end(run_id, "")
    third = await stage.run(new)
    await stage.claim(third)

    assert texts == ["First", "Second"]
    with pytest.raises(ProviderError, match="has 2 runs"):
        await stage.hear(f"{old}@max", third)


async def test_anothers_recording_is_not_there(stage: Stage):
    other = new_id()
    recorded = await stage.run(await stage.session(other), other)
    await stage.claim(recorded)
    await stage.store.end(recorded, "Secret")
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)

    for model in (recorded, stage.store.runs[recorded].session_id, new_id()):
        with pytest.raises(ProviderError) as refused:
            await stage.hear(model, run_id)
        assert refused.value.code == "model_not_found"
        assert not refused.value.transient


@pytest.mark.parametrize("model", ["", "gpt", "@max", "01997c3a-5f7f-7c02-b3c5-a1f2e4d60712@fast"])
async def test_what_names_no_recording_is_refused(stage: Stage, model: str):
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)

    with pytest.raises(ProviderError) as refused:
        await stage.hear(model, run_id)

    assert refused.value.code == "model_not_found"


async def test_a_run_that_goes_on_is_no_recording_yet(stage: Stage):
    recorded = await stage.run(await stage.session())
    await stage.claim(recorded)
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)

    with pytest.raises(ProviderError, match="has not ended"):
        await stage.hear(f"{recorded}@max", run_id)


async def test_pieces_come_at_their_times(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    recorded = await recorded_twice(stage, None)
    run_id = await stage.run(await stage.session())
    await stage.claim(run_id)
    await stage.store.write(run_id, 0, "Half ")
    await stage.claim(run_id)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    loop = asyncio.get_running_loop()
    frozen = loop.time()
    monkeypatch.setattr("services.llm_worker.providers.recorded.asyncio.sleep", sleep)
    monkeypatch.setattr(loop, "time", lambda: frozen)

    await stage.hear(f"{recorded}@0.5", run_id)

    assert [round(seconds, 6) for seconds in waits] == [0.02, 0.04, 0.01]
