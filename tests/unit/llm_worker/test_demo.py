"""The demo provider: honest, and as long and as fast as it is asked to be."""

import msgspec
import pytest

from services.llm_worker.providers.base import Prompt, PromptMessage
from services.llm_worker.providers.demo import Demo
from shared.events import Usage
from tests.support.providers import fault_of, reply_of


def prompt_for(message: str, **more: object) -> Prompt:
    return Prompt(model="demo", messages=[PromptMessage("user", message)], **more)  # pyright: ignore[reportArgumentType]


async def test_it_says_what_it_is_and_how_to_get_a_real_one():
    text, ended = await reply_of(Demo(rate=0), prompt_for("Who are you?"))

    assert "demo provider" in text
    assert "no model is configured" in text
    assert "`ANTHROPIC_API_KEY`" in text
    assert "> Who are you?" in text
    assert ended.stop_reason == "end_turn"


@pytest.mark.parametrize("length", [0, 1, 5, 2000])
async def test_it_is_as_long_as_it_is_asked_to_be(length: int):
    prompt = prompt_for(f"Tell me more.\ndemo: words={length}", max_tokens=3, system="Be kind.")

    text, ended = await reply_of(Demo(rate=0), prompt)

    assert len(text.split()) == length
    assert ended.usage == Usage(input_tokens=7, output_tokens=length)


async def test_it_keeps_to_the_limit_of_the_prompt():
    text, ended = await reply_of(Demo(rate=0), prompt_for("hello", max_tokens=4))

    assert text.split() == ["I", "am", "natterlog's", "**demo"]
    assert ended.stop_reason == "max_tokens"


async def test_a_reply_that_goes_on_goes_on_where_it_was_cut():
    whole, _ = await reply_of(Demo(rate=0), prompt_for("hello"))
    cut, _ = await reply_of(Demo(rate=0), prompt_for("hello", max_tokens=4))
    prompt = prompt_for("hello")
    to_go_on = msgspec.structs.replace(
        prompt,
        messages=[
            *prompt.messages,
            PromptMessage("assistant", cut),
            PromptMessage("user", "Go on."),
        ],
        go_on="Go on.",
    )

    rest, ended = await reply_of(Demo(rate=0), to_go_on)

    assert (cut + rest, ended.stop_reason) == (whole, "end_turn")


async def test_it_is_as_fast_as_it_is_asked_to_be():
    pieces: list[str] = []

    await Demo(rate=0).stream(prompt_for("demo: words=8 rate=50"), pieces.append)

    assert len(pieces) > 1
    assert len("".join(pieces).split()) == 8


async def test_its_pace_loses_no_word():
    at_once, _ = await reply_of(Demo(rate=0), prompt_for("demo: words=60"))
    paced, _ = await reply_of(Demo(rate=3000), prompt_for("demo: words=60"))

    assert paced == at_once


async def test_it_has_one_model():
    _, fault = await fault_of(Demo(rate=0), Prompt(model="gpt-9", messages=[]))

    assert (fault.code, fault.transient) == ("model_not_found", False)
    assert fault.message == "demo has no model 'gpt-9'. There are: demo."
