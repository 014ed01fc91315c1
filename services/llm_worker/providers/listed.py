"""What a provider's list of models says of a name: that it has it, or that it has not.

Lists have fewer names than their providers take: another name of the same model,
a variant of it, a deployment that somebody called as they liked.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from services.llm_worker.providers.openai import NO_CHAT
from shared.settings import Settings

_NEAR = 3
"""Names at most that are said to be near another."""
_SUFFIX = re.compile(r"(?:-latest|-\d{8}|-0)$")
"""What Anthropic's names for one model differ in: an alias, a date."""
_AZURE = re.compile(r"\.azure\.com$")


def has(provider: str, names: Collection[str], name: str) -> bool:
    """Whether one of ``names`` is the model that the provider would take ``name`` for."""
    if name in names:
        return True
    match provider:
        case "ollama":
            return f"{name}:latest" in names
        case "anthropic":
            return any(_SUFFIX.sub("", known) == _SUFFIX.sub("", name) for known in names)
        case "openai":
            return _has_openai(names, name)
        case _:
            return False


def _has_openai(names: Collection[str], name: str) -> bool:
    """Google lists ``models/x`` for ``x``; LiteLLM ``x/*``; OpenRouter not its ``x:variants``."""
    variant_of = name.rpartition(":")[0]
    return (
        f"models/{name}" in names
        or variant_of in names
        or any("*" in known and fnmatchcase(name, known) for known in names)
    )


def lists_all(provider: str, names: Collection[str], name: str, settings: Settings) -> bool:
    """Whether the provider would have listed ``name`` if it had it."""
    match provider:
        case "anthropic":
            return bool(names)
        case "openai":  # Azure takes the names of deployments, and lists those of models
            host = urlsplit(settings.openai_base_url or "").hostname or ""
            return bool(names) and not _AZURE.search(host) and not NO_CHAT.search(name)
        case _:
            return True


def near(name: str, ids: Collection[str]) -> str:
    """A sentence that asks whether one of ``ids`` was meant; nothing when none is near."""
    lowered = {word.lower(): known for known in ids for word in (known.partition("/")[2], known)}
    close = get_close_matches(name.lower(), lowered, _NEAR)
    found = list(dict.fromkeys(lowered[word] for word in close))
    return f"Did you mean {' or '.join(found)}? " if found else ""
