"""The provider of the chaos harness knows exactly what it said, and never says a thing twice."""

import json
from collections.abc import AsyncIterator

import pytest

from services.llm_worker.providers.base import Provider
from services.llm_worker.providers.registry import Registry
from shared import pipelines
from shared.settings import Settings
from tests.chaos.harness.provider import ChaosProvider
from tests.support.providers import fault_of, prompt_for, reply_of, settings_for


@pytest.fixture
async def chaos() -> AsyncIterator[ChaosProvider]:
    async with ChaosProvider() as provider:
        yield provider


@pytest.fixture
async def openai(chaos: ChaosProvider) -> AsyncIterator[Provider]:
    registry = Registry(settings_for(chaos))
    yield registry.providers["openai"]
    await registry.aclose()


@pytest.mark.parametrize(
    "script",
    [
        "tokens=9",
        "tokens=9 fault=split@3",
        "tokens=9 fault=split@8",
        "tokens=9 fault=lone@8",
        "tokens=9 fault=garbage@2",
        "case=openai/d1",
        "case=openai/d8two",
        "case=openai/d8cr",
    ],
)
async def test_what_was_read_is_what_it_knows_to_have_said(
    chaos: ChaosProvider, openai: Provider, script: str
):
    text, _ = await reply_of(openai, prompt_for("openai", f"mark=m1 {script}"))

    (call,) = chaos.calls()
    assert (call.text, call.mark, call.whole) == (text, "m1", True)
    assert call.tag in text


async def test_what_broke_off_was_not_said_whole(chaos: ChaosProvider, openai: Provider):
    text, _ = await fault_of(openai, prompt_for("openai", "mark=m1 tokens=9 fault=drop@4"))

    (call,) = chaos.calls()
    assert call.text.startswith(text)
    assert not call.whole


async def test_a_case_comes_once_and_then_other_words(chaos: ChaosProvider, openai: Provider):
    prompt = prompt_for("openai", "mark=m1 case=openai/d1 tokens=3")

    first, _ = await reply_of(openai, prompt)
    second, _ = await reply_of(openai, prompt)

    assert (first, second) == ("a1-0 a1-1 ", "a2-0 a2-1 a2-2 ")
    assert [call.case for call in chaos.calls()] == ["openai/d1", ""]


async def test_a_prompt_that_came_to_nothing_before_does_not_count(
    chaos: ChaosProvider, openai: Provider
):
    prompt = prompt_for("openai", "mark=m1 fault=drop@1\n\nmark=m2 tokens=2")

    text, _ = await reply_of(openai, prompt)

    assert [(call.mark, call.text) for call in chaos.calls()] == [("m2", text)]


async def test_an_answer_that_must_fit_a_schema_fits_it(chaos: ChaosProvider, openai: Provider):
    steps = pipelines.load(Settings())["content"].steps
    schema = steps[0].schema

    text, _ = await reply_of(openai, prompt_for("openai", "mark=m1", schema=schema))
    quoting = await reply_of(openai, prompt_for("openai", f"Check: {json.loads(text)['tone']}"))

    assert set(json.loads(text)) == {"keywords", "audience", "tone", "hooks", "hashtags"}
    assert [call.mark for call in chaos.calls()] == ["m1", "m1"]
    assert quoting[0] != text
