"""The way to the providers: proxies and certificates, by one rule for all of them."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.llm_worker.providers.base import Provider, ProviderError
from services.llm_worker.providers.outbound import Outbound, Proxy
from services.llm_worker.providers.registry import Registry
from shared.settings import Settings
from tests.support.fake_provider import FakeProvider, check_unspliced
from tests.support.providers import fault_of, prompt_for, reply_of
from tests.support.proxy import ProxyServer
from tests.support.system import free_port

TLS = Path(__file__).parents[2] / "support" / "tls"
CA = TLS / "ca.pem"
HOST = "provider.example"
"""Nobody knows this name but the proxy."""


@pytest.fixture
async def secure() -> AsyncIterator[FakeProvider]:
    """The fake upstream over TLS, with a certificate of a CA that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    async with FakeProvider(tls=context) as fake:
        yield fake


def settings_at(url: str, **more: Any) -> Settings:
    """All three providers there."""
    return Settings(
        openai_base_url=f"{url}/v1",
        openai_api_key="key",
        ollama_host=url,
        anthropic_api_key="key",
        anthropic_base_url=url,
        **more,
    )


async def spoken(settings: Settings, name: str) -> tuple[str, int]:
    """The provider's answer, and its list of models."""
    registry = Registry(settings)
    try:
        provider = registry.providers[name]
        text, _ = await reply_of(provider, prompt_for(name, "tokens=3"))
        assert await provider.models()
        return check_unspliced(text)
    finally:
        await registry.aclose()


async def failed(settings: Settings, name: str) -> ProviderError:
    registry = Registry(settings)
    try:
        provider: Provider = registry.providers[name]
        _, fault = await fault_of(provider, prompt_for(name, "tokens=3"))
        with pytest.raises(ProviderError) as of_list:
            await provider.models()
        assert (of_list.value.message, of_list.value.whole) == (fault.message, fault.whole)
        return registry.redaction.clean(fault)
    finally:
        await registry.aclose()


# -- the rule -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://api.example/v1", "http://plain:1"),
        ("https://api.example/v1", "http://secure:2"),
        ("http://localhost:8000", None),
        ("http://127.0.0.5:8000", None),
        ("http://[::1]:8000", None),
        ("http://app.localhost", None),
    ],
)
def test_the_scheme_chooses_the_proxy_and_this_machine_needs_none(url: str, proxy: str | None):
    outbound = Outbound(Settings(http_proxy="http://plain:1", https_proxy="http://secure:2"))

    assert outbound.proxy(url) == (Proxy(proxy, {}, {}) if proxy else None)


def test_all_proxy_is_for_what_has_no_proxy_of_its_own():
    outbound = Outbound(Settings(https_proxy="http://secure:2", all_proxy="http://all:3"))

    assert outbound.proxy("https://api.example") == Proxy("http://secure:2", {}, {})
    assert outbound.proxy("http://api.example") == Proxy("http://all:3", {}, {})


def test_a_proxys_credentials_are_no_part_of_its_address():
    outbound = Outbound(Settings(all_proxy="http://me:p%40ss@all:3/"))
    credentials = {"Proxy-Authorization": "Basic bWU6cEBzcw=="}

    assert outbound.proxy("https://api.example") == Proxy("http://all:3", credentials, {})
    assert outbound.proxy("http://api.example") == Proxy("http://all:3", {}, credentials)


def test_a_proxy_of_a_kind_that_is_for_others_is_passed_over():
    outbound = Outbound(Settings(all_proxy="socks5://all:3"))

    assert outbound.proxy("https://api.example") is None


@pytest.mark.parametrize(
    ("entry", "direct"),
    [
        ("*", True),
        ("api.example", True),
        ("EXAMPLE", True),
        (".example", True),
        ("*.example", True),
        ("pi.example", False),
        ("api.example:443", True),
        ("api.example:80", False),
        ("10.0.0.0/8", False),
    ],
)
def test_no_proxy_names_hosts_and_domains(entry: str, direct: bool):
    outbound = Outbound(Settings(https_proxy="http://secure:2", no_proxy=("other", entry)))

    assert (outbound.proxy("https://api.example/v1") is None) == direct


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://10.1.2.3:8000", True),
        ("http://11.1.2.3", False),
        ("http://192.168.0.7:9", True),
        ("http://192.168.0.7:8", False),
        ("http://[fd00::7]:8000", True),
        ("http://[2606::7]", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(url: str, direct: bool):
    entries = ("10.0.0.0/8", "192.168.0.7:9", "fd00::/8")
    outbound = Outbound(Settings(http_proxy="http://plain:1", no_proxy=entries))

    assert (outbound.proxy(url) is None) == direct


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ssl_cert_file": Path("/nowhere/ca.pem")}, "SSL_CERT_FILE"),
        ({"ssl_cert_dir": Path("/nowhere")}, "SSL_CERT_DIR"),
        ({"ssl_cert_file": Path(__file__)}, "SSL_CERT_FILE"),
    ],
)
async def test_certificates_that_are_not_there_are_told_by_their_variable(
    name: str, settings: dict[str, Path], named: str
):
    fault = await failed(settings_at("https://127.0.0.1:9", **settings), name)

    assert fault.message.startswith(f"{name} cannot be reached: {named} names ")


# -- over the wire --------------------------------------------------------------------


async def test_a_plain_provider_is_reached_through_the_proxy(fake: FakeProvider, name: str):
    async with ProxyServer(fake.port, password="secret") as proxy:
        reply = await spoken(settings_at(f"http://{HOST}", http_proxy=proxy.url), name)

    assert reply == ("a1", 3)
    assert proxy.requests[0].startswith(f"POST http://{HOST}/")
    assert "proxy-authorization" not in fake.seen[0].headers


async def test_a_secure_provider_is_reached_through_a_tunnel(secure: FakeProvider, name: str):
    async with ProxyServer(secure.port, password="secret") as proxy:
        settings = settings_at(f"https://{HOST}", https_proxy=proxy.url, ssl_cert_file=CA)
        reply = await spoken(settings, name)

    assert reply == ("a1", 3)
    assert set(proxy.requests) == {f"CONNECT {HOST}:443"}
    assert "proxy-authorization" not in secure.seen[0].headers


async def test_a_ca_of_ones_own_is_trusted_when_it_is_named(secure: FakeProvider, name: str):
    assert await spoken(settings_at(secure.url, ssl_cert_file=CA), name) == ("a1", 3)


async def test_a_certificate_of_a_ca_that_nobody_knows_is_refused_with_advice(
    secure: FakeProvider, name: str
):
    fault = await failed(settings_at(secure.url), name)

    assert fault.message.startswith(f"{name} cannot be reached: its certificate is not trusted (")
    assert fault.message.endswith("SSL_CERT_FILE names the certificates that are")
    assert (fault.code, fault.transient, fault.whole) == ("provider_unavailable", False, True)
    assert secure.seen == []


@pytest.mark.parametrize(("status", "transient"), [(407, False), (403, False), (502, True)])
async def test_a_proxy_that_makes_no_tunnel_is_told_apart_from_the_provider(
    secure: FakeProvider, name: str, status: int, transient: bool
):
    async with ProxyServer(secure.port, refuses=status) as proxy:
        settings = settings_at(f"https://{HOST}", https_proxy=proxy.url, ssl_cert_file=CA)
        fault = await failed(settings, name)

    assert fault.message == f"{name} cannot be reached: the proxy answered {status}"
    assert (fault.transient, fault.whole) == (transient, True)


async def test_a_proxy_that_is_not_there_is_a_provider_that_is_not(name: str):
    gone = f"http://user:secret@127.0.0.1:{free_port()}"

    fault = await failed(settings_at(f"http://{HOST}", http_proxy=gone), name)

    assert fault.message == (
        f"{name} cannot be reached: no connection to the proxy [private address] (connection "
        "refused). Does it run there, and are the proxy settings right?"
    )
    assert (fault.transient, fault.whole) == (True, True)


@pytest.mark.parametrize(
    ("host", "shown", "why"),
    [
        ("127.0.0.1", "[private address]", "connection refused"),
        ("localhost", "[private address]", "connection refused"),
        ("nobody.invalid", "[private address]", "this name cannot be resolved"),
    ],
)
async def test_a_provider_that_is_not_there_is_told_with_the_setting_to_look_at(
    name: str, host: str, shown: str, why: str
):
    fault = await failed(settings_at(f"http://{host}:{free_port()}"), name)

    setting = {
        "anthropic": "ANTHROPIC_BASE_URL",
        "ollama": "OLLAMA_HOST",
        "openai": "OPENAI_BASE_URL (or LLM_SERVER_URL)",
    }[name]
    assert fault.message == (
        f"{name} cannot be reached: no connection to {shown} ({why}). Does it run there, and is "
        f"{setting} right?"
    )
    assert (fault.code, fault.transient, fault.whole) == ("provider_unavailable", True, True)


async def test_this_machine_is_reached_directly_and_the_settings_alone_count(
    fake: FakeProvider, name: str, monkeypatch: pytest.MonkeyPatch
):
    dead = f"http://127.0.0.1:{free_port()}"
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, dead)

    assert await spoken(settings_at(fake.url, http_proxy=dead), name) == ("a1", 3)
