"""How large a context Ollama is asked for."""

import pytest

from services.llm_worker.providers.base import Prompt, PromptFile, PromptMessage
from services.llm_worker.providers.num_ctx import (
    DEFAULT,
    IMAGE,
    KEPT,
    MESSAGE,
    REPLY,
    ContextSizes,
    tokens_of,
)
from shared.events import Thoughts

PNG = PromptFile(name="1.png", media_type="image/png", data=b"png")


def a_prompt(tokens: int, *, model: str = "m", max_tokens: int | None = None) -> Prompt:
    """A prompt of about so many tokens."""
    text = "x" * (3 * (tokens - 2 * MESSAGE))
    return Prompt(model=model, messages=[PromptMessage("user", text)], max_tokens=max_tokens)


def test_everything_that_is_sent_counts():
    thought = PromptMessage("assistant", "b" * 30, thoughts=Thoughts(text="c" * 30))
    messages = [PromptMessage("user", "世" * 30, [PNG, PNG]), thought]

    assert tokens_of(Prompt(model="m", messages=messages, system="a" * 30)) == (
        10 + 30 + 10 + 10 + 2 * IMAGE + 3 * MESSAGE
    )


@pytest.mark.parametrize(
    ("tokens", "max_tokens", "window", "own", "size"),
    [
        (100, None, None, None, None),  # what the server takes by itself will do
        (DEFAULT - REPLY, None, None, None, None),
        (DEFAULT - REPLY + 1, None, None, None, 8192),
        (100, 5000, None, None, 8192),
        (9000, 100, None, None, 16_384),
        (9000, 100, 10_000, None, 10_000),  # the model has no more
        (9000, 100, 4096, None, None),
        (9000, 100, None, 16_384, None),  # it takes as much by itself
        (20_000, 100, None, 16_384, 32_768),
        (900_000, 100, None, None, 32_768),  # the setting allows no more
        (900_000, 100, 131_072, 65_536, None),  # nor does it take any away
    ],
)
def test_a_prompt_that_needs_more_than_the_server_takes_asks_for_it(
    tokens: int, max_tokens: int | None, window: int | None, own: int | None, size: int | None
):
    sizes = ContextSizes(32_768)

    assert sizes.size(a_prompt(tokens, max_tokens=max_tokens), window, own) == size


def test_zero_never_asks_for_any():
    sizes, prompt = ContextSizes(0), a_prompt(90_000)

    assert sizes.size(prompt, None, None) is None
    assert sizes.notes(prompt, None, None) == []


def test_a_model_keeps_the_context_that_it_was_loaded_with_for_a_while():
    clock = [0.0]
    sizes = ContextSizes(32_768, lambda: clock[0])
    sizes.size(a_prompt(9000), None, None)

    clock[0] += KEPT - 1
    kept = sizes.size(a_prompt(10), None, None)
    other = sizes.size(a_prompt(10, model="another"), None, None)
    clock[0] += KEPT - 1
    grown = sizes.size(a_prompt(20_000), None, None)
    clock[0] += KEPT

    assert (kept, other, grown) == (16_384, None, 32_768)
    assert sizes.size(a_prompt(10), None, None) is None


@pytest.mark.parametrize(
    ("tokens", "window", "own", "notes"),
    [
        (30_000, None, None, []),
        (
            40_000,
            None,
            None,
            ["The prompt may have 40,000 tokens, and m reads 32,768: "
             "NATTERLOG_OLLAMA_NUM_CTX allows no more."],
        ),
        (
            9_000,
            8_192,
            None,
            ["The prompt may have 9,000 tokens, and m reads 8,192: its window is no larger."],
        ),
        (40_000, None, 65_536, []),
    ],
)  # fmt: skip
def test_a_prompt_that_does_not_fit_is_told(
    tokens: int, window: int | None, own: int | None, notes: list[str]
):
    assert ContextSizes(32_768).notes(a_prompt(tokens), window, own) == notes
