"""Every variable of the environment, good and bad."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.settings import (
    DEFAULT_CLAUDE,
    ONLY_READ_BY,
    VARIABLES,
    BadSetting,
    Settings,
    read_settings,
    variables_of,
)

REPOSITORY = Path(__file__).parents[3]
SERVICES = ("gateway", "llm_worker", "processor", "store")

ORIGINS = ("https://a.example", "https://b.example")
GOOD: dict[str, tuple[str, Any]] = {
    "NATTERLOG_HOST": ("0.0.0.0", "0.0.0.0"),
    "NATTERLOG_PORT": ("65535", 65535),
    "NATTERLOG_REUSE_PORT": ("yes", True),
    "NATTERLOG_HEALTH_PORT": ("0", 0),
    "NATTERLOG_NATS_URL": ("nats://one:4222", "nats://one:4222"),
    "NATTERLOG_DATABASE_URL": ("postgresql+asyncpg://x/y", "postgresql+asyncpg://x/y"),
    "NATTERLOG_DATA_DIR": ("/var/lib/natterlog", Path("/var/lib/natterlog")),
    "NATTERLOG_OPEN_NETWORK": ("1", True),
    "NATTERLOG_ORIGINS": (" https://a.example , https://b.example,", ORIGINS),
    "NATTERLOG_BEHIND_PROXY": ("true", True),
    "NATTERLOG_LOG_FORMAT": ("JSON", "json"),
    "NATTERLOG_LOG_LEVEL": ("Warning", "warning"),
    "NATTERLOG_GRACE": ("1.5", 1.5),
    "NATTERLOG_LEASE": ("1", 1),
    "NATTERLOG_HOT_FACTS": ("10", 10),
    "NATTERLOG_MAX_BODY": ("10", 10),
    "NATTERLOG_MAX_FRAME": ("10", 10),
    "NATTERLOG_MAX_MESSAGE": ("10", 10),
    "NATTERLOG_MAX_UPLOAD": ("7", 7),
    "NATTERLOG_MAX_REPLY": ("9", 9),
    "NATTERLOG_FIRST_WORD_TIMEOUT": ("7.5", 7.5),
    "NATTERLOG_MESSAGES_PER_MINUTE": ("0", 0),
    "NATTERLOG_SOCKETS_PER_USER": ("0", 0),
    "NATTERLOG_PIPELINES_DIR": ("/srv/pipelines", Path("/srv/pipelines")),
    "NATTERLOG_STEPS": ("4", 4),
    "NATTERLOG_SLOTS": ("1", 1),
    "NATTERLOG_JOB_SLOTS": ("3", 3),
    "NATTERLOG_PUBLISHES_PER_SECOND": ("1", 1),
    "NATTERLOG_PROVIDER_FAILURES": ("1", 1),
    "NATTERLOG_SILENT_DEATHS": ("1", 1),
    "NATTERLOG_DEMO_RATE": ("0", 0.0),
    "NATTERLOG_PROVIDERS": ("ollama, anthropic", ("ollama", "anthropic")),
    "ANTHROPIC_API_KEY": ("key", "key"),
    "CLAUDE_API_KEY": ("key", "key"),
    "ANTHROPIC_BASE_URL": ("http://127.0.0.1:9/", "http://127.0.0.1:9"),
    "CLAUDE_MODEL": ("claude-opus-5-5", "claude-opus-5-5"),
    "CLAUDE_MAX_TOKENS": ("7", 7),
    "CLAUDE_CB_THRESHOLD": ("7", 7),
    "CLAUDE_CB_COOLDOWN": ("0.5", 0.5),
    "OLLAMA_HOST": ("box", "http://box:11434"),
    "OPENAI_BASE_URL": ("https://api.example/v2/", "https://api.example/v2"),
    "LLM_SERVER_URL": ("http://llm:8080", "http://llm:8080/v1"),
    "OPENAI_API_KEY": ("key", "key"),
    "LLM_DEFAULT_MODEL": ("demo", "demo"),
    "LLM_TIMEOUT": ("5", 5.0),
    "LLM_MAX_TOKENS": ("5", 5),
    "LLM_TEMPERATURE": ("2", 2.0),
    "LLM_ENABLE_TOOLS": ("off", False),
    "NATTERLOG_OLLAMA_NUM_CTX": ("8192", 8192),
    "http_proxy": ("proxy:3128", "http://proxy:3128"),
    "HTTP_PROXY": ("http://me:secret@proxy:3128/", "http://me:secret@proxy:3128"),
    "https_proxy": ("https://proxy", "https://proxy"),
    "HTTPS_PROXY": ("https://proxy", "https://proxy"),
    "all_proxy": ("socks5://proxy:1080", "socks5://proxy:1080"),
    "ALL_PROXY": ("proxy:3128", "http://proxy:3128"),
    "no_proxy": ("localhost, .example,10.0.0.0/8", ("localhost", ".example", "10.0.0.0/8")),
    "NO_PROXY": ("*", ("*",)),
    "SSL_CERT_FILE": ("/etc/ca.pem", Path("/etc/ca.pem")),
    "SSL_CERT_DIR": ("/etc/certs", Path("/etc/certs")),
}
NO_NUMBER = ["many", "-1", "1.5", "1e3", "²", "9" * 10, "9" * 5000]
NO_SECONDS = ["soon", "-0.1", "inf", "nan"]
NO_PORT = ["http://h:abc", "http://h:99999", "http://h:0", "http://h:-1", "http://h:٣"]
NO_HOST = ["http://", "http://[", "http://:80", "http://:::", "http://a,http://b", "http://a b"]
NO_URL = ["llm.example", "ftp://llm.example", "http://h\n.example", *NO_HOST, *NO_PORT]
BAD: dict[str, list[str]] = {
    "NATTERLOG_NATS_URL": [
        "foo",
        "http://one:4222",
        "nats://",
        "nats://one:abc",
        "one:99999",
        "nats://one:4222,nats://two:4222",
        "nats://one,nats://two",
    ],
    "NATTERLOG_PORT": [*NO_NUMBER, "65536"],
    "NATTERLOG_HEALTH_PORT": [*NO_NUMBER, "65536"],
    "NATTERLOG_REUSE_PORT": ["perhaps"],
    "NATTERLOG_OPEN_NETWORK": ["perhaps"],
    "NATTERLOG_BEHIND_PROXY": ["perhaps"],
    "NATTERLOG_LOG_FORMAT": ["xml"],
    "NATTERLOG_LOG_LEVEL": ["loud"],
    "NATTERLOG_GRACE": NO_SECONDS,
    "NATTERLOG_LEASE": [*NO_NUMBER, "0"],
    "NATTERLOG_HOT_FACTS": [*NO_NUMBER, "0"],
    "NATTERLOG_MAX_BODY": [*NO_NUMBER, "0"],
    "NATTERLOG_MAX_FRAME": [*NO_NUMBER, "0"],
    "NATTERLOG_MAX_MESSAGE": [*NO_NUMBER, "0"],
    "NATTERLOG_MAX_UPLOAD": [*NO_NUMBER, "0"],
    "NATTERLOG_MAX_REPLY": [*NO_NUMBER, "0"],
    "NATTERLOG_FIRST_WORD_TIMEOUT": NO_SECONDS,
    "NATTERLOG_MESSAGES_PER_MINUTE": NO_NUMBER,
    "NATTERLOG_SOCKETS_PER_USER": NO_NUMBER,
    "NATTERLOG_STEPS": [*NO_NUMBER, "0"],
    "NATTERLOG_SLOTS": [*NO_NUMBER, "0"],
    "NATTERLOG_JOB_SLOTS": [*NO_NUMBER, "0"],
    "NATTERLOG_PUBLISHES_PER_SECOND": [*NO_NUMBER, "0"],
    "NATTERLOG_PROVIDER_FAILURES": [*NO_NUMBER, "0"],
    "NATTERLOG_SILENT_DEATHS": [*NO_NUMBER, "0"],
    "NATTERLOG_DEMO_RATE": NO_SECONDS,
    "NATTERLOG_PROVIDERS": ["mistral", "openai mistral"],
    "ANTHROPIC_BASE_URL": NO_URL,
    "CLAUDE_MAX_TOKENS": [*NO_NUMBER, "0"],
    "CLAUDE_CB_THRESHOLD": [*NO_NUMBER, "0"],
    "CLAUDE_CB_COOLDOWN": NO_SECONDS,
    "OLLAMA_HOST": ["ftp://box", ":::", "::1", "host:abc", "host:99999", *NO_HOST, *NO_PORT],
    "OPENAI_BASE_URL": NO_URL,
    "LLM_SERVER_URL": NO_URL,
    "LLM_TIMEOUT": NO_SECONDS,
    "LLM_MAX_TOKENS": [*NO_NUMBER, "0"],
    "LLM_TEMPERATURE": ["hot", "-0.1", "2.1", "nan"],
    "LLM_ENABLE_TOOLS": ["perhaps"],
    "NATTERLOG_OLLAMA_NUM_CTX": NO_NUMBER,
    "http_proxy": ["::bad::", *NO_HOST, *NO_PORT],
    "HTTP_PROXY": ["socks5://proxy:1080", "http://"],
    "https_proxy": ["ftp://proxy", "http://p:abc"],
    "ALL_PROXY": ["ftp://proxy", "http://[", "proxy:abc"],
}


def test_these_are_all_the_variables_there_are():
    assert sorted(GOOD) == sorted(VARIABLES)


@pytest.mark.parametrize("variable", sorted(GOOD))
def test_a_variable_sets_its_field_and_no_other(variable: str):
    text, value = GOOD[variable]
    field, _ = VARIABLES[variable]

    settings = read_settings({variable: text, "PATH": "/bin"})

    assert settings == msgspec.structs.replace(Settings(), **{field: value})


@pytest.mark.parametrize(
    ("variable", "text"), [(variable, text) for variable in BAD for text in BAD[variable]]
)
def test_a_bad_value_names_its_variable(variable: str, text: str):
    with pytest.raises(BadSetting) as refused:
        read_settings({variable: text})

    sentence = str(refused.value)
    assert sentence.startswith(f"{variable} is ")
    assert ": expected " in sentence
    assert len(sentence) < 200


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("NATTERLOG_MAX_BODY", "9" * 10),
        ("NATTERLOG_MAX_BODY", "9" * 20),
        ("NATTERLOG_LEASE", "9" * 5000),
        ("LLM_TIMEOUT", "1e10"),
    ],
)
def test_a_number_that_is_too_large_is_answered_with_the_largest(variable: str, text: str):
    with pytest.raises(BadSetting, match="2,147,483,647 at most"):
        read_settings({variable: text})


def test_zeros_in_front_of_a_number_do_not_matter():
    assert read_settings({"NATTERLOG_PORT": f"{'0' * 30}80"}).port == 80


def test_without_an_environment_all_is_as_it_says_in_the_table():
    assert read_settings({}) == Settings()


@pytest.mark.parametrize("variable", sorted(GOOD))
def test_an_empty_variable_counts_as_unset(variable: str):
    assert read_settings({variable: "  "}) == Settings()


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        ("ANTHROPIC_API_KEY", "CLAUDE_API_KEY", "anthropic_api_key"),
        ("OPENAI_BASE_URL", "LLM_SERVER_URL", "openai_base_url"),
        ("https_proxy", "HTTPS_PROXY", "https_proxy"),
    ],
)
def test_of_two_variables_for_one_field_the_first_wins(first: str, second: str, field: str):
    environ = {second: "http://second/x", first: "http://first/x"}

    assert getattr(read_settings(environ), field) == "http://first/x"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("box", "http://box:11434"),
        ("box:9", "http://box:9"),
        ("https://box/ollama/", "https://box/ollama"),
    ],
)
def test_ollamas_own_variable_may_be_a_bare_host(text: str, url: str):
    assert read_settings({"OLLAMA_HOST": text}).ollama_host == url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("tls://me:secret@one", "tls://me:secret@one"),
        ("wss://one/nats", "wss://one/nats"),
        ("nats://[::1]:4222", "nats://[::1]:4222"),
        ("127.0.0.1:4222", "nats://127.0.0.1:4222"),
    ],
)
def test_a_nats_server_is_named_by_a_url_or_by_its_address(text: str, url: str):
    assert read_settings({"NATTERLOG_NATS_URL": text}).nats_url == url


@pytest.mark.parametrize(
    ("environ", "choice"),
    [
        ({}, "demo"),
        ({"ANTHROPIC_API_KEY": "k"}, DEFAULT_CLAUDE),
        ({"ANTHROPIC_API_KEY": "k", "CLAUDE_MODEL": "claude-opus-5-5"}, "claude-opus-5-5"),
        ({"ANTHROPIC_API_KEY": "k", "LLM_DEFAULT_MODEL": "demo"}, "demo"),
        ({"OLLAMA_HOST": "box"}, None),
        ({"OPENAI_API_KEY": "k"}, None),
        ({"NATTERLOG_PROVIDERS": "anthropic,openai"}, DEFAULT_CLAUDE),
        ({"NATTERLOG_PROVIDERS": "openai"}, None),
    ],
)
def test_the_default_model_follows_the_contract(environ: dict[str, str], choice: str | None):
    assert read_settings(environ).first_choice == choice


def test_the_providers_that_are_set_up_are_named_without_their_keys():
    environ = {
        "CLAUDE_API_KEY": "k",
        "LLM_SERVER_URL": "http://llm",
        "NATTERLOG_PROVIDERS": "ollama",
    }

    assert read_settings(environ).configured_providers == ["anthropic", "ollama", "openai"]


def test_a_service_is_given_what_it_may_know():
    environ = {
        "OPENAI_API_KEY": "k",
        "NATTERLOG_DATABASE_URL": "d",
        "NATTERLOG_PORT": "1",
        "X": "x",
    }

    given = {service: set(variables_of(service, environ)) for service in SERVICES}

    assert given == {
        "gateway": {"NATTERLOG_PORT"},
        "llm_worker": {"NATTERLOG_PORT", "OPENAI_API_KEY"},
        "processor": {"NATTERLOG_PORT"},
        "store": {"NATTERLOG_PORT", "NATTERLOG_DATABASE_URL"},
    }


@pytest.mark.parametrize("variable", sorted(ONLY_READ_BY))
def test_what_one_service_alone_may_know_no_other_reads(variable: str):
    field, _ = VARIABLES[variable]
    reading = re.compile(rf"settings\.{field}\b")

    readers = {
        service
        for service in SERVICES
        for module in (REPOSITORY / "services" / service).rglob("*.py")
        if reading.search(module.read_text())
    }

    assert readers == {ONLY_READ_BY[variable]}


def test_secrets_stay_out_of_what_is_printed():
    settings = read_settings({"ANTHROPIC_API_KEY": "top-secret"})

    assert "top-secret" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("socks5://me:top-secret@proxy:1080", "socks5://…@proxy:1080"),
        ("me:top-secret@proxy:abc", "…@proxy:abc"),
        ("http://me:top/secret@proxy:1080", "http://…@proxy:1080"),
    ],
)
def test_secrets_stay_out_of_what_a_bad_value_is_told_with(text: str, shown: str):
    with pytest.raises(BadSetting) as refused:
        read_settings({"HTTPS_PROXY": text})

    assert f"'{shown}'" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_known(host: str, loopback: bool):
    assert read_settings({"NATTERLOG_HOST": host}).on_loopback is loopback
