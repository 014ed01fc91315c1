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
        (b"<h1>Too\n busy</h1>", "openai answered 500: Too busy"),
        (b"<style>b { c }</style><p>A &amp; <b", "openai answered 500: A &"),
        (b'{"detail": "Too busy."}', "openai answered 500: Too busy."),
        (b'{"error": {"error": {"message": "Too busy."}}}', "openai answered 500: Too busy."),
        (b'[{"error": {"code": 500, "message": "Too busy."}}]', "openai answered 500: Too busy."),
        (
            b'{"error": {"message": "Provider error", "metadata": {"raw": "Too busy."}}}',
            "openai answered 500: Provider error (Too busy.)",
        ),
        (b'{"errors": [{"message": "Too busy."}, {}]}', "openai answered 500: Too busy."),
        (b'{"error": {"message": "\\ud800"}}', "openai answered 500: \ufffd"),
        (b"[" * 100_000, f"openai answered 500: {'[' * 200}…"),
        (b'{"error": {"message": ' + b"[" * 500 + b"]" * 500 + b"}}", None),
        (b'{"error": "' + b"x" * 10_000 + b'"}', f"openai answered 500: {'x' * 1000}…"),
        (b"\xff", "openai answered 500: \ufffd"),
        (b"", "openai answered 500: nothing else"),
    ],
)
def test_the_providers_sentence_is_found(body: bytes, message: str | None):
    found = faults.from_status("openai", 500, {}, body).message

    assert len(found) < 1100
    assert message is None or found == message


@pytest.mark.parametrize(("word", "transient"), [("true", True), ("false", False)])
def test_a_provider_may_say_whether_to_try_again(word: str, transient: bool):
    for status in (400, 500):
        fault = faults.from_status("openai", status, {"x-should-retry": word}, b"")

        assert fault.transient is transient


def test_a_spent_quota_does_not_pass():
    body = b'{"error": {"message": "m", "type": "insufficient_quota"}}'

    assert not faults.from_status("openai", 429, {}, body).transient


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (401, b"{}", "openai answered 401: nothing else. Its key (OPENAI_API_KEY) is wrong"),
        (403, b'{"error": "No!"}', "No! Its key (OPENAI_API_KEY) is wrong, or may not do this."),
        (400, b'{"error": {"message": "m", "code": "invalid_api_key"}}', "m. Its key"),
        (400, b'[{"error": {"message": "API key not valid."}}]', "API key not valid. Its key"),
    ],
)
def test_a_wrong_key_is_named_and_not_tried_again(status: int, body: bytes, sentence: str):
    fault = faults.from_status("openai", status, {"x-should-retry": "true"}, body)

    assert sentence in fault.message
    assert not fault.transient


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("https://other.example/v1/x", "it redirects to https://other.example/v1/x. natterlog"),
        ("https://me:secret@other.example/x?key=secret#y", "to https://other.example/x. natterlog"),
        ("/v2/x", "it redirects to /v2/x. natterlog"),
        ("http://[", "it redirects to an address that cannot be read. natterlog"),
        ("", "it redirects elsewhere, but not where. natterlog"),
    ],
)
def test_a_redirect_is_refused_and_names_where_it_leads(location: str, named: str):
    fault = faults.from_status("openai", 307, {"location": location}, b"")

    assert named in fault.message
    assert "secret" not in fault.message
    assert "OPENAI_BASE_URL" in fault.message
    assert not fault.transient


@pytest.mark.parametrize(
    ("data", "is_error"),
    [
        ({"error": "m"}, True),
        ({"object": "error", "message": "m"}, True),
        ({"type": "error"}, True),
        ({"message": "m", "code": 502}, True),
        ({"msg": "m", "status": "failed"}, True),
        ({"detail": "Not Found"}, True),
        ({"success": False, "errors": [{"message": "m"}]}, True),
        ({"error": None, "errors": []}, False),
        ({"message": "m"}, False),
        ({"type": "ping"}, False),
        ({}, False),
    ],
)
def test_an_object_is_known_as_an_error(data: dict[str, object], is_error: bool):
    assert faults.is_error(data) is is_error


def test_of_many_models_only_the_first_are_named():
    names = [f"m{n}" for n in range(25)]

    sentence = faults.naming(names)

    assert sentence.endswith("m18, m19 and 5 more.")
