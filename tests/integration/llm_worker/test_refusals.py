"""What is taken for a refusal of a part of the prompt, in every server's own words."""

from typing import Any

import msgspec
import pytest

from services.llm_worker.providers.base import Prompt, PromptFile, PromptMessage, ProviderError
from services.llm_worker.providers.registry import Registry
from services.llm_worker.refusals import (
    MOST,
    REMEMBERED,
    PartRefused,
    Refusals,
    as_refusal,
    learnt_notes,
)
from shared.events import Thoughts
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.fake_refusals import REFUSALS
from tests.support.plans import a_file
from tests.support.providers import fault_of, prompt_for, reply_of

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
PNG = PromptFile(name="1.png", media_type="image/png", data=b"png")
PDF = PromptFile(name="a.pdf", media_type="application/pdf", data=b"pdf")
OF_THIS_FILE = {"openai-bad-image", "anthropic-bad-pdf", "anthropic-too-large"}


THOUGHT = [
    PromptMessage("user", "Why?"),
    PromptMessage("assistant", "So.", thoughts=Thoughts(text="hm", blocks=[{"type": "thinking"}])),
    PromptMessage("user", "How?"),
]
WITHOUT = [*THOUGHT[:1], PromptMessage("assistant", "So."), *THOUGHT[2:]]
LEARNT = {
    "openai-max-tokens": "max_tokens",
    "openai-temperature": "temperature",
    "kimi-temperature": "temperature",
    "azure-stream-options": "stream_options",
    "mistral-stream-options": "stream_options",
    "vllm-system": "system",
    "llamacpp-system": "system",
    "google-system": "system",
    "openai-system": "system",
    "mistral-system": "system",
    "groq-thoughts": "thoughts",
    "anthropic-thoughts": "thoughts",
    "deepseek-thoughts": "reasoning_content",
}


def provider_of(style: str, registry: Registry) -> str:
    name = style.partition("-")[0]
    return name if name in registry.providers else "openai"


async def refused(
    fake: FakeProvider, registry: Registry, style: str, **prompt: Any
) -> PartRefused | None:
    """What comes of a prompt to a server that refuses in this style."""
    provider = provider_of(style, registry)
    fake.default = fake.default.overruled_by(f"refuses={style}")
    sent = a_prompt(provider, **prompt)
    _, fault = await fault_of(registry.providers[provider], sent)
    return as_refusal(fault, sent)


def a_prompt(provider: str, **prompt: Any) -> Prompt:
    """With what a chat's prompt has."""
    made = prompt_for(provider, "hello", files=prompt.pop("files", []))
    known = {"system": "Be brief.", "temperature": 0.7, "max_tokens": 9} | prompt
    return msgspec.structs.replace(made, **known)


@pytest.mark.parametrize("style", LEARNT)
async def test_what_a_server_does_not_take_is_learnt_and_then_it_answers(
    fake: FakeProvider, registry: Registry, style: str
):
    messages = WITHOUT if style.startswith("deepseek") else THOUGHT
    provider = registry.providers[provider_of(style, registry)]

    refusal = await refused(fake, registry, style, messages=messages)
    assert refusal is not None
    learnt = frozenset((refusal.part,))
    again = a_prompt(provider.name, messages=messages, learnt=learnt)
    text, _ = await reply_of(provider, again)

    assert (refusal.part, refusal.keys) == (LEARNT[style], {LEARNT[style]})
    assert check_unspliced(text)[1] == 20
    [note] = learnt_notes(again)
    assert note.startswith(f"{again.model} ")


async def test_what_is_learnt_changes_the_request_and_nothing_else(
    fake: FakeProvider, registry: Registry
):
    provider = registry.providers["openai"]

    async def body(*learnt: str) -> dict[str, Any]:
        known = frozenset(learnt)
        await reply_of(provider, a_prompt("openai", messages=THOUGHT, learnt=known))
        return fake.seen[-1].body

    plain = await body()
    system, first, reply, second = plain["messages"]

    assert reply == {"role": "assistant", "content": "So.", "reasoning_content": "hm"}
    assert await body("temperature") == without(plain, "temperature")
    assert await body("stream_options") == without(plain, "stream_options")
    renamed = without(plain, "max_tokens") | {"max_completion_tokens": 9}
    assert await body("max_tokens") == renamed
    assert await body("max_tokens", "max_completion_tokens") == without(plain, "max_tokens")
    headed = {"role": "user", "content": "Be brief.\n\nWhy?"}
    assert await body("system") == plain | {"messages": [headed, reply, second]}
    bare = without(reply, "reasoning_content")
    assert await body("thoughts") == plain | {"messages": [system, first, bare, second]}


async def test_a_server_that_wants_thoughts_back_gets_them_with_every_reply(
    fake: FakeProvider, registry: Registry
):
    messages = [*THOUGHT[:2], *WITHOUT]
    wanted = frozenset(("reasoning_content",))

    await reply_of(
        registry.providers["openai"], a_prompt("openai", messages=messages, learnt=wanted)
    )

    replies = [m for m in fake.seen[0].body["messages"] if m["role"] == "assistant"]
    assert [reply["reasoning_content"] for reply in replies] == ["hm", ""]


async def test_each_provider_sends_thoughts_back_in_its_own_way(
    fake: FakeProvider, registry: Registry, name: str
):
    await reply_of(registry.providers[name], a_prompt(name, messages=THOUGHT))

    reply = next(m for m in fake.seen[0].body["messages"] if m["role"] == "assistant")
    shapes = {
        "openai": {"content": "So.", "reasoning_content": "hm"},
        "ollama": {"content": "So.", "thinking": "hm"},
        "anthropic": {"content": [{"type": "thinking"}, {"type": "text", "text": "So."}]},
    }
    assert reply == {"role": "assistant", **shapes[name]}


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


@pytest.mark.parametrize("style", [s for s, r in REFUSALS.items() if r.part == "schema"])
async def test_a_refused_schema_is_recognised(fake: FakeProvider, registry: Registry, style: str):
    refusal = await refused(fake, registry, style, schema=SCHEMA)

    assert refusal is not None
    assert (refusal.part, refusal.transient) == ("schema", False)


@pytest.mark.parametrize("style", [s for s, r in REFUSALS.items() if r.part == "files"])
async def test_refused_files_are_recognised_and_whether_it_is_all_or_these(
    fake: FakeProvider, registry: Registry, style: str
):
    file = PDF if style.startswith("anthropic") else PNG

    refusal = await refused(fake, registry, style, files=[file])

    assert refusal is not None
    assert refusal.part == "files"
    every = "image" if file is PNG else "application/pdf"
    assert (refusal.keys == {every}) == (style not in OF_THIS_FILE)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "This model's maximum context length is 8192 tokens; your image has more."),
        (400, "temperature must be at most 2"),
        (401, "Incorrect API key; see the documents"),
        (429, "Too many images a minute"),
        (503, "The image service is overloaded"),
        (None, "image"),
        (400, "max_tokens is too large: 100000. This model supports at most 4096 tokens."),
        (400, "The temperature should be below 2"),
        (400, "The system is overloaded by requests of an unknown kind"),
    ],
)
def test_other_faults_are_no_refusals(status: int | None, text: str):
    fault = ProviderError(text, transient=False, status=status, text=text)
    fault.sent = frozenset(("temperature", "max_tokens", "stream_options"))
    prompt = a_prompt("openai", files=[PNG], schema=SCHEMA)

    assert as_refusal(fault, prompt) is None


def test_what_was_not_in_the_prompt_was_not_refused():
    text = "response_format and image_url are not supported"
    fault = ProviderError(text, transient=False, status=400, text=text)

    assert as_refusal(fault, prompt_for("openai", "hello")) is None


def test_a_refusal_is_remembered_for_its_model_and_only_for_a_while():
    clock = [1000.0]
    refusals = Refusals(lambda: clock[0])
    file = a_file(kind="image", media_type="image/png")
    fault = ProviderError("no", transient=False)

    refusals.remember("openai", "m", PartRefused(fault, "files", frozenset({"image"})))

    assert refusals.of("openai", "m").file(file)
    assert not refusals.of("openai", "another").file(file)
    assert not refusals.of("ollama", "m").file(file)
    clock[0] += REMEMBERED
    assert not refusals.of("openai", "m").file(file)


def test_so_many_refusals_are_remembered_and_no_more():
    refusals = Refusals()
    refused = PartRefused(ProviderError("no", transient=False), "system", frozenset(("system",)))

    for n in range(MOST + 1):
        refusals.remember("openai", f"{n}", refused)

    assert not refusals.of("openai", "0").learnt
    assert refusals.of("openai", f"{MOST}").learnt == {"system"}
    assert len(refusals._until) == MOST


def test_a_refused_file_leaves_others_be_and_a_refused_schema_other_schemas():
    refusals = Refusals()
    fault = ProviderError("no", transient=False, status=400, text="invalid_image, response_format")
    bad = as_refusal(fault, prompt_for("openai", "hello", files=[PNG]))
    schema = as_refusal(fault, prompt_for("openai", "hello", schema=SCHEMA))
    assert bad is not None
    assert schema is not None
    refusals.remember("openai", "m", bad)
    refusals.remember("openai", "m", schema)
    by = refusals.of("openai", "m")

    (digest,) = bad.keys
    assert by.file(a_file(media_type="image/png", sha256=digest))
    assert not by.file(a_file(media_type="image/png"))
    assert by.schema(SCHEMA)
    assert not by.schema({"type": "array"})
