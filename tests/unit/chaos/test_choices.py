"""A seed decides everything: who does what, what the provider does, what is broken, and when."""

import random

from tests.chaos.harness.choices import chooser
from tests.chaos.harness.faults import NATS, plan_faults
from tests.chaos.harness.lines import draw_fate
from tests.chaos.harness.prompts import CASES, draw_prompt, mark_of
from tests.chaos.harness.provider import text_of
from tests.support.fake_script import Script

TARGETS = ["store-0", "llm-worker-0", "llm-worker-1", "gateway-0", NATS]


def test_one_seed_is_one_plan_of_faults():
    plan = plan_faults(7, seconds=300, targets=TARGETS)

    assert plan == plan_faults(7, seconds=300, targets=TARGETS)
    assert plan != plan_faults(8, seconds=300, targets=TARGETS)


def test_faults_come_in_order_and_hit_everything_in_every_way():
    plan = plan_faults(7, seconds=3000, targets=TARGETS)

    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert {fault.target for fault in plan} == set(TARGETS)
    assert {fault.kind for fault in plan} == {"kill", "stop", "pause", "reset", "silence"}
    assert {fault.kind for fault in plan if fault.target == NATS} == {"kill", "pause"}


def test_a_choosers_choices_do_not_depend_on_others():
    first = chooser(7, "native0", 3).random()
    chooser(7, "native1", 3).random()

    assert chooser(7, "native0", 3).random() == first


def test_every_prompt_is_one_that_the_provider_understands():
    rng = random.Random(7)
    prompts = [draw_prompt(rng, f"m{number}", api="ollama") for number in range(2000)]

    for number, prompt in enumerate(prompts):
        script = Script().overruled_by(prompt)
        assert mark_of(prompt) == f"m{number}"
        assert len(text_of(script, script.fault_of(0), "a1").split()) in (0, script.tokens)
    assert {word.partition("=")[0] for prompt in prompts for word in prompt.split()} >= {
        *("tokens", "rate", "fault", "fail", "refuses", "case", "think"),
    }


def test_every_case_on_record_may_be_drawn():
    rng = random.Random(7)
    drawn = {
        word.removeprefix("case=")
        for api in ("openai", "anthropic", "ollama")
        for _ in range(4000)
        for word in draw_prompt(rng, "m", api=api).split()
        if word.startswith("case=")
    }

    assert drawn == set(CASES)


def test_connections_break_in_every_way_and_some_are_good():
    fates = [draw_fate(chooser(7, "gateway-0", number)) for number in range(200)]

    assert {fate.end for fate in fates} == {None, "reset", "close", "silence"}
    assert any(fate.delay for fate in fates)
    assert any(fate.drips for fate in fates)
