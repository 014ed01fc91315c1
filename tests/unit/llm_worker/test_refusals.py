"""What is taken for a refusal of a part of the prompt, in every server's own words."""

from typing import Any

import pytest

from services.llm_worker.providers.base import PromptFile, ProviderError
from services.llm_worker.providers.registry import Registry
from services.llm_worker.refusals import REMEMBERED, Refusals, Refused, as_refusal
from tests.support.fake_provider import FakeProvider
from tests.support.fake_refusals import REFUSALS
from tests.support.plans import a_file
from tests.unit.llm_worker.conftest import asking, fault_of

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
PNG = PromptFile(name="1.png", media_type="image/png", data=b"png")
PDF = PromptFile(name="a.pdf", media_type="application/pdf", data=b"pdf")
OF_THIS_FILE = {"openai-bad-image", "anthropic-bad-pdf", "anthropic-too-large"}


async def refused(
    fake: FakeProvider, registry: Registry, style: str, **prompt: Any
) -> Refused | None:
    """What comes of a prompt to a server that refuses in this style."""
    name = style.partition("-")[0]
    provider = name if name in registry.providers else "openai"
    fake.default = fake.default.overruled_by(f"refuses={style}")
    asked = asking(provider, "hello", **prompt)
    _, fault = await fault_of(registry.providers[provider], asked)
    return as_refusal(fault, asked)


@pytest.mark.parametrize("style", [s for s, r in REFUSALS.items() if r.part == "schema"])
async def test_a_refused_schema_is_recognised(fake: FakeProvider, registry: Registry, style: str):
    refusal = await refused(fake, registry, style, schema=SCHEMA)

    assert refusal is not None
    assert (refusal.part, refusal.passing) == ("schema", False)


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
    ("status", "words"),
    [
        (400, "This model's maximum context length is 8192 tokens; your image has more."),
        (400, "temperature must be at most 2"),
        (401, "Incorrect API key; see the documents"),
        (429, "Too many images a minute"),
        (503, "The image service is overloaded"),
        (None, "image"),
    ],
)
def test_other_faults_are_no_refusals(status: int | None, words: str):
    fault = ProviderError(words, passing=False, status=status, words=words)
    prompt = asking("openai", "hello", files=[PNG], schema=SCHEMA)

    assert as_refusal(fault, prompt) is None


def test_what_was_not_in_the_prompt_was_not_refused():
    words = "response_format and image_url are not supported"
    fault = ProviderError(words, passing=False, status=400, words=words)

    assert as_refusal(fault, asking("openai", "hello")) is None


def test_a_refusal_is_remembered_for_its_model_and_only_for_a_while():
    clock = [1000.0]
    refusals = Refusals(lambda: clock[0])
    file = a_file(kind="image", media_type="image/png")
    fault = ProviderError("no", passing=False)

    first = refusals.remember("openai", "m", Refused(fault, "files", frozenset({"image"})))
    again = refusals.remember("openai", "m", Refused(fault, "files", frozenset({"image"})))

    assert (first, again) == (True, False)
    assert refusals.of("openai", "m").file(file)
    assert not refusals.of("openai", "another").file(file)
    assert not refusals.of("ollama", "m").file(file)
    clock[0] += REMEMBERED
    assert not refusals.of("openai", "m").file(file)


def test_a_refused_file_leaves_others_be_and_a_refused_schema_other_schemas():
    refusals = Refusals()
    fault = ProviderError("no", passing=False, status=400, words="invalid_image, response_format")
    bad = as_refusal(fault, asking("openai", "hello", files=[PNG]))
    schema = as_refusal(fault, asking("openai", "hello", schema=SCHEMA))
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
