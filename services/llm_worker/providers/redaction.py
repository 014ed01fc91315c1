"""What must not leave this machine is taken out of what providers say: keys, private addresses.

A provider's sentence may quote the key that it was sent, and an error of the network
names the host.  Both would go to users, into facts and into logs.  What is put in
their place tells what was there; public addresses stay.
"""

import base64
import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from services.llm_worker.providers.base import ProviderError
from shared.settings import Settings

SECRET = "[redacted]"  # noqa: S105  (what stands in its place)
ADDRESS = "[private address]"

LONGEST = 1_000
"""Characters of a provider's sentence that are kept."""
_LONGEST_READ = 8_000
_SHORT = 8
"""Characters below which a key is looked for as a word of its own alone."""
_CUT = "…"
"""What stands where a text was cut."""
_NAMES = {"anthropic", "openai", "ollama"}
"""What people write where a server wants any key at all, and we in every sentence."""

# No pattern takes more than linear time: each begins at a word's start, or is bounded.
_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^/\s\"'<>]*@", re.IGNORECASE)
_LABEL = r"(?:x-|x-goog-)?api[-_ ]?key|(?:access|auth|api)[-_]?token|client[-_]?secret|password"
_LABELLED = re.compile(
    r"(?P<label>\bbearer\s+(?!(?:tokens?|auth\w*|scheme|credentials?|realm)\b)"
    r"|\bbasic\s+(?=[A-Za-z0-9+/]{0,200}[\d=])"
    rf"|\b(?:{_LABEL})[\"']?\s*=\s*[\"']?"
    rf"|\b(?:{_LABEL})[\"']?\s*:\s*[\"']?(?=\S{{0,200}}\d|\S{{16,}})"
    r"|[?&](?:key|token|secret|sig|signature)=)"
    r"[^\s\"'<>&,;)]{4,}",
    re.IGNORECASE,
)
_KEY_LIKE = re.compile(
    r"(?<![\w-])(?:(?:sk|pk|rk|xai|pplx|nvapi|glpat)-[\w*.-]{4,}"
    r"|(?:sk|pk|rk|gsk|hf|r8|gh[oprsu]|github_pat)_[\w*-]{8,}"
    r"|AIza[\w-]{20,}|AKIA[0-9A-Z]{12,}|ya29\.[\w-]+"
    r"|eyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?"
    r"|[\w-]+\*{3,}[\w-]*)"  # as providers show a key that is wrong
    r"|(?<![\w*-])\*{3,}[\w-]+"
)

_PORT = r"(?::\d{1,5}\b|', ?\d{1,5}\b)?"
"""As in a URL, or as Python shows an address."""
_IPV4 = re.compile(r"(?<![\d.])(?P<ip>\d{1,3}(?:\.\d{1,3}){3})(?!\.?\d)" + _PORT)
_GROUPS = r"(?P<ip>(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4})(?:%\w+)?"
_IPV6 = re.compile(r"(?<![\w:.])" + _GROUPS + r"(?![\w:])" + _PORT, re.IGNORECASE)
_IPV6_OF_URL = re.compile(r"\[" + _GROUPS + r"\]" + _PORT, re.IGNORECASE)
_NAME = re.compile(
    r"(?<![\w.-])(?:localhost|(?:[\w-]+\.)+"
    r"(?:local|localhost|localdomain|internal|intranet|lan|home|corp|private|home\.arpa|svc))"
    r"(?![\w-]|\.\w)" + _PORT,
    re.IGNORECASE,
)
"""Domains that are nobody's on the internet."""
_ONE_LABEL = re.compile(r"(://)[\w-]+(?![\w.-]|\[)(?::\d{1,5}\b)?")

F = TypeVar("F", bound=ProviderError)


class Redaction:
    """Takes secrets and private addresses out of a text; ``urls`` are those of the settings."""

    def __init__(self, keys: Iterable[str] = (), urls: Iterable[str] = ()) -> None:
        parts = [urlsplit(url) for url in urls]
        secrets = {key for key in (*keys, *(part.password for part in parts)) if key}
        self._keys = _any_of(_key, secrets)
        self._long_keys = [key for key in secrets if len(key) >= _SHORT]
        self._hosts = _any_of(
            _host, {part.hostname for part in parts if part.port or is_private(part.hostname or "")}
        )

    def __call__(self, text: str) -> str:
        """The text without them, and not too long."""
        text = _CREDENTIALS.sub(r"\1", text[:_LONGEST_READ])
        if self._keys is not None:
            text = self._cut_keys_redacted(self._keys.sub(SECRET, text))
        text = _LABELLED.sub(lambda found: f"{found['label']}{SECRET}", text)
        text = _KEY_LIKE.sub(SECRET, text)
        if self._hosts is not None:
            text = self._hosts.sub(_address, text)
        text = _NAME.sub(_address, text)
        for addresses in (_IPV4, _IPV6_OF_URL, _IPV6):
            text = addresses.sub(lambda ip: _address(ip) if _is_inner(ip["ip"]) else ip[0], text)
        text = _ONE_LABEL.sub(rf"\1{ADDRESS}", text)
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}{_CUT}"

    def _cut_keys_redacted(self, text: str) -> str:
        """The text without the beginnings of keys at which somebody has cut it before."""
        parts = text.split(_CUT)
        for index, part in enumerate(parts[:-1]):
            cuts = (key[:size] for key in self._long_keys for size in range(len(key), 5, -1))
            if begun := next((cut for cut in cuts if part.endswith(cut)), None):
                parts[index] = f"{part.removesuffix(begun)}{SECRET}"
        return _CUT.join(parts)

    def clean(self, fault: F) -> F:
        """The fault, whose message may now be shown, stored and logged."""
        fault.message = self(fault.message)
        fault.args = (fault.message,)
        return fault


def redaction_for(settings: Settings) -> Redaction:
    """What keeps the secrets of these settings."""
    keys = (settings.anthropic_api_key, settings.openai_api_key)
    urls = (
        settings.anthropic_base_url,
        settings.openai_base_url,
        settings.ollama_host,
        settings.http_proxy,
        settings.https_proxy,
        settings.all_proxy,
    )
    return Redaction(filter(None, keys), filter(None, urls))


def without_credentials(url: str) -> str:
    """A URL for operators: the way to its path, and no more."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else parts.path


def is_private(host: str) -> bool:
    """Whether a host is of a private network, or of this machine."""
    return _is_inner(host) or "." not in host or _NAME.fullmatch(host) is not None


def _is_inner(address: str) -> bool:
    try:
        return not ip_address(address).is_global
    except ValueError:  # a time of day, a version
        return False


def _address(found: re.Match[str]) -> str:
    return f"{ADDRESS}'" if "'" in found[0] else ADDRESS


def _key(key: str) -> str:
    if len(key) < 4 or key in _NAMES:
        return ""
    if len(key) < _SHORT:
        return rf"(?<![\w-]){re.escape(key)}(?![\w-])"
    return "|".join(["".join(map(_character, key)), *_in_base64(key)])


def _character(character: str) -> str:
    """A character as it is, or as URLs and JSON (in JSON, too) write it."""
    ways = {re.escape(character), rf"\\{{1,8}}{re.escape(character)}"}
    if ord(character) < 0x10000:
        ways.add(rf"\\{{1,8}}u(?i:{ord(character):04x})")
    ways.add(f"(?i:{''.join(f'%{byte:02x}' for byte in character.encode('utf-8', 'replace'))})")
    return f"(?:{'|'.join(sorted(ways))})"


def _in_base64(key: str) -> list[str]:
    """Patterns for ``key`` in base64, for each place of a group at which it may begin."""
    data = key.encode("utf-8", "replace")
    patterns: list[str] = []
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        # the characters at both ends also hold bits of what stands beside the key
        begun, ended = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        inner = re.escape(text[begun:ended]).replace("/", "[/_]").replace(r"\+", r"[+\-]")
        patterns.append(rf"{'.' if before else ''}{inner}[\w+/-]?={{0,2}}")
    return patterns


def _host(host: str) -> str:
    """A name without a dot may be a word of any sentence: there its port gives it away."""
    port = r":\d{1,5}\b" if "." not in host and ":" not in host else _PORT
    return rf"(?<![\w.-]){re.escape(host)}(?![\w-]|\.\w){port}"


def _any_of(pattern: Callable[[str], str], texts: Iterable[str | None]) -> re.Pattern[str] | None:
    """One pattern for all of them, the longest first."""
    found = [pattern(word) for word in sorted(filter(None, texts), key=len, reverse=True)]
    return re.compile("|".join(filter(None, found))) if any(found) else None
