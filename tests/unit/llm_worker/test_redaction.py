"""What is taken out of providers' sentences, and what is not."""

import base64
import time

import pytest

from services.llm_worker.providers.base import ProviderError
from services.llm_worker.providers.redaction import (
    ADDRESS,
    LONGEST,
    SECRET,
    Redaction,
    redaction_for,
    without_credentials,
)
from shared.settings import Settings

KEY = "configured+key/42=="
SETTINGS = Settings(
    anthropic_api_key=KEY,
    openai_api_key="short",
    openai_base_url="https://gpu7.company.example:8443/v1",
    ollama_host="http://vllm:8000",
    https_proxy="http://user:proxy-password@proxy.company.example:3128",
)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def redaction() -> Redaction:
    return redaction_for(SETTINGS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Incorrect API key provided: {KEY}.", f"Incorrect API key provided: {SECRET}."),
        ("key configured%2Bkey%2F42%3D%3D", f"key {SECRET}"),
        ("key configured%2bkey/42%3d=", f"key {SECRET}"),
        (r"{\"key\": \"configured\u002Bkey\/42\u003d=\"}", rf"{{\"key\": \"{SECRET}\"}}"),
        (r"{\"key\": \"configured\\\\u002bkey42\"}", r"{\"key\": \"configured\\\\u002bkey42\"}"),
        (r"\\\u0063onfigured\\\u002bkey/42==", SECRET),
        (f"sent {_base64(KEY)}", f"sent {SECRET}"),
        (f"sent {_base64('a:' + KEY)}", f"sent YT{SECRET}"),
        (f"sent {_base64('me:' + KEY + '!')}", f"sent bWU6{SECRET}E="),
        (f"{KEY[:12]}… ({KEY[:6]}…)", f"{SECRET}… ({SECRET}…)"),
        ("the proxy-password was wrong", f"the {SECRET} was wrong"),
        ("short of memory", f"{SECRET} of memory"),  # who has such a key has such a sentence
        ("shortest, too-short", "shortest, too-short"),
        ("Authorization: Bearer abc.def-ghi_9", f"Authorization: Bearer {SECRET}"),
        ("BEARER topsecret", f"BEARER {SECRET}"),
        ("Basic dXNlcjpwYXNz1=", f"Basic {SECRET}"),
        ("Incorrect key sk-proj-abc123", f"Incorrect key {SECRET}"),
        ("Incorrect key: sk-ab****************yz.", f"Incorrect key: {SECRET}"),
        ("Incorrect key: fake***key", f"Incorrect key: {SECRET}"),
        ("gsk_abcdefgh1 hf_abcdefgh1", f"{SECRET} {SECRET}"),
        ("?key=AIzaSyA-1234567890123456789", f"?key={SECRET}"),
        ("x-api-key: 0123456789abcdef0123", f"x-api-key: {SECRET}"),
        ('{"api_key": "0123456789abcdef"}', f'{{"api_key": "{SECRET}"}}'),
        ("token eyJhbGciOi.eyJzdWIi.c2ln", f"token {SECRET}"),
        ("http://user:pass@api.example/v1", "http://api.example/v1"),
    ],
)
def test_secrets_are_taken_out(redaction: Redaction, text: str, shown: str):
    assert redaction(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "Cannot connect to host 127.0.0.1:41234 ssl:default [Connect call failed "
            "('127.0.0.1', 41234)]",
            f"Cannot connect to host {ADDRESS} ssl:default [Connect call failed ('{ADDRESS}')]",
        ),
        (
            "host [::1]:80, host ::1 and fe80::1%eth0",
            f"host {ADDRESS}, host {ADDRESS} and {ADDRESS}",
        ),
        ("10.1.2.3 172.16.0.1 192.168.1.7:80", f"{ADDRESS} {ADDRESS} {ADDRESS}"),
        ("169.254.169.254, 100.64.0.9", f"{ADDRESS}, {ADDRESS}"),
        ("http://localhost:8000/v1", f"http://{ADDRESS}/v1"),
        (
            "see gpu.lan, a.b.internal:99 and x.svc.cluster.local.",
            f"see {ADDRESS}, {ADDRESS} and {ADDRESS}.",
        ),
        ("host vllm:8000 ssl:default", f"host {ADDRESS} ssl:default"),
        ("http://vllm/x and http://other/x", f"http://{ADDRESS}/x and http://{ADDRESS}/x"),
        ("gpu7.company.example is down", f"{ADDRESS} is down"),
        ("at https://gpu7.company.example:8443/v1/models", f"at https://{ADDRESS}/v1/models"),
        ("proxy.company.example:3128 said no", f"{ADDRESS} said no"),
    ],
)
def test_private_addresses_are_taken_out(redaction: Redaction, text: str, shown: str):
    assert redaction(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Internal server error",
        "Bearer token is missing",
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "openai has no model 'fake-gpt'. There are: a, b and 3 more.",
        "see https://api.openai.com/v1/models and https://example.invalid:8443/x?page=2",
        "resolved to 8.8.8.8:53 at 12:30:45, version 1.2.3.4, std::string a::b",
        "the vllm is overloaded, locally and at home",
        "invalid x-api-key",
        "API key: invalid",
        "Grüße, 世界 👋🏽",
        "",
    ],
)
def test_the_rest_stays_as_it_is(redaction: Redaction, text: str):
    assert redaction(text) == text


def test_redacting_twice_is_redacting_once(redaction: Redaction):
    once = redaction(f"Bearer {KEY} at http://u:p@10.0.0.1:80/x?key=abcdefgh sk-12345678")

    assert redaction(once) == once


def test_a_sentence_without_end_is_cut_without_showing_half_a_secret(redaction: Redaction):
    shown = redaction("x" * (LONGEST - 5) + f" {KEY} " + "y" * 100_000)

    assert len(shown) == LONGEST + 1
    assert "configured" not in shown


EVIL = (
    "a|a.|eyJ-|sk-|api_key:|1.1.1.|::|a://|bearer |x@|***|a-*|basic |[::|a:|x://a@|password=|svc."
)


@pytest.mark.parametrize("piece", EVIL.split("|"))
def test_no_sentence_takes_long(redaction: Redaction, piece: str):
    began = time.process_time()

    redaction(piece * 20_000)

    assert time.process_time() - began < 0.5


def test_a_fault_is_cleaned_wherever_it_may_be_read(redaction: Redaction):
    fault = redaction.clean(ProviderError(f"No: {KEY}", transient=False, code="timeout"))

    assert KEY not in f"{fault} {fault!r} {fault.message} {fault.args}"
    assert fault.code == "timeout"


def test_without_settings_there_is_still_a_redaction():
    assert (
        redaction_for(Settings())("Bearer abcdefgh at 10.0.0.1") == f"Bearer {SECRET} at {ADDRESS}"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p@10.0.0.1:80/v1?key=x#y", "http://10.0.0.1:80/v1"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("/v2/chat?token=x", "/v2/chat"),
    ],
)
def test_operators_see_where_without_credentials(url: str, shown: str):
    assert without_credentials(url) == shown
