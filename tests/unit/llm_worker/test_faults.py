"""Answers other than 200, as errors."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.llm_worker.providers import faults


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1 hour"}, None),
    ],
)
def test_the_providers_wish_is_read_in_every_form(headers: dict[str, str], seconds: float | None):
    assert faults.retry_after(headers) == seconds


def test_a_date_to_come_is_so_many_seconds():
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)

    wait = faults.retry_after({"retry-after": date})

    assert wait is not None
    assert 3500 < wait <= 3600


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "Too\\n busy."}}', "openai answered 500: Too\n busy."),
        (b'{"error": "Too busy."}', "openai answered 500: Too busy."),
        (b'{"message": "Too busy."}', "openai answered 500: Too busy."),
        (b"<h1>Too\n busy</h1>", "openai answered 500: <h1>Too busy</h1>"),
        (b"\xff", "openai answered 500: \ufffd"),
        (b"", "openai answered 500: nothing else"),
    ],
)
def test_the_providers_sentence_is_found(body: bytes, message: str):
    assert faults.from_status("openai", 500, {}, body).message == message


@pytest.mark.parametrize(("word", "passing"), [("true", True), ("false", False)])
def test_a_provider_may_say_whether_to_try_again(word: str, passing: bool):
    for status in (400, 500):
        fault = faults.from_status("openai", status, {"x-should-retry": word}, b"")

        assert fault.passing is passing


def test_a_spent_quota_does_not_pass():
    body = b'{"error": {"message": "m", "type": "insufficient_quota"}}'

    assert not faults.from_status("openai", 429, {}, body).passing


def test_of_many_models_only_the_first_are_named():
    names = [f"m{n}" for n in range(25)]

    sentence = faults.naming(names)

    assert sentence.endswith("m18, m19 and 5 more.")
