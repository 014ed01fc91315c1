"""The way out to the providers: through which proxy, and whose certificates are trusted.

One rule for all of them, whatever HTTP client they use (docs/providers.md).
"""

import ssl
from base64 import b64encode
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from shared.log import get_logger
from shared.settings import Settings

log = get_logger()

_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A proxy, and what it is told of who asks: nothing of that reaches the provider."""

    url: str
    tunnel_headers: dict[str, str]
    """Of the request for a tunnel, to a provider at ``https://``."""
    request_headers: dict[str, str]
    """Of each request to a provider at ``http://``, which the proxy reads and passes on."""


class Outbound:
    """What the settings say about the network between natterlog and its providers."""

    def __init__(self, settings: Settings) -> None:
        self._by_scheme = {"http": settings.http_proxy, "https": settings.https_proxy}
        self._for_all = settings.all_proxy
        self._direct = settings.no_proxy
        self._cert_file = settings.ssl_cert_file
        self._cert_dir = settings.ssl_cert_dir
        if self._for_all and not self._for_all.startswith("http"):
            # Set for other programs as a rule, beside the two that natterlog obeys.
            log.info("proxy.passed_over", reason="ALL_PROXY is no http or https URL")
            self._for_all = None

    def proxy(self, url: str) -> Proxy | None:
        """The proxy for ``url``; None where it is reached directly."""
        parts = urlsplit(url)
        proxy = self._by_scheme.get(parts.scheme) or self._for_all
        host = parts.hostname or ""
        if proxy is None or is_loopback(host):
            return None
        port = parts.port or _PORTS.get(parts.scheme, 0)
        direct = any(_covers(entry, host, port) for entry in self._direct)
        return None if direct else _of_url(proxy, tunnel=parts.scheme == "https")

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """What HTTPS connections are checked with; made at the first use: it takes a moment.

        Raises:
            OSError: the certificates that the settings name cannot be read.
        """
        if self._cert_file is None and self._cert_dir is None:
            return ssl.create_default_context()
        for variable, path in (
            ("SSL_CERT_FILE", self._cert_file),
            ("SSL_CERT_DIR", self._cert_dir),
        ):
            if path is not None and not path.exists():
                raise FileNotFoundError(f"{variable} names {path}, which is not there")
        try:
            return ssl.create_default_context(cafile=self._cert_file, capath=self._cert_dir)
        except ssl.SSLError as error:
            raise OSError(f"SSL_CERT_FILE names {self._cert_file}, which holds none") from error


def _of_url(url: str, *, tunnel: bool) -> Proxy:
    parts = urlsplit(url)
    if parts.username is None:
        return Proxy(url, {}, {})
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    headers = {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return Proxy(bare, headers, {}) if tunnel else Proxy(bare, {}, headers)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means this host: ``*``, a domain, an address or a network."""
    entry = entry.lower()
    if entry == "*":
        return True
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and not _is_address(entry):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if _is_address(host):
        try:
            return ip_address(host) in ip_network(entry, strict=False)
        except ValueError:
            return False
    domain = entry.removeprefix("*").removeprefix(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
