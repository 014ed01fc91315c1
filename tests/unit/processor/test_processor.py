"""What the processor does with its todos, over the in-memory server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.processor import processor as module
from services.processor.extract.findings import ExtractError
from services.processor.processor import Processor
from shared.bus import Bus
from shared.chain import extend, read_chain
from shared.consumer import Delivery, Rejected
from shared.events import (
    CancelRequested,
    Fault,
    FilePlan,
    Plan,
    PreviousAttempt,
    Progress,
    RunClaimed,
    RunEnded,
    StepResult,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
    Usage,
    encode,
)
from shared.ids import new_id, now
from shared.plans import step_names
from shared.streams import ensure_streams
from shared.subjects import Address, fact_kind
from tests.support.memory_bus import MemoryBus
from tests.support.plans import a_document, a_file, a_pipeline, a_result, an_ask

FOUND = a_result("extract", "words", notes=["2 pages cut."])


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        yield bus


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> list[StepResult | Exception]:
    """What comes of the next files that are read."""
    coming: list[StepResult | Exception] = []

    async def read(*_: object) -> StepResult:
        found = coming.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(module, "read", read)
    return coming


async def a_todo(bus: Bus, plan: Plan | None = None, **fields: Any) -> Delivery:
    run = Address(new_id(), new_id(), new_id())
    plan = plan or a_document()
    known = {"n": 0, "priority": 3, "step": step_names(plan)[0], "plan": plan}
    fact = TodoProcess(at=now(), **(known | fields))
    subject = run.todo_process(3, fact.n)
    seq = await extend(bus, subject, fact, expected=0)
    return Delivery(seq, subject, run, fact, 1)


async def kinds(bus: Bus, todo: Delivery) -> list[str]:
    return [fact_kind(link.subject) for link in await read_chain(bus, todo.address.facts)]


async def last(bus: Bus, todo: Delivery) -> Any:
    return (await read_chain(bus, todo.address.facts))[-1].fact


def a_processor(bus: Bus, *, silent_deaths: int = 6) -> Processor:
    return Processor(bus, new_id(), silent_deaths=silent_deaths)


async def test_a_file_is_read_under_a_claim_and_then_asked_about(
    bus: Bus, reading: list[StepResult | Exception]
):
    reading.append(FOUND)
    todo = await a_todo(bus)

    await a_processor(bus).handle(todo)

    assert await kinds(bus, todo) == ["todo.process.3.0", "claim", "todo.generate.3.1"]
    following = await last(bus, todo)
    assert isinstance(following, TodoGenerate)
    assert (following.n, following.last, following.ask.step) == (1, True, "answer")
    assert "words" in following.ask.instead
    assert following.results == [a_result("extract", "", notes=["2 pages cut."])]


async def test_how_far_a_reading_got_is_told_by_the_fact_that_ended_it_whosever_it_was(
    bus: Bus, reading: list[StepResult | Exception]
):
    reading.append(FOUND)
    todo = await a_todo(bus)
    claim = RunClaimed(at=now(), worker=new_id(), todo=todo.seq, prompt=None)
    lost = await extend(bus, todo.address.fact("claim"), claim, expected=todo.seq)
    for ms, fraction in ((5, 0.25), (9, 0.5)):
        await bus.store(todo.address.tokens, encode(Progress(lost, "extract", fraction, ms)))

    await a_processor(bus).handle(todo)

    *_, second, following = [link.fact for link in await read_chain(bus, todo.address.facts)]
    assert isinstance(second, RunClaimed)
    assert isinstance(following, TodoGenerate)
    assert second.previous == PreviousAttempt(
        attempt=lost, text="", reason="its processor was lost", progress=[(5, 250), (9, 500)]
    )
    assert following.previous is not None
    assert (following.previous.reason, following.previous.text) == ("the file was read", "")


async def test_a_file_that_cannot_be_read_ends_its_run_with_the_sentence(
    bus: Bus, reading: list[StepResult | Exception]
):
    reading.append(ExtractError("invalid_request", "The PDF is encrypted."))
    todo = await a_todo(bus)

    await a_processor(bus).handle(todo)

    final = await last(bus, todo)
    assert isinstance(final, RunEnded)
    assert (final.status, final.error) == (
        "failed",
        Fault(code="invalid_request", message="The PDF is encrypted."),
    )


async def test_how_much_was_read_before_is_kept_by_the_next_claim_and_by_the_end(
    bus: Bus, reading: list[StepResult | Exception]
):
    reading.append(ExtractError("invalid_request", "The PDF is damaged."))
    todo = await a_todo(bus)
    lost = RunClaimed(at=now(), worker="lost", todo=todo.seq, prompt=None, fraction=0.1)
    attempt = await extend(bus, todo.address.fact("claim"), lost, expected=todo.seq)
    token_event = Progress(attempt=attempt, step="extract", fraction=0.4)
    await bus.append(todo.address.tokens, encode(token_event), expected=0)

    await a_processor(bus).handle(todo)

    chain = [link.fact for link in await read_chain(bus, todo.address.facts)]
    claims = [fact.fraction for fact in chain if isinstance(fact, RunClaimed)]
    ends = [fact.fraction for fact in chain if isinstance(fact, RunEnded)]
    assert (claims, ends) == ([0.1, 0.4], [0.4])


async def test_files_are_counted_by_what_came_of_them(
    bus: Bus, reading: list[StepResult | Exception]
):
    reading += [FOUND, ExtractError("invalid_request", "The PDF is encrypted.")]
    kind = a_document().file.kind

    def counted() -> list[float]:
        counters = [
            ("natterlog_files_total", {"kind": kind, "outcome": "read"}),
            ("natterlog_files_total", {"kind": kind, "outcome": "invalid_request"}),
            ("natterlog_processor_steps_total", {"outcome": "asked"}),
            ("natterlog_processor_steps_total", {"outcome": "failed"}),
            ("natterlog_file_seconds_count", {"kind": kind}),
        ]
        return [REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in counters]

    before = counted()
    for _ in range(2):
        await a_processor(bus).handle(await a_todo(bus))

    assert [after - was for after, was in zip(counted(), before, strict=True)] == [1, 1, 1, 1, 2]


async def test_a_pipelines_step_is_asked_without_a_claim(bus: Bus):
    plan = a_pipeline("one", "two")
    todo = await a_todo(bus, plan, n=2, step="two", results=[a_result("one", "tea")])

    await a_processor(bus).handle(todo)

    assert await kinds(bus, todo) == ["todo.process.3.2", "todo.generate.3.3"]
    assert await last(bus, todo) == TodoGenerate(
        at=(await last(bus, todo)).at,
        prev=todo.seq,
        nonce=(await last(bus, todo)).nonce,
        n=3,
        priority=3,
        ask=an_ask("two"),
        plan=plan,
        results=[a_result("one", "tea")],
        last=True,
    )


async def test_a_step_that_nobody_knows_ends_its_run(bus: Bus):
    todo = await a_todo(bus, step="from the future")

    await a_processor(bus).handle(todo)

    final = await last(bus, todo)
    assert (final.status, final.attempt, final.error) == (
        "failed",
        0,
        Fault(code="invalid_request", message="No processor knows the step “from the future”."),
    )


async def test_a_second_delivery_changes_nothing(bus: Bus):
    todo = await a_todo(bus, a_pipeline())
    await a_processor(bus).handle(todo)
    before = await read_chain(bus, todo.address.facts)

    await a_processor(bus).handle(todo)

    assert await read_chain(bus, todo.address.facts) == before


async def test_a_todo_that_its_schedule_fired_twice_is_done_once(bus: Bus):
    todo = await a_todo(bus, a_pipeline())
    echo = await extend(bus, todo.subject, todo.fact, expected=todo.seq)

    await a_processor(bus).handle(todo._replace(seq=echo))
    ignored = await kinds(bus, todo)
    await a_processor(bus).handle(todo)

    assert ignored == ["todo.process.3.0", "todo.process.3.0"]
    assert await kinds(bus, todo) == [*ignored, "todo.generate.3.1"]


async def test_an_echo_in_the_middle_of_a_reading_costs_nothing(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    todo = await a_todo(bus)

    async def read(*_: object) -> StepResult:
        head = (await read_chain(bus, todo.address.facts))[-1].seq
        await extend(bus, todo.subject, todo.fact, expected=head)
        return FOUND

    monkeypatch.setattr(module, "read", read)

    await a_processor(bus).handle(todo)

    assert await kinds(bus, todo) == [
        "todo.process.3.0",
        "claim",
        "todo.process.3.0",
        "todo.generate.3.1",
    ]


@pytest.mark.parametrize("end", ["cancel", "final"])
async def test_a_schedule_that_fires_after_the_end_begins_nothing(bus: Bus, end: str):
    todo = await a_todo(bus, a_pipeline())
    fact = (
        CancelRequested(at=now())
        if end == "cancel"
        else RunEnded(at=now(), status="cancelled", attempt=0, text="", length=0, sha256="")
    )
    seq = await extend(bus, todo.address.fact(end), fact, expected=todo.seq)
    fired = await extend(bus, todo.subject, todo.fact, expected=seq)

    await a_processor(bus).handle(todo._replace(seq=fired))

    assert await kinds(bus, todo) == ["todo.process.3.0", end, "todo.process.3.0"]


async def test_a_cancel_that_came_first_wins_and_the_run_ends(bus: Bus):
    results = [a_result("one", usage=Usage(output_tokens=7))]
    todo = await a_todo(bus, a_pipeline("one", "two"), n=2, step="two", results=results)
    await extend(bus, todo.address.fact("cancel"), CancelRequested(at=now()), expected=todo.seq)

    await a_processor(bus).handle(todo)

    assert await kinds(bus, todo) == ["todo.process.3.2", "cancel", "final"]
    final = await last(bus, todo)
    assert (final.status, final.error, final.results) == ("cancelled", None, results)
    assert final.usage == Usage(output_tokens=7)


async def test_a_run_that_is_lost_again_and_again_is_given_up(bus: Bus):
    todo = await a_todo(bus)
    claim = RunClaimed(at=now(), worker="dead", todo=todo.seq, prompt=None)
    await extend(bus, todo.address.fact("claim"), claim, expected=todo.seq)

    await a_processor(bus, silent_deaths=1).handle(todo)

    final = await last(bus, todo)
    assert (final.status, final.error and final.error.code) == ("failed", "internal")


async def test_a_fact_that_is_no_process_todo_is_rejected(bus: Bus):
    turn = Turn(user_message_id="u", assistant_message_id="a", content="?")
    todo = await a_todo(bus)

    with pytest.raises(Rejected):
        await a_processor(bus).handle(todo._replace(fact=TodoChat(at=now(), n=0, turn=turn)))


async def test_a_file_for_messages_ends_with_what_was_read_of_it(
    bus: Bus, reading: list[StepResult | Exception]
):
    reading.append(FOUND)
    todo = await a_todo(bus, FilePlan(file=a_file()))

    await a_processor(bus).handle(todo)

    assert await kinds(bus, todo) == ["todo.process.3.0", "claim", "final"]
    final = await last(bus, todo)
    assert (final.status, final.text, final.usage, final.cost) == ("completed", "", None, None)
    assert final.results == [FOUND]
