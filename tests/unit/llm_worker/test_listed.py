"""Lists have fewer names than their providers take; what they cannot tell is not refused."""

import pytest

from services.llm_worker.providers.listed import has, lists_all, near
from shared.settings import Settings

CLAUDES = ["claude-sonnet-4-20250514", "claude-sonnet-4-5-20250929", "claude-opus-5-5"]
MANY = ["meta-llama/llama-4", "google/gemma", "bedrock/*", "models/gemini-3", "gpt-9"]


@pytest.mark.parametrize(
    ("provider", "names", "name", "found"),
    [
        ("openai", MANY, "gpt-9", True),
        ("openai", MANY, "gpt-9-mini", False),
        ("openai", MANY, "gpt", False),
        ("openai", MANY, "meta-llama/llama-4:free", True),
        ("openai", MANY, "meta-llama/llama-5:free", False),
        ("openai", MANY, "gemini-3", True),
        ("openai", MANY, "bedrock/anything", True),
        ("openai", MANY, "Bedrock/anything", False),
        ("ollama", ["llama:latest", "qwen:1b"], "llama", True),
        ("ollama", ["llama:latest", "qwen:1b"], "qwen", False),
        ("ollama", ["llama:latest"], "llama:latest:x", False),
        ("anthropic", CLAUDES, "claude-sonnet-4-5", True),
        ("anthropic", CLAUDES, "claude-sonnet-4-5-latest", True),
        ("anthropic", CLAUDES, "claude-sonnet-4-0", True),
        ("anthropic", CLAUDES, "claude-opus-5-5-20261001", True),
        ("anthropic", CLAUDES, "claude-opus-5", False),
        ("anthropic", CLAUDES, "claude-sonnet", False),
        ("demo", ["demo"], "demo", True),
        ("demo", ["demo"], "demo:latest", False),
    ],
)
def test_a_name_is_on_a_list_also_by_another_name_of_its_model(
    provider: str, names: list[str], name: str, found: bool
):
    assert has(provider, names, name) is found


@pytest.mark.parametrize(
    ("provider", "url", "names", "name", "all_of_it"),
    [
        ("openai", "http://localhost:8000/v1", ["a"], "b", True),
        ("openai", None, ["a"], "b", True),
        ("openai", "http://localhost:8000/v1", [], "b", False),
        ("openai", None, ["a"], "gpt-4o-audio-preview", False),
        ("openai", "https://mine.openai.azure.com/openai/v1", ["gpt-5"], "my-deployment", False),
        ("openai", "https://x.services.ai.azure.com/openai/v1", ["gpt-5"], "mine", False),
        ("openai", "https://azure.com.example/v1", ["gpt-5"], "mine", True),
        ("anthropic", None, ["a"], "b", True),
        ("anthropic", None, [], "b", False),
        ("ollama", None, [], "b", True),
        ("demo", None, ["demo"], "b", True),
    ],
)
def test_a_list_says_all_unless_its_provider_is_known_to_have_more(
    provider: str, url: str | None, names: list[str], name: str, all_of_it: bool
):
    assert lists_all(provider, names, name, Settings(openai_base_url=url)) is all_of_it


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("llama4", "Did you mean ollama/llama-4? "),
        ("LLAMA-4", "Did you mean ollama/llama-4? "),
        ("openai/gtp-9", "Did you mean openai/gpt-9? "),
        ("something else altogether", ""),
        ("", ""),
    ],
)
def test_what_is_near_is_named(name: str, sentence: str):
    assert near(name, ["ollama/llama-4", "openai/gpt-9", "demo/demo"]) == sentence
