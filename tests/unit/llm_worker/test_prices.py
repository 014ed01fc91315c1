"""What calls cost: by the list that is shipped, and nothing where no price is known."""

import pytest

from services.llm_worker import prices
from services.llm_worker.prices import BILLION, Prices
from shared.events import Usage
from shared.settings import Settings

MILLION = Usage(input_tokens=1_000_000)
OWN = Prices(Settings())


def test_a_known_model_of_a_known_seller_has_a_price():
    assert OWN.cost("anthropic", "claude-haiku-4-5", MILLION) == 1 * BILLION
    assert OWN.cost("anthropic", "claude-haiku-4-5", Usage(output_tokens=1_000_000)) == 5 * BILLION
    assert OWN.cost("openai", "gpt-4o-mini", MILLION) == 150_000_000
    assert OWN.cost("openai", "gpt-4o-mini", Usage(input_tokens=1)) == 150


def test_cached_tokens_have_prices_of_their_own():
    read = Usage(input_tokens=0, cache_read_input_tokens=1_000_000)
    written = Usage(input_tokens=0, cache_creation_input_tokens=1_000_000)

    assert OWN.cost("anthropic", "claude-haiku-4-5", read) == BILLION // 10
    assert OWN.cost("anthropic", "claude-haiku-4-5", written) == BILLION * 5 // 4


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("demo", "demo", MILLION),
        ("ollama", "llama3", MILLION),
        ("anthropic", "no-such-model", MILLION),
        ("openai", "no-such-model", MILLION),
        ("anthropic", None, MILLION),
        (None, "gpt-4o-mini", MILLION),
        ("anthropic", "claude-haiku-4-5", None),
    ],
)
def test_what_has_no_known_price_is_not_free(
    provider: str | None, model: str | None, usage: Usage | None
):
    assert OWN.cost(provider, model, usage) is None


def test_a_server_that_only_speaks_like_openai_has_other_prices():
    elsewhere = Prices(Settings(openai_base_url="http://127.0.0.1:8080/v1"))

    assert elsewhere.cost("openai", "gpt-4o-mini", MILLION) is None
    assert elsewhere.cost("anthropic", "claude-haiku-4-5", MILLION) == 1 * BILLION


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=-1),
        Usage(input_tokens=2**63 - 1, output_tokens=2**63 - 1),
        Usage(cache_read_input_tokens=-5),
    ],
)
def test_counts_that_can_be_none_have_no_price(usage: Usage):
    assert OWN.cost("anthropic", "claude-haiku-4-5", usage) is None


def test_a_list_that_is_broken_costs_no_reply(monkeypatch: pytest.MonkeyPatch):
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(prices, "load", broken)

    assert OWN.cost("openai", "gpt-4o-mini", MILLION) is None
