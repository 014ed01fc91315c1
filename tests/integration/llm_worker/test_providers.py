"""What all providers that talk HTTP promise, each against a real server with every fault."""

import asyncio

import pytest

from services.llm_worker.providers.base import ProviderError
from services.llm_worker.providers.registry import Registry
from shared.events import Thoughts
from shared.settings import Settings
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.fake_script import Script
from tests.support.providers import MODELS, fault_of, prompt_for, reply_of, settings_for

ENDLESS = "tokens=100000 rate=200"


async def test_a_reply_comes_whole_and_then_its_end(
    fake: FakeProvider, registry: Registry, name: str
):
    text, ended = await reply_of(registry.providers[name], prompt_for(name, "tokens=50 rate=2000"))

    assert check_unspliced(text) == ("a1", 50)
    assert ended.stop_reason == "end_turn"
    assert ended.usage is not None
    assert ended.usage.output_tokens == 50
    assert ended.usage.input_tokens > 0


async def test_what_came_in_one_read_is_given_on_as_few_pieces(
    fake: FakeProvider, registry: Registry, name: str
):
    pieces: list[str] = []

    await registry.providers[name].stream(prompt_for(name, "tokens=250"), pieces.append)

    assert len(pieces) < 50


async def test_many_replies_at_once_do_not_mix(fake: FakeProvider, registry: Registry, name: str):
    provider = registry.providers[name]

    replies = await asyncio.gather(
        *(reply_of(provider, prompt_for(name, "tokens=20 rate=500")) for _ in range(30))
    )

    checked = [check_unspliced(text) for text, _ in replies]
    assert {count for _, count in checked} == {20}
    assert len({tag for tag, _ in checked}) == 30


async def test_thoughts_count_as_content_and_are_given_at_the_end(
    fake: FakeProvider, impatient: Registry, name: str
):
    provider = impatient.providers[name]

    text, ended = await reply_of(provider, prompt_for(name, "think=60 tokens=3 rate=100"))

    assert check_unspliced(text) == ("a1", 3)
    assert ended.thoughts == Thoughts(text="hm " * 60)


async def test_an_empty_reply_is_worth_one_more_try(
    fake: FakeProvider, registry: Registry, name: str
):
    text, fault = await fault_of(registry.providers[name], prompt_for(name, "fault=empty"))

    assert text == ""
    assert fault.message == f"{name} answered with nothing, and gave no reason."
    assert (fault.transient, fault.most_tries) == (True, 2)


async def test_a_connection_is_used_again(fake: FakeProvider, registry: Registry, name: str):
    provider = registry.providers[name]

    for _ in range(2):
        await reply_of(provider, prompt_for(name, "tokens=3"))

    assert len({seen.connection for seen in fake.seen}) == 1


@pytest.mark.parametrize("fault", ["garbage@3", "garbage@0"])
async def test_what_cannot_be_read_is_left_out_and_noted(
    fake: FakeProvider, registry: Registry, name: str, fault: str
):
    prompt = prompt_for(name, f"tokens=6 rate=200 fault={fault}")

    text, ended = await reply_of(registry.providers[name], prompt)

    assert check_unspliced(text) == ("a1", 6)
    assert ended.notes == [f"1 part of {name}'s answer could not be read and was left out."]


@pytest.mark.parametrize("fault", ["drop@3", "end@3", "drop@0", "end@0"])
async def test_a_reply_that_breaks_off_is_a_passing_fault(
    fake: FakeProvider, registry: Registry, name: str, fault: str
):
    prompt = prompt_for(name, f"tokens=6 rate=200 fault={fault}")

    text, error = await fault_of(registry.providers[name], prompt)

    assert check_unspliced(text)[1] == int(fault[-1])
    assert (error.code, error.transient) == ("provider_error", True)


@pytest.mark.parametrize("fault", ["error@3", "error@0"])
async def test_an_error_event_is_a_fault_after_the_text_before_it(
    fake: FakeProvider, registry: Registry, name: str, fault: str
):
    prompt = prompt_for(name, f"tokens=6 fault={fault}")

    text, error = await fault_of(registry.providers[name], prompt)

    assert check_unspliced(text)[1] == int(fault[-1])
    assert error.transient


@pytest.mark.parametrize("fault", ["stall@3", "pings@3"])
async def test_silence_ends_a_reply_and_heartbeats_do_not_break_it(
    fake: FakeProvider, impatient: Registry, name: str, fault: str
):
    _, error = await fault_of(
        impatient.providers[name], prompt_for(name, f"tokens=6 fault={fault}")
    )

    assert error.message == f"{name} said nothing for 0.3 seconds."
    assert (error.code, error.transient, error.leave_alone) == ("timeout", True, False)
    await fake.wait_for(lambda: fake.seen[0].closed_at)


@pytest.mark.parametrize("loading", ["load=0.6", "delay=0.6"])
async def test_a_model_that_loads_longer_than_a_silence_may_last_answers(
    fake: FakeProvider, impatient: Registry, name: str, loading: str
):
    text, _ = await reply_of(impatient.providers[name], prompt_for(name, f"tokens=3 {loading}"))

    assert check_unspliced(text) == ("a1", 3)


@pytest.mark.parametrize("silence", ["fault=stall@0", "fault=pings@0", "delay=60"])
async def test_a_first_word_that_never_comes_is_not_waited_for_again(
    fake: FakeProvider, impatient: Registry, name: str, silence: str
):
    _, fault = await fault_of(impatient.providers[name], prompt_for(name, f"tokens=6 {silence}"))

    assert fault.message.startswith(f"{name} said nothing for 1 seconds, not even a first word.")
    assert "NATTERLOG_FIRST_WORD_TIMEOUT" in fault.message
    assert (fault.code, fault.transient, fault.leave_alone) == ("timeout", True, True)
    await fake.wait_for(lambda: fake.seen[0].closed_at)


async def test_a_thought_is_a_first_word(fake: FakeProvider, impatient: Registry, name: str):
    prompt = prompt_for(name, "tokens=6 think=3 fault=stall@0")

    _, fault = await fault_of(impatient.providers[name], prompt)

    assert fault.message == f"{name} said nothing for 0.3 seconds."


async def test_zero_waits_for_a_first_word_for_ever(fake: FakeProvider, name: str):
    registry = Registry(settings_for(fake, llm_timeout=0.2, first_word_timeout=0.0))
    provider = registry.providers[name]

    text, _ = await reply_of(provider, prompt_for(name, "tokens=3 delay=0.5"))
    _, fault = await fault_of(provider, prompt_for(name, "tokens=6 fault=stall@3"))

    assert check_unspliced(text) == ("a1", 3)
    assert fault.message == f"{name} said nothing for 0.2 seconds."
    await registry.aclose()


async def test_a_cancel_that_comes_from_outside_is_no_silence(
    fake: FakeProvider, registry: Registry, name: str
):
    reply = asyncio.create_task(
        reply_of(registry.providers[name], prompt_for(name, "fault=stall@3"))
    )
    await fake.wait_for(lambda: fake.seen and fake.seen[0].sent == 3)

    reply.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reply
    await fake.wait_for(lambda: fake.seen[0].closed_at)


async def test_a_reply_that_is_cancelled_closes_its_connection(
    fake: FakeProvider, registry: Registry, name: str
):
    began = asyncio.Event()
    reply = asyncio.create_task(
        registry.providers[name].stream(prompt_for(name, ENDLESS), lambda _: began.set())
    )
    await began.wait()

    reply.cancel()

    await fake.wait_for(lambda: fake.seen[0].closed_at)
    with pytest.raises(asyncio.CancelledError):
        await reply


async def test_who_has_enough_of_a_reply_ends_it(fake: FakeProvider, registry: Registry, name: str):
    class Enough(Exception):
        pass

    def write(piece: str) -> None:
        raise Enough(piece)

    with pytest.raises(Enough):
        await registry.providers[name].stream(prompt_for(name, ENDLESS), write)

    await fake.wait_for(lambda: fake.seen[0].closed_at)


async def test_cancelling_before_the_first_byte_closes_the_connection(
    fake: FakeProvider, registry: Registry, name: str
):
    reply = asyncio.create_task(reply_of(registry.providers[name], prompt_for(name, "delay=60")))
    await fake.wait_for(lambda: fake.seen)

    reply.cancel()

    await fake.wait_for(lambda: fake.seen[0].closed_at)
    with pytest.raises(asyncio.CancelledError):
        await reply


@pytest.mark.parametrize("rate", ["0", "500"])
async def test_a_pair_of_surrogates_cut_in_two_becomes_its_character(
    fake: FakeProvider, registry: Registry, name: str, rate: str
):
    prompt = prompt_for(name, f"tokens=6 rate={rate} fault=split@3")

    text, _ = await reply_of(registry.providers[name], prompt)

    assert text == "a1-0 a1-1 a1-2 a1-3😀 a1-4 a1-5 "


async def test_a_lone_surrogate_becomes_the_replacement_character(
    fake: FakeProvider, registry: Registry, name: str
):
    prompt = prompt_for(name, "tokens=6 fault=lone@3")

    text, _ = await reply_of(registry.providers[name], prompt)

    assert text == "a1-0 a1-1 a1-2 a1-3\ufffd a1-4 a1-5 "


async def test_a_half_character_at_the_end_is_not_lost(
    fake: FakeProvider, registry: Registry, name: str
):
    prompt = prompt_for(name, "tokens=4 rate=500 fault=split@3")

    text, _ = await reply_of(registry.providers[name], prompt)

    assert text == "a1-0 a1-1 a1-2 a1-3\ufffd"


async def test_a_models_own_characters_come_through(
    fake: FakeProvider, registry: Registry, name: str
):
    fake.default = Script(reply='Grüße, "世界" \\ 👋🏽 \n\t ende', rate=500)

    text, _ = await reply_of(registry.providers[name], prompt_for(name, "hello"))

    assert text == 'Grüße, "世界" \\ 👋🏽 \n\t ende'


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_refusal_of_the_request_is_no_passing_fault(
    fake: FakeProvider, registry: Registry, name: str, status: int
):
    _, fault = await fault_of(registry.providers[name], prompt_for(name, f"fail={status}"))

    assert (fault.code, fault.transient) == ("provider_error", False)
    assert str(status) in fault.message


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (408, "timeout"),
        (409, "provider_error"),
        (429, "provider_unavailable"),
        (500, "provider_error"),
        (503, "provider_unavailable"),
        (529, "provider_unavailable"),
    ],
)
async def test_a_busy_provider_says_when_to_come_back(
    fake: FakeProvider, registry: Registry, name: str, status: int, code: str
):
    _, fault = await fault_of(
        registry.providers[name], prompt_for(name, f"fail={status} retry_after=7")
    )

    assert (fault.code, fault.transient, fault.retry_after) == (code, True, 7.0)
    assert len(fake.seen) == 1, "one call makes one try"


async def test_an_unknown_model_is_told_with_those_there_are(
    fake: FakeProvider, registry: Registry, name: str
):
    fake.models[name] = ["first", "second"]

    _, fault = await fault_of(registry.providers[name], prompt_for(name, "hello"))

    assert (fault.code, fault.transient) == ("model_not_found", False)
    assert fault.message == f"{name} has no model '{MODELS[name]}'. There are: first, second."


async def test_a_provider_that_is_not_there_is_a_passing_fault(fake: FakeProvider, name: str):
    gone = fake.url
    await fake.stop()
    registry = Registry(
        Settings(
            openai_base_url=gone,
            ollama_host=gone,
            anthropic_api_key="key",
            anthropic_base_url=gone,
        )
    )

    _, fault = await fault_of(registry.providers[name], prompt_for(name, "hello"))
    with pytest.raises(ProviderError) as raised:
        await registry.providers[name].models()

    assert (fault.code, fault.transient) == ("provider_unavailable", True)
    assert (raised.value.code, raised.value.transient) == ("provider_unavailable", True)
    await registry.aclose()


async def test_a_provider_lists_its_models(fake: FakeProvider, registry: Registry, name: str):
    models = await registry.providers[name].models()

    assert [model.name for model in models] == fake.models[name]
