"""How what goes wrong upstream becomes a :class:`ProviderError`, alike for all providers."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple, cast

import msgspec

from services.llm_worker.providers.base import Provider, ProviderError

MODELS_NAMED = 20
"""How many models an error message names at most."""
WORDS = 4000
"""Bytes of an error's body that are kept, to see what it is about."""

_PASSING = {408, 409, 425, 429}
_CODES = {
    404: "model_not_found",
    408: "timeout",
    429: "provider_unavailable",
    503: "provider_unavailable",
    504: "timeout",
    529: "provider_unavailable",
}
_LASTING = re.compile(
    r"invalid_request|authentication|permission|not_found|billing|too_large"
    r"|insufficient_quota|content_filter|context_length"
)
"""Types and codes of errors that the same call would meet again."""


class Said(NamedTuple):
    """An error object of any of the three APIs: its sentence, its type and codes, its status."""

    message: str
    kind: str = ""
    status: int | None = None


def from_status(
    provider: str, status: int, headers: Mapping[str, str], body: bytes
) -> ProviderError:
    """An answer other than 200.  Headers are looked up in lower case."""
    said = _said_in(body)
    passing = (status in _PASSING or status >= 500) and "insufficient_quota" not in said.kind
    if (wish := headers.get("x-should-retry")) in ("true", "false"):
        passing = wish == "true"
    return ProviderError(
        f"{provider} answered {status}: {said.message or 'nothing else'}",
        code=_CODES.get(status, "provider_error"),
        passing=passing,
        retry_after=retry_after(headers),
        status=status,
        words=body[:WORDS].decode("utf-8", "replace"),
    )


def from_event(provider: str, error: object) -> ProviderError:
    """An error in the middle of a stream: there only its type or code says what it is."""
    said = _said(error)
    passing = not _LASTING.search(said.kind)
    code = "provider_error"
    if said.status is not None:
        passing = said.status in _PASSING or said.status >= 500
        code = _CODES.get(said.status, code)
    elif "not_found" in said.kind:
        code = "model_not_found"
    elif "overloaded" in said.kind or "rate_limit" in said.kind:
        code = "provider_unavailable"
    elif "timeout" in said.kind:
        code = "timeout"
    return ProviderError(
        f"{provider} broke off: {said.message or said.kind}", code=code, passing=passing
    )


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


def unreachable(provider: str, error: BaseException) -> ProviderError:
    why = str(error) or type(error).__name__
    return ProviderError(
        f"{provider} cannot be reached: {why}", code="provider_unavailable", passing=True
    )


def broken_off(provider: str) -> ProviderError:
    return ProviderError(f"{provider} broke off before the end of its reply.", passing=True)


def garbled(provider: str) -> ProviderError:
    return ProviderError(f"{provider} sent what cannot be read.", passing=True)


async def no_such_model(
    provider: Provider, model: str, said: ProviderError | None = None
) -> ProviderError:
    """The provider does not have ``model``; the message names what it has, if it can be asked."""
    try:
        async with asyncio.timeout(5):
            names = [info.name for info in await provider.models()]
    except (ProviderError, TimeoutError):
        names = []
    return ProviderError(
        f"{provider.name} has no model {model!r}. {naming(names)}".rstrip(),
        code="model_not_found",
        passing=False,
        status=said.status if said else None,
        words=said.words if said else "",
    )


def naming(names: list[str]) -> str:
    """A sentence with ``names``, the first ones of many; nothing for none."""
    if not names:
        return ""
    more = len(names) - MODELS_NAMED
    shown = ", ".join(names[:MODELS_NAMED])
    return f"There are: {shown} and {more} more." if more > 0 else f"There are: {shown}."


def _said_in(body: bytes) -> Said:
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Said(" ".join(body[:200].decode("utf-8", "replace").split()))
    return _said(cast("dict[str, object]", data).get("error", data) if _is_object(data) else data)


def _said(error: object) -> Said:
    if not _is_object(error):
        return Said(str(error))
    fields = cast("dict[str, object]", error)
    code = str(fields.get("code") or "")
    return Said(
        message=str(fields.get("message") or ""),
        kind=f"{fields.get('type') or ''} {code}",
        status=int(code) if len(code) == 3 and code.isdigit() else None,
    )


def _is_object(data: object) -> bool:
    return isinstance(data, dict)
