"""Every setting, read once from the environment into a frozen, typed object.

The names that existing back ends use (``CLAUDE_…``, ``LLM_…``) work beside
natterlog's own.  A bad value stops the start and names its variable;
``docs/settings.md`` lists all.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec


class BadSetting(Exception):
    """A variable of the environment has a value that cannot be used."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    # where natterlog listens and keeps things
    host: str = "127.0.0.1"
    port: int = 8000
    reuse_port: bool = False
    """Several gateways share the port (SO_REUSEPORT); the supervisor sets it."""
    health_port: int = 0
    """Port of /livez, /readyz, /metrics where a process shares no other, or one with others;
    0: any free one."""
    nats_url: str | None = None
    """None: the supervisor starts an embedded server."""
    database_url: str | None = None
    data_dir: Path = Path("data")
    open_network: bool = False
    """While there are no tokens, everybody who reaches the gateway is the local user,
    wherever it listens."""
    origins: tuple[str, ...] = ()
    behind_proxy: bool = False
    """Believe ``X-Forwarded-Proto`` and ``X-Forwarded-Host``, which a proxy in front sets."""
    log_format: str = "auto"
    log_level: str = "info"
    grace: float = 60.0
    """Seconds that running replies may take to finish after SIGTERM."""

    # the log
    hot_facts: int = 250_000
    """How many facts EVENTS keeps; older ones are in the cold log."""

    # the workers
    lease: int = 6
    """Seconds after which the work of a worker that gives no sign of life goes to another."""

    # limits
    max_body: int = 4 * 1024 * 1024
    max_frame: int = 4 * 1024 * 1024
    max_message: int = 200_000
    """Characters of one message."""
    max_upload: int = 50 * 1024 * 1024
    """Bytes of one file."""
    max_reply: int = 4 * 1024 * 1024
    """Bytes of one reply's text, as UTF-8; then it ends with the stop reason ``max_length``."""
    messages_per_minute: int = 120
    """Of one user, over everything that starts a run; 0: no limit."""
    sockets_per_user: int = 64

    # jobs
    pipelines_dir: Path | None = None
    """Where pipelines of one's own lie; None: natterlog's own only."""
    steps: int = 2
    """Files that one processor reads at a time."""

    # llm_worker
    slots: int = 1_000
    """Replies that one worker writes at a time."""
    job_slots: int = 16
    """Steps of jobs that one worker writes at a time, besides its replies."""
    publishes_per_second: int = 5_000
    provider_failures: int = 3
    """Failed calls of a provider before a run fails."""
    silent_deaths: int = 6
    """Claims whose owner vanished before a run fails."""

    # providers
    providers: tuple[str, ...] = ()
    """Those that the llm_workers have keys or addresses of, where this process has none of
    them; the supervisor sets it."""
    anthropic_api_key: str | None = None
    anthropic_base_url: str | None = None
    claude_model: str | None = None
    claude_max_tokens: int | None = None
    breaker_threshold: int = 5
    breaker_cooldown: float = 60.0
    ollama_host: str | None = None
    openai_base_url: str | None = None
    openai_api_key: str | None = None
    default_model: str | None = None
    llm_timeout: float = 30.0
    """Seconds without content from a provider, once its first word has come."""
    first_word_timeout: float = 300.0
    """Seconds until a provider's first word; a model may have to be loaded for it."""
    llm_max_tokens: int | None = None
    llm_temperature: float | None = None
    enable_tools: bool = False
    demo_rate: float = 50.0
    """Words a second of the demo provider."""
    ollama_num_ctx: int = 32_768
    """The largest context, in tokens, that Ollama is asked for; 0: it is never told one."""

    # the way to the providers
    http_proxy: str | None = None
    """For providers at ``http://``; none of the three is used for this machine itself."""
    https_proxy: str | None = None
    all_proxy: str | None = None
    """Where the one of the scheme is not set."""
    no_proxy: tuple[str, ...] = ()
    """Hosts, domains, addresses and networks that are reached without one."""
    ssl_cert_file: Path | None = None
    """Certificates to trust instead of the system's."""
    ssl_cert_dir: Path | None = None

    @property
    def on_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "::1", "localhost")

    @property
    def first_choice(self) -> str | None:
        """The default model as far as settings alone decide it (docs/settings.md)."""
        if self.default_model:
            return self.default_model
        configured = self.configured_providers
        if "anthropic" in configured:
            return self.claude_model or DEFAULT_CLAUDE
        return None if configured else "demo"

    @property
    def configured_providers(self) -> list[str]:
        """Those that somebody has set up, besides the demo."""
        here = {
            "anthropic": self.anthropic_api_key,
            "ollama": self.ollama_host,
            "openai": self.openai_base_url or self.openai_api_key,
        }
        return [name for name, value in here.items() if value or name in self.providers]

    def __repr__(self) -> str:
        return "Settings(…)"  # keys and passwords stay out of logs and tracebacks


DEFAULT_CLAUDE = "claude-sonnet-5-5"
_CREDENTIALS = re.compile(r"^([\w+.-]*://)?.*@", re.DOTALL)
_HOST = re.compile(r"[\w.:%-]+")
"""A name, in any script, or an address."""
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f]")
"""What ``urlsplit`` passes over or takes out, and HTTP clients refuse."""
_MOST = 2**31 - 1
"""The largest number of a setting: what everybody that it is told can hold."""

N = TypeVar("N", int, float)


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("expected true or false")


def _port(text: str) -> int:
    return _whole(text, 0, 65535, "a port, 0 to 65535")


def _count(text: str) -> int:
    return _whole(text, 0, _MOST, "a whole number that is not negative")


def _positive(text: str) -> int:
    return _whole(text, 1, _MOST, "a whole number above zero")


def _seconds(text: str) -> float:
    return _real(text, _MOST, "seconds that are not negative")


def _temperature(text: str) -> float:
    return _real(text, 2, "a temperature, 0 to 2")


def _whole(text: str, least: int, most: int, what: str) -> int:
    # int() has sentences of its own, which mean nothing to people who write no Python
    digits = text.lstrip("0")[:20] or "0"  # so many are beyond every limit
    number = int(digits) if text.isascii() and text.isdigit() else -1
    return _within(number, least, most, what)


def _real(text: str, most: float, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    return _within(number, 0, most, what)


def _within(number: N, least: float, most: float, what: str) -> N:
    if not least <= number <= most:
        beyond = number > most == _MOST
        raise ValueError(f"expected {what}{f', {_MOST:,} at most' if beyond else ''}")
    return number


def _url(text: str) -> str:
    return _of_scheme(text, ("http", "https"), "an http or https URL").rstrip("/")


def _nats_url(text: str) -> str:
    """One server; a bare ``host:port`` is taken as nats-py takes it."""
    url = text if "://" in text or ":" not in text else f"nats://{text}"
    return _of_scheme(url, ("nats", "tls", "ws", "wss"), "one nats, tls, ws or wss URL")


def _of_scheme(url: str, schemes: tuple[str, ...], what: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # brackets that do not match
        raise ValueError(f"expected {what}") from None
    if parts.scheme not in schemes or not _HOST.fullmatch(host) or _UNSEEN.search(url):
        raise ValueError(f"expected {what}")
    if not _has_possible_port(parts):
        raise ValueError("expected a URL whose port is 1 to 65535")
    return url


def _has_possible_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # no number, or beyond the last one
        return False


def _ollama_host(text: str) -> str:
    """Ollama's own variable may be a bare ``host`` or ``host:port``."""
    if "://" not in text:
        text = f"http://{text}" if ":" in text else f"http://{text}:11434"
    return _url(text)


def _server_url(text: str) -> str:
    """LLM_SERVER_URL without a path gets ``/v1`` (docs/settings.md)."""
    url = _url(text)
    return url if urlsplit(url).path else f"{url}/v1"


def _proxy(text: str) -> str:
    """A proxy may be a bare ``host:port``."""
    return _url(text if "://" in text else f"http://{text}")


def _any_proxy(text: str) -> str:
    """ALL_PROXY may be of a kind that other programs use, as ``socks5://``."""
    return text if text.lower().startswith("socks") else _proxy(text)


def _items(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _providers(text: str) -> tuple[str, ...]:
    provider = _one_of("anthropic", "ollama", "openai")
    return tuple(map(provider, _items(text)))


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}")
        return text.lower()

    return parse


# variable → (field, parser); where two variables set one field, the first that is set wins
VARIABLES: dict[str, tuple[str, Callable[[str], object]]] = {
    "NATTERLOG_HOST": ("host", str),
    "NATTERLOG_PORT": ("port", _port),
    "NATTERLOG_REUSE_PORT": ("reuse_port", _flag),
    "NATTERLOG_HEALTH_PORT": ("health_port", _port),
    "NATTERLOG_NATS_URL": ("nats_url", _nats_url),
    "NATTERLOG_DATABASE_URL": ("database_url", str),
    "NATTERLOG_DATA_DIR": ("data_dir", Path),
    "NATTERLOG_OPEN_NETWORK": ("open_network", _flag),
    "NATTERLOG_ORIGINS": ("origins", _items),
    "NATTERLOG_BEHIND_PROXY": ("behind_proxy", _flag),
    "NATTERLOG_LOG_FORMAT": ("log_format", _one_of("auto", "json", "console")),
    "NATTERLOG_LOG_LEVEL": ("log_level", _one_of("debug", "info", "warning", "error")),
    "NATTERLOG_GRACE": ("grace", _seconds),
    "NATTERLOG_LEASE": ("lease", _positive),
    "NATTERLOG_HOT_FACTS": ("hot_facts", _positive),
    "NATTERLOG_MAX_BODY": ("max_body", _positive),
    "NATTERLOG_MAX_FRAME": ("max_frame", _positive),
    "NATTERLOG_MAX_MESSAGE": ("max_message", _positive),
    "NATTERLOG_MAX_UPLOAD": ("max_upload", _positive),
    "NATTERLOG_MAX_REPLY": ("max_reply", _positive),
    "NATTERLOG_MESSAGES_PER_MINUTE": ("messages_per_minute", _count),
    "NATTERLOG_SOCKETS_PER_USER": ("sockets_per_user", _count),
    "NATTERLOG_PIPELINES_DIR": ("pipelines_dir", Path),
    "NATTERLOG_STEPS": ("steps", _positive),
    "NATTERLOG_SLOTS": ("slots", _positive),
    "NATTERLOG_JOB_SLOTS": ("job_slots", _positive),
    "NATTERLOG_PUBLISHES_PER_SECOND": ("publishes_per_second", _positive),
    "NATTERLOG_PROVIDER_FAILURES": ("provider_failures", _positive),
    "NATTERLOG_SILENT_DEATHS": ("silent_deaths", _positive),
    "NATTERLOG_DEMO_RATE": ("demo_rate", _seconds),
    "NATTERLOG_PROVIDERS": ("providers", _providers),
    "ANTHROPIC_API_KEY": ("anthropic_api_key", str),
    "CLAUDE_API_KEY": ("anthropic_api_key", str),
    "ANTHROPIC_BASE_URL": ("anthropic_base_url", _url),
    "CLAUDE_MODEL": ("claude_model", str),
    "CLAUDE_MAX_TOKENS": ("claude_max_tokens", _positive),
    "CLAUDE_CB_THRESHOLD": ("breaker_threshold", _positive),
    "CLAUDE_CB_COOLDOWN": ("breaker_cooldown", _seconds),
    "OLLAMA_HOST": ("ollama_host", _ollama_host),
    "OPENAI_BASE_URL": ("openai_base_url", _url),
    "LLM_SERVER_URL": ("openai_base_url", _server_url),
    "OPENAI_API_KEY": ("openai_api_key", str),
    "LLM_DEFAULT_MODEL": ("default_model", str),
    "LLM_TIMEOUT": ("llm_timeout", _seconds),
    "NATTERLOG_FIRST_WORD_TIMEOUT": ("first_word_timeout", _seconds),
    "LLM_MAX_TOKENS": ("llm_max_tokens", _positive),
    "LLM_TEMPERATURE": ("llm_temperature", _temperature),
    "LLM_ENABLE_TOOLS": ("enable_tools", _flag),
    "NATTERLOG_OLLAMA_NUM_CTX": ("ollama_num_ctx", _count),
    "http_proxy": ("http_proxy", _proxy),
    "HTTP_PROXY": ("http_proxy", _proxy),
    "https_proxy": ("https_proxy", _proxy),
    "HTTPS_PROXY": ("https_proxy", _proxy),
    "all_proxy": ("all_proxy", _any_proxy),
    "ALL_PROXY": ("all_proxy", _any_proxy),
    "no_proxy": ("no_proxy", _items),
    "NO_PROXY": ("no_proxy", _items),
    "SSL_CERT_FILE": ("ssl_cert_file", Path),
    "SSL_CERT_DIR": ("ssl_cert_dir", Path),
}

ONLY_READ_BY: dict[str, str] = {
    "NATTERLOG_DATABASE_URL": "store",
    "ANTHROPIC_API_KEY": "llm_worker",
    "CLAUDE_API_KEY": "llm_worker",
    "ANTHROPIC_BASE_URL": "llm_worker",
    "OLLAMA_HOST": "llm_worker",
    "OPENAI_BASE_URL": "llm_worker",
    "LLM_SERVER_URL": "llm_worker",
    "OPENAI_API_KEY": "llm_worker",
    "http_proxy": "llm_worker",
    "HTTP_PROXY": "llm_worker",
    "https_proxy": "llm_worker",
    "HTTPS_PROXY": "llm_worker",
    "all_proxy": "llm_worker",
    "ALL_PROXY": "llm_worker",
}
"""What may hold a key or a password, and the one service that is to know it; the others are
for all."""


_READ_BY_SDKS = {"llm_worker": ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS")}
"""What a service's SDK takes from the environment besides our settings."""


def variables_of(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings in ``environ`` that a service may know, and what its SDK reads by itself."""
    known = [name for name in VARIABLES if ONLY_READ_BY.get(name, service) == service]
    known += _READ_BY_SDKS.get(service, ())
    return {variable: environ[variable] for variable in known if variable in environ}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in ``environ``; an empty variable counts as unset.

    Raises:
        BadSetting: a value cannot be used; the message names the variable.
    """
    values: dict[str, object] = {}
    for variable, (field, parse) in VARIABLES.items():
        text = environ.get(variable, "").strip()
        if not text or field in values:
            continue
        try:
            values[field] = parse(text)
        except ValueError as error:
            shown = _CREDENTIALS.sub(r"\1…@", text)[:60]
            raise BadSetting(f"{variable} is {shown!r}: {error}") from error
    return Settings(**values)  # pyright: ignore[reportArgumentType]  (each parser returns its field's type)
