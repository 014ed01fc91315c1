"""What a job's step leads to, by its answer alone."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from services.llm_worker.prices import Prices
from services.llm_worker.providers.base import Ended
from services.llm_worker.refusals import Refusals
from services.llm_worker.tasks import Next, Reply, Step, task_of
from shared.consumer import Delivery, Rejected
from shared.endings import ended as final_of
from shared.events import (
    CancelRequested,
    Fault,
    SentFile,
    StepResult,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
    Usage,
)
from shared.ids import now
from shared.objects import put
from shared.settings import Settings
from shared.streams import ensure_streams
from shared.subjects import Address
from tests.support.memory_bus import MemoryBus
from tests.support.plans import a_file, a_pipeline, a_result, an_ask

RUN = Address("u", "s", "r")
BUS: Any = None
PRICES = Prices(Settings())
END = Ended(stop_reason="end_turn", usage=Usage(input_tokens=2, output_tokens=3))
SCHEMA = {"type": "object", "required": ["good"]}


def a_step(**fields: Any) -> Step:
    known = {
        "n": 1,
        "priority": 4,
        "ask": an_ask("one"),
        "plan": a_pipeline("one", "two"),
        "last": False,
    }
    return Step(TodoGenerate(at=now(), **(known | fields)), RUN, BUS, PRICES)


def next_of(verdict: object) -> tuple[str, Any]:
    assert isinstance(verdict, Next)
    return verdict.subject, verdict.todo


@pytest.mark.parametrize(
    ("sees", "sent"),
    [
        (True, SentFile(id="s", as_it_is=["f"])),
        (False, SentFile(id="s", characters=9, length=9)),
    ],
)
async def test_a_step_tells_how_its_file_went_along(sees: bool, sent: SentFile):
    file = a_file(id="f", kind="pdf", media_type="application/pdf", size=4)
    ask = an_ask("answer", files=[file], instead="the words")
    provider: Any = SimpleNamespace(name="eyes", takes=lambda *_: sees)
    context: Any = SimpleNamespace(temperature=None, max_tokens=None)
    async with MemoryBus() as bus:
        await ensure_streams(bus)
        await put(bus, "s/f", b"%PDF")
        todo = TodoGenerate(at=now(), n=1, priority=4, ask=ask, plan=a_pipeline("one"), last=True)

        refused = Refusals().of("eyes", "m")
        prompt = await Step(todo, RUN, bus, PRICES).prompt(provider, "m", context, refused)

    assert prompt.sent == [sent]
    assert [f.data for f in prompt.files] == ([b"%PDF"] if sees else [])
    assert ("the words" in prompt.messages[0].content) == (not sees)


def test_an_answer_goes_to_the_conductor_with_what_it_cost():
    subject, todo = next_of(a_step().judge("Tea.", END))

    assert subject == "evt.u.s.r.todo.process.4.2"
    assert isinstance(todo, TodoProcess)
    assert (todo.n, todo.step) == (2, "two")
    assert todo.results == [StepResult(step="one", text="Tea.", usage=END.usage)]


def test_the_last_answer_is_the_end():
    before = a_result("one", usage=Usage(input_tokens=1, output_tokens=1))
    step = a_step(ask=an_ask("two"), results=[before], last=True)

    verdict = step.judge("Tea.", END)
    final = step.dress(final_of("completed", "Tea."))

    assert verdict is None
    assert final.results == [before, StepResult(step="two", text="Tea.", usage=END.usage)]
    assert final.usage == Usage(input_tokens=3, output_tokens=4)


def test_an_answer_that_misses_is_asked_for_again_with_its_fault():
    ask = an_ask("one", schema=SCHEMA, spent=Usage(output_tokens=10), misses=1)

    subject, todo = next_of(a_step(ask=ask).judge("{}", END))

    assert subject == "evt.u.s.r.todo.generate.4.2"
    assert isinstance(todo, TodoGenerate)
    assert (todo.n, todo.ask.misses) == (2, 2)
    assert todo.ask.spent == Usage(input_tokens=2, output_tokens=13)
    assert todo.ask.prompt == (
        f"{ask.prompt}\n\nAn earlier answer of yours did not fit what is asked: "
        "$: 'good' is a required property."
    )


def test_the_third_miss_names_the_step():
    step = a_step(ask=an_ask("one", schema=SCHEMA, misses=2, spent=Usage(output_tokens=10)))

    fault = step.judge("{}", END)
    final = step.dress(final_of("failed", "{}"))

    assert isinstance(fault, Fault)
    assert fault.code == "provider_error"
    assert "“one”" in fault.message
    assert (final.results, final.usage) == ([], Usage(input_tokens=2, output_tokens=13))


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_a_sentence_in_place_of_an_answer_is_none(schema: dict[str, Any] | None):
    step = a_step(ask=an_ask("one", schema=schema))
    ended = msgspec.structs.replace(END, sentence="The model refused to answer.", notes=["A note."])

    fault = step.judge("The model refused to answer.", ended)
    final = step.dress(msgspec.structs.replace(final_of("failed", ""), notes=ended.notes))

    assert fault == Fault(
        code="provider_error",
        message="There is no answer for the step “one”: The model refused to answer.",
    )
    assert (final.results, final.notes, final.usage) == ([], ["A note."], END.usage)


def test_what_was_left_out_of_an_answer_is_noted_once():
    step = a_step(ask=an_ask("two"), results=[a_result("one")], last=True)
    ended = msgspec.structs.replace(END, notes=["A note."])

    step.judge("Tea.", ended)
    final = step.dress(msgspec.structs.replace(final_of("completed", "Tea."), notes=ended.notes))

    assert [result.notes for result in final.results] == [[], ["A note."]]
    assert final.notes == ["A note."]


def test_a_cancelled_step_leaves_what_was_done_before_it():
    step = a_step(ask=an_ask("two"), results=[a_result("one")], last=True)

    final = step.dress(final_of("cancelled", "half a"))

    assert [result.step for result in final.results] == ["one"]


def test_a_todo_is_a_reply_or_a_step_and_nothing_else():
    turn = Turn(user_message_id="u", assistant_message_id="a", content="?")

    reply = task_of(Delivery(1, "", RUN, TodoChat(at=now(), n=0, turn=turn), 1), BUS, PRICES)

    assert isinstance(reply, Reply)
    with pytest.raises(Rejected):
        task_of(Delivery(1, "", RUN, CancelRequested(at=now()), 1), BUS, PRICES)
