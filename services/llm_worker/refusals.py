"""What models refuse of a prompt: recognised in their servers' words, remembered for a while.

Many servers speak one API, and each takes another part of it: a schema for the
answer, pictures, whole documents.  None says so beforehand, so it is tried; who
refuses is asked again without it, because the prompt says the same in words.
"""

import hashlib
import re
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from services.llm_worker.providers.base import Prompt, ProviderError
from shared.events import FileRef

REMEMBERED = 3600.0
"""Seconds for which a model is not asked again to take what it refused."""
MOST = 10_000
"""Refusals that are remembered at a time."""

Part = Literal["schema", "files"]

_STATUSES = {400, 404, 413, 415, 422, 500, 501}
"""llama.cpp and Ollama tell of a picture that they cannot see as an error of their own."""
_LENGTH = re.compile(r"context.?(?:length|size|window)|too many tokens", re.IGNORECASE)
_SCHEMA = re.compile(
    r"response_?format|json.?schema|output_(?:config|format)|structured.?output|guided|grammar"
    r"|\bformat\b",
    re.IGNORECASE,
)
_FILES = re.compile(
    r"image|vision|visual|picture|multi-?modal|modalit|mmproj|\bpdf\b|document|\bfiles?\b"
    r"|content(?: |\[\]\.)type|part type|\bcontent\b.{0,80}\bstr(?:ing)?\b",
    re.IGNORECASE | re.DOTALL,
)
_THIS_FILE = re.compile(
    r"unsupported image|invalid_(?:image|base64)|image_parse|illegal base64|not valid|corrupt"
    r"|could not (?:be )?(?:process|read|decode|load)|failed to (?:process|read|decode|load)"
    r"|password|encrypted|too (?:large|big|many)|exceeds|maximum of|at most [1-9]"
    r"|(?:one|a single) image",
    re.IGNORECASE,
)
"""Words about the file at hand: another one may be taken."""


class Refused(ProviderError):
    """The model does not take a part of the prompt; without that part it may well answer."""

    def __init__(self, fault: ProviderError, part: Part, keys: frozenset[str]) -> None:
        super().__init__(fault.message, code=fault.code, passing=False)
        self.part: Part = part
        self.keys = keys
        """What exactly was refused, for :class:`Refusals`."""


def as_refusal(fault: ProviderError, prompt: Prompt) -> Refused | None:
    """The refusal that a fault is, if it is one: of a part that ``prompt`` has."""
    if fault.status not in _STATUSES or _LENGTH.search(fault.words):
        return None
    if prompt.files and (fault.status == 413 or _FILES.search(fault.words)):
        if fault.status == 413 or _THIS_FILE.search(fault.words):
            digests = (hashlib.sha256(file.data).hexdigest() for file in prompt.files)
            return Refused(fault, "files", frozenset(digests))
        return Refused(fault, "files", frozenset(_kind(file.media_type) for file in prompt.files))
    if prompt.schema is not None and _SCHEMA.search(fault.words):
        return Refused(fault, "schema", frozenset((_digest(prompt.schema),)))
    return None


class Refusals:
    """What each model refused lately, as far as this worker knows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str, str], float] = {}

    def remember(self, provider: str, model: str, refused: Refused) -> bool:
        """Leave this out from now on; False when it should have been left out already."""
        known = self.of(provider, model)
        news = [key for key in refused.keys if not known.has(key)]
        now = self._clock()
        if len(self._until) >= MOST:
            self._until = {key: until for key, until in self._until.items() if until > now}
        for key in news:
            self._until[provider, model, key] = now + REMEMBERED
        return bool(news)

    def of(self, provider: str, model: str) -> "RefusedBy":
        """What one model refused."""
        return RefusedBy(model, lambda key: self._has((provider, model, key)))

    def _has(self, key: tuple[str, str, str]) -> bool:
        return self._until.get(key, 0.0) > self._clock()


class RefusedBy:
    """What one model refused lately, and the sentences that say so."""

    def __init__(self, model: str, has: Callable[[str], bool]) -> None:
        self._model = model
        self.has = has

    def file(self, file: FileRef) -> bool:
        """Whether it is not to be sent this file."""
        return self.has(_kind(file.media_type)) or self.has(file.sha256)

    def schema(self, schema: dict[str, Any]) -> bool:
        """Whether it is not to be sent this schema, but for the words in the prompt."""
        return self.has(_digest(schema))

    def notes(self, *, as_it_is: bool, schema: bool) -> list[str]:
        """What was left out of a prompt whose files or schema are not sent, one sentence each."""
        told: list[str] = []
        if not as_it_is:
            told.append(f"{self._model} did not take the file; it was sent what was read from it.")
        if not schema:
            told.append(f"{self._model} did not take the schema; only the prompt told it.")
        return told


def _kind(media_type: str) -> str:
    return "image" if media_type.startswith("image/") else media_type


def _digest(schema: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(schema)).hexdigest()
