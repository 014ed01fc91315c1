"""How what goes wrong upstream becomes a :class:`ProviderError`, alike for all providers."""

import asyncio
import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from services.llm_worker.providers.base import Provider, ProviderError
from services.llm_worker.providers.shapes import Object, as_list, as_object
from services.llm_worker.providers.unicode import decode_tolerantly, mended

MODELS_NAMED = 20
"""How many models an error message names at most."""
MOST_TEXT = 4000
"""Bytes of an error's body that are kept, to see what it is about."""
LONGEST_BODY = 64 * 1024
"""Bytes of an error's body that are read."""
LONGEST_SENTENCE = 1000
"""Characters of a provider's own words in an error message."""

_TRANSIENT = {408, 409, 425, 429}
_CODES = {
    404: "model_not_found",
    408: "timeout",
    429: "provider_unavailable",
    503: "provider_unavailable",
    504: "timeout",
    529: "provider_unavailable",
}
_LASTING = re.compile(
    r"invalid_request|invalid_api_key|authentication|permission|not_found|billing|too_large"
    r"|insufficient_(?:quota|balance|credits)|content_filter|context_length"
)
"""Types and codes of errors that the same call would meet again."""
_WRONG_KEY = re.compile(
    r"invalid_api_key|authentication_error|unauthori[sz]ed"
    r"|(?:invalid|incorrect|missing|wrong).{0,20}\bapi.?key|\bapi.?key.{0,20}(?:not valid|invalid)",
    re.IGNORECASE,
)
_SPENT = re.compile(r"insufficient_(?:quota|balance|credits)|billing")
_A_MODEL = re.compile(r"model", re.IGNORECASE)

_ADDRESSES = {
    "openai": "OPENAI_BASE_URL (or LLM_SERVER_URL)",
    "anthropic": "ANTHROPIC_BASE_URL",
    "ollama": "OLLAMA_HOST",
}
_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_HIDDEN = re.compile(r"<(script|style)\b.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>?")
_ERRORS = ("error", "errors")
"""Fields in which servers put an error."""
_SENTENCES = ("message", "msg", "detail", "error", "description", "title")
"""Fields in which servers put what went wrong."""


class ErrorDetails(NamedTuple):
    """An error object of any of the three APIs: its sentence, its type and codes, its status."""

    message: str
    kind: str = ""
    status: int | None = None


def from_status(
    provider: str, status: int, headers: Mapping[str, str], body: bytes, address: str = ""
) -> ProviderError:
    """An answer without success.  Headers are looked up in lower case."""
    if 300 <= status < 400:
        return _redirected(provider, status, headers.get("location", ""))
    details = _details_in(body)
    transient = (status in _TRANSIENT or status >= 500) and not _SPENT.search(details.kind)
    if (wish := headers.get("x-should-retry")) in ("true", "false"):
        transient = wish == "true"
    sentence = details.message or "nothing else"
    if status in (401, 403) or (
        status < 500 and _WRONG_KEY.search(f"{details.kind} {details.message}")
    ):
        transient, sentence = False, _with_the_key(provider, sentence, may_not=status == 403)
    return ProviderError(
        f"{provider} answered {status}: {sentence}",
        code=_CODES.get(status, "provider_error"),
        transient=transient,
        retry_after=retry_after(headers),
        status=status,
        text=body[:MOST_TEXT].decode("utf-8", "replace"),
        location=headers.get("location"),
    )


def from_event(provider: str, error: object) -> ProviderError:
    """An error in place of an answer, or in one: only its type or code says what it is."""
    details = _details_of(error)
    transient = not _LASTING.search(details.kind)
    code = "provider_error"
    sentence = details.message or details.kind.strip() or "it says not which"
    if details.status is not None:
        transient = details.status in _TRANSIENT or details.status >= 500
        code = _CODES.get(details.status, code)
    elif "not_found" in details.kind:
        code = "model_not_found"
    elif "overloaded" in details.kind or "rate_limit" in details.kind:
        code = "provider_unavailable"
    elif "timeout" in details.kind:
        code = "timeout"
    if details.status in (401, 403) or _WRONG_KEY.search(f"{details.kind} {details.message}"):
        transient = False
        sentence = _with_the_key(provider, sentence, may_not=details.status == 403)
    return ProviderError(
        f"{provider} reported an error: {sentence}",
        code=code,
        transient=transient,
        text=details.message[:MOST_TEXT],
    )


def is_error(data: Mapping[str, object]) -> bool:
    """Whether an object of a stream that is no part of a reply is an error instead."""
    if data.get("object") == "error" or data.get("type") == "error":
        return True
    if any(data.get(field) for field in _ERRORS):
        return True
    worded = any(isinstance(data.get(field), str) for field in ("message", "msg", "detail"))
    return worded and any(data.get(field) for field in ("code", "status", "status_code", "detail"))


def decoded(body: bytes) -> object:
    """The JSON in ``body``, else its text."""
    try:
        return decode_tolerantly(body[:LONGEST_BODY])
    except (ValueError, RecursionError):
        return _plain(body)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as the provider wishes them: in ms, in seconds, or until a date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        seconds = headers.get("retry-after", "")
        if seconds[:1].isdigit():
            return float(seconds)
        if seconds:
            wait = parsedate_to_datetime(seconds) - datetime.now(UTC)
            return max(0.0, wait.total_seconds())
    except (ValueError, TypeError):  # not a number, not a date, a date without a zone
        pass
    return None


def unreachable(provider: str, why: str, *, transient: bool = True) -> ProviderError:
    return ProviderError(
        f"{provider} cannot be reached: {why}",
        code="provider_unavailable",
        transient=transient,
        whole=True,
    )


def unconnected(provider: str, address: str, why: str) -> ProviderError:
    """Nothing listens at the provider's ``host:port``, or the name cannot be resolved."""
    setting = _ADDRESSES.get(provider)
    look = f"Does it run there, and is {setting} right?" if setting else "Does it run there?"
    return unreachable(provider, f"no connection to {address} ({why}). {look}")


def broken_off(provider: str) -> ProviderError:
    return ProviderError(f"{provider} broke off before the end of its reply.", transient=True)


def nothing(provider: str) -> ProviderError:
    return ProviderError(f"{provider} broke off before its first byte.", transient=True)


def garbled(provider: str) -> ProviderError:
    return ProviderError(f"{provider} sent what cannot be read.", transient=True)


def unreadable(provider: str, address: str, first: bytes) -> ProviderError:
    """Something came, and nothing of it was a part of a reply."""
    return ProviderError(
        f"{provider} sent nothing that can be read as a reply, but: {_plain(first)} "
        f"({_where(provider, address)})",
        transient=True,
    )


def endless(provider: str) -> ProviderError:
    return ProviderError(f"The model of {provider} thinks without end.", transient=False)


def empty(provider: str, why: str = "") -> ProviderError:
    """An answer of nothing may be an accident, so it is tried once more, but not for long."""
    return ProviderError(
        f"{provider} answered with nothing, {why or 'and gave no reason'}.",
        transient=True,
        most_tries=2,
    )


def ended_with(provider: str, word: str) -> ProviderError:
    """The provider's word for the end is none that a reply ends with."""
    return ProviderError(
        f"{provider} ended its reply with “{_short(mended(word), 100)}”.", transient=True
    )


def web_page(provider: str, address: str, page: bytes) -> ProviderError:
    """HTML in place of an answer: something else than the provider's API is there."""
    return ProviderError(
        f"{provider} answered with a web page instead of a reply: “{_plain(page)}”. "
        f"Something else than its API is {_where(provider, address)}",
        transient=False,
    )


def no_list(provider: str, address: str, body: bytes) -> ProviderError:
    """What came in place of a list of models."""
    if body.lstrip().startswith(b"<"):
        return web_page(provider, address, body)
    data = decoded(body)
    if (fields := as_object(data)) is not None and is_error(fields):
        return from_event(provider, fields)
    return ProviderError(
        f"{provider} sent no list of its models that can be read, but: {_plain(body)} "
        f"({_where(provider, address)})",
        transient=True,
    )


async def no_such_model(
    provider: Provider, model: str, error: ProviderError | None = None, address: str = ""
) -> ProviderError:
    """The provider does not have ``model``, or not what was called: its list tells which.

    The message names the models that there are, if the provider can be asked.
    """
    names: list[str] | None = None
    try:
        async with asyncio.timeout(5):
            names = [info.name for info in await provider.models()]
    except (ProviderError, TimeoutError):
        pass
    listed = names is not None and (model in names or f"{model}:latest" in names)
    unsure = names is None and error is not None and not _A_MODEL.search(error.text)
    if error is not None and (listed or unsure):
        known = f"It does list the model {model!r}" if listed else "Its models cannot be listed"
        sentence = error.message.rstrip(".")
        return ProviderError(
            f"{sentence}. {known}, so look at the address: {_where(provider.name, address)}",
            transient=False,
            status=error.status,
            text=error.text,
        )
    return ProviderError(
        f"{provider.name} has no model {model!r}. {naming(names or [])}".rstrip(),
        code="model_not_found",
        transient=False,
        status=error.status if error else None,
        text=error.text if error else "",
    )


def naming(names: list[str]) -> str:
    """A sentence with ``names``, the first ones of many; nothing for none."""
    if not names:
        return ""
    more = len(names) - MODELS_NAMED
    shown = ", ".join(_short(name, 100) for name in names[:MODELS_NAMED])
    return f"There are: {shown} and {more} more." if more > 0 else f"There are: {shown}."


def shown_address(address: str) -> str:
    """A URL without what may be secret in it: a password, a query."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return _short(urlunsplit((parts.scheme, host, parts.path, "", "")))


def _redirected(provider: str, status: int, location: str) -> ProviderError:
    to = f"to {shown_address(location)}" if location else "elsewhere, but not where"
    setting = _ADDRESSES.get(provider, "its address")
    return ProviderError(
        f"{provider} answered {status}: it redirects {to}. natterlog follows no redirects with a "
        f"conversation; if that is right, set {setting} to it.",
        transient=False,
        status=status,
        location=location or None,
    )


def _where(provider: str, address: str) -> str:
    """Where the answer came from, and which setting says so."""
    setting = _ADDRESSES.get(provider)
    at = f"at {shown_address(address)}" if address else "there"
    if setting is None:
        return f"{at}."
    if provider == "openai" and "/v1/" not in address:
        return f"{at}. Is {setting} right, or is /v1 missing at its end?"
    return f"{at}. Is {setting} right?"


def _with_the_key(provider: str, sentence: str, *, may_not: bool) -> str:
    """What was said, and that the key is what to look at."""
    setting = _KEYS.get(provider)
    named = f" ({setting})" if setting else ""
    sentence = sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
    end = "wrong, or may not do this." if may_not else "wrong or missing."
    return f"{sentence} Its key{named} is {end}"


def _details_in(body: bytes) -> ErrorDetails:
    return _details_of(decoded(body))


def _details_of(error: object) -> ErrorDetails:
    """What an error says, wherever a server has wrapped it in lists and fields ``error``."""
    fields = as_object(error := _first(error))
    for _ in range(4):
        nested = (as_object(_first(fields.get(field))) for field in _ERRORS) if fields else ()
        fields = next((inner for inner in nested if inner), fields)
    if fields is None:
        return ErrorDetails(_short(_text(error)))
    codes = [_text(fields.get(field)) for field in ("code", "status", "status_code")]
    return ErrorDetails(
        message=_short(_sentence(fields)),
        kind=" ".join([_text(fields.get("type")), *codes]),
        status=next((int(c) for c in codes if re.fullmatch(r"[45]\d\d", c)), None),
    )


def _first(value: object) -> object:
    """Of several errors the first."""
    entries = as_list(value)
    return entries[0] if entries else value


def _sentence(fields: Object) -> str:
    """What went wrong, and what a provider behind this one said of it."""
    sentence = next((text for field in _SENTENCES if (text := _text(fields.get(field)))), "")
    behind = as_object(fields.get("metadata"))
    if behind is not None and (raw := _text(behind.get("raw"))):
        sentence = f"{sentence} ({_short(raw)})"
    return sentence


def _text(value: object) -> str:
    """A text or a number as it is written; other values have no words for people."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, bool):
        return ""
    try:
        return _short(str(value))
    except RecursionError:
        return ""


def _plain(body: bytes) -> str:
    """The text of a body, without the tags if it is a page."""
    text = mended(body[:MOST_TEXT].decode("utf-8", "replace"))
    if text.lstrip("\ufeff \r\n\t").startswith("<"):
        text = html.unescape(_TAG.sub(" ", _HIDDEN.sub(" ", text)))
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:200]}…"


def _short(text: str, most: int = LONGEST_SENTENCE) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
