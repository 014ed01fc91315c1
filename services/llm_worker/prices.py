"""What calls cost: the one module that imports the price list, ``genai-prices``.

The price is taken when a run ends and goes into its final, so that it stays what
it was: a later list, or none, changes no sum.  The list comes with the package;
nobody is asked over the network.
"""

from typing import Any

from services.llm_worker.providers.anthropic import Anthropic
from services.llm_worker.providers.openai import DEFAULT_URL, OpenAI
from shared.events import Usage
from shared.log import get_logger
from shared.settings import Settings

log = get_logger()

BILLION = 1_000_000_000


def load() -> Any:
    """The price list, imported when it is first needed: that takes a tenth of a second."""
    import genai_prices  # noqa: PLC0415

    return genai_prices


class Prices:
    """The prices of the providers that the settings name."""

    def __init__(self, settings: Settings) -> None:
        # Whoever speaks Anthropic's API is billed as Anthropic; a server that speaks OpenAI's
        # may be anybody, so it is known by its address.
        self._sellers = {
            Anthropic.name: {"provider_id": "anthropic"},
            OpenAI.name: {"provider_api_url": settings.openai_base_url or DEFAULT_URL},
        }

    def cost(self, provider: str | None, model: str | None, usage: Usage | None) -> int | None:
        """Billionths of a US dollar; None when the model has no known price."""
        seller = self._sellers.get(provider or "")
        if seller is None or model is None or usage is None:
            return None
        try:
            return self._cost(model, usage, seller)
        except LookupError:
            return None
        except Exception:  # a reply that was paid is worth more than what is known of its price
            log.exception("prices.failed", provider=provider, model=model)
            return None

    def _cost(self, model: str, usage: Usage, seller: dict[str, str]) -> int | None:
        prices = load()
        cached = usage.cache_read_input_tokens
        written = usage.cache_creation_input_tokens
        counted = prices.Usage(
            input_tokens=usage.input_tokens + cached + written,
            cache_read_tokens=cached,
            cache_write_tokens=written,
            output_tokens=usage.output_tokens,
        )
        price = prices.calc_price(counted, model_ref=model, **seller)
        cost = round(price.total_price * BILLION)
        return cost if 0 <= cost < 2**63 else None
