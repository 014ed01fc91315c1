"""Whether and when a failed call is worth another one."""

import pytest

from services.llm_worker.providers import faults
from services.llm_worker.providers.base import ProviderError
from services.llm_worker.retries import backoff, lasting, worth_another


def a_fault(message: str, *, text: str = "", **more: float) -> ProviderError:
    return ProviderError(message, transient=True, text=text, retry_after=more.get("retry_after"))


@pytest.mark.parametrize(
    ("failures", "wished", "least", "most"),
    [
        (1, None, 0.375, 0.625),
        (2, None, 0.75, 1.25),
        (9, None, 6.0, 10.0),
        (1, 3.0, 3.0, 3.0),
        (1, 60.0, 60.0, 60.0),
        (1, 900.0, 60.0, 60.0),
        (1, 0.0, 0.0, 0.0),
    ],
)
def test_a_pause_grows_unless_the_provider_wishes_for_another(
    failures: int, wished: float | None, least: float, most: float
):
    assert least <= backoff(failures, wished) <= most


@pytest.mark.parametrize(
    ("wished", "worth"), [(None, True), (0.0, True), (60.0, True), (60.5, False), (1e308, False)]
)
def test_a_wish_for_more_than_a_minute_is_not_waited_for(wished: float | None, worth: bool):
    fault = ProviderError("Busy.", transient=True, retry_after=wished)

    assert worth_another(fault, 1, 3) is worth


@pytest.mark.parametrize(
    ("most_tries", "failures", "worth"),
    [(None, 2, True), (None, 3, False), (2, 1, True), (2, 2, False), (9, 2, True), (9, 3, False)],
)
def test_the_tries_are_bounded_by_the_settings_and_by_the_fault(
    most_tries: int | None, failures: int, worth: bool
):
    fault = ProviderError("Nothing.", transient=True, most_tries=most_tries)

    assert worth_another(fault, failures, 3) is worth


@pytest.mark.parametrize(
    "text",
    [
        '{"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}',
        '{"error": {"code": "insufficient_quota"}}',
        "Your credit balance is too low to access the Anthropic API.",
        '{"error": {"message": "Incorrect API key provided: sk-1"}}',
        "invalid x-api-key",
        "API key not valid. Please pass a valid API key.",
        "billing_not_active",
        "Your account has been deactivated",
    ],
)
def test_a_wrong_key_or_an_empty_account_lasts_whatever_the_status(text: str):
    assert lasting(a_fault("openai answered 503", text=text))


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_status_of_the_key_lasts_whatever_a_header_wishes(status: int):
    headers = {"x-should-retry": "true"}

    assert lasting(faults.from_status("openai", status, headers, b"{}"))


@pytest.mark.parametrize(
    "text",
    [
        "Rate limit reached for gpt-4 on tokens per min. Please try again in 6s. You can increase "
        "your rate limit by adding a payment method at https://platform.openai.com/account/billing",
        "You exceeded your current quota. Please retry in 34.07s.",
        "Overloaded",
        "The server had an error while processing your request",
        "Too many tokens",
    ],
)
def test_a_limit_of_the_moment_passes(text: str):
    assert not lasting(a_fault("openai answered 429", text=text))
