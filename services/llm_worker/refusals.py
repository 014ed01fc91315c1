"""Parts of prompts that models refuse: recognised in their servers' errors, remembered for a while.

Many servers speak one API, and each takes another part of it: a schema for the
answer, pictures, whole documents, a temperature, the system's role.  None says so
beforehand, so it is tried; who refuses is asked again in another way, once, and for
an hour the next prompts are put like that at once.
"""

import hashlib
import re
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import msgspec

from services.llm_worker.providers.base import Learnt, Prompt, ProviderError
from shared.events import FileRef

REMEMBERED = 3600.0
"""Seconds for which a model is not asked again to take what it refused."""
MOST = 10_000
"""Refusals that are remembered at a time."""

Part = Literal["schema", "files"] | Learnt

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

_NOT_TAKEN = (
    r"unsupported|not (?:be )?(?:supported|permitted|allowed|available|recogni[sz]ed|accepted)"
    r"|does(?:n't| not) (?:support|accept|allow)|un(?:recogni[sz]ed|known|expected)(?!_error)"
    r"|forbidden|\bextra\b"
    r"|deprecated|only (?:the default|be set|1\b)|cannot be (?:set|used)|no longer"
)
_SYSTEM = re.compile(
    r"system.{0,20}(?:role|message|prompt|instruction)s?\b.{0,40}"
    rf"(?:{_NOT_TAKEN})|(?:{_NOT_TAKEN}).{{0,30}}\bsystem\b"
    r"|does not support 'system'|developer instruction is not enabled"
    r"|only user(?:,| and) (?:assistant|model)\b.{0,40}roles"
    r"|roles must alternate",  # they do, but for the system's at their head
    re.IGNORECASE | re.DOTALL,
)
_WANTED = re.compile(r"pass(?:ed)? back|missing|required|must (?:be|have|include|contain)", re.I)
_INVALID = r"invalid(?!_request|_argument)"  # those two are kinds of every error
_THOUGHTS = re.compile(
    rf"(?:{_NOT_TAKEN}|{_INVALID}).{{0,80}}\b(?:reasoning\w*|thinking|signature)\b"
    rf"|\b(?:reasoning\w*|thinking|signature)\b.{{0,80}}(?:{_NOT_TAKEN}|{_INVALID}|modified)",
    re.IGNORECASE | re.DOTALL,
)


class PartRefused(ProviderError):
    """The model does not take a part of the prompt; without that part it may well answer."""

    def __init__(self, fault: ProviderError, part: Part, keys: frozenset[str]) -> None:
        super().__init__(fault.message, code=fault.code, transient=False, status=fault.status)
        self.part: Part = part
        self.keys = keys
        """What exactly was refused, for :class:`Refusals`."""


def as_refusal(fault: ProviderError, prompt: Prompt) -> PartRefused | None:
    """The refusal that a fault is, if it is one: of a part that ``prompt`` has."""
    if fault.status not in _STATUSES or _LENGTH.search(fault.text):
        return None
    if (learnt := _learnt(fault, prompt)) is not None:
        return PartRefused(fault, learnt, frozenset((learnt,)))
    if prompt.files and (fault.status == 413 or _FILES.search(fault.text)):
        if fault.status == 413 or _THIS_FILE.search(fault.text):
            digests = (hashlib.sha256(file.data).hexdigest() for file in prompt.files)
            return PartRefused(fault, "files", frozenset(digests))
        return PartRefused(
            fault, "files", frozenset(_kind(file.media_type) for file in prompt.files)
        )
    if prompt.schema is not None and _SCHEMA.search(fault.text):
        return PartRefused(fault, "schema", frozenset((_digest(prompt.schema),)))
    return None


def _learnt(fault: ProviderError, prompt: Prompt) -> Learnt | None:
    """What of the way in which the prompt was put the server does not take, or misses."""
    text = fault.text
    for parameter in ("max_tokens", "max_completion_tokens", "temperature", "stream_options"):
        if parameter in fault.sent and _names(parameter, text):
            return parameter
    if prompt.thoughts and "thoughts" not in prompt.learnt and _THOUGHTS.search(text):
        return "thoughts"
    known = "reasoning_content" in prompt.learnt
    if "reasoning_content" in text and not known and _WANTED.search(text):
        return "reasoning_content"
    if prompt.system and "system" not in prompt.learnt and _SYSTEM.search(text):
        return "system"
    return None


def _names(parameter: str, text: str) -> bool:
    """Whether the server says that it does not know this parameter, or not with this model."""
    if parameter == "max_tokens" and "max_completion_tokens" in text:
        return True
    return _refuses(parameter, text)


def _refuses(name: str, text: str) -> bool:
    near = rf"(?:{_NOT_TAKEN}).{{0,80}}\b{name}\b|\b{name}\b.{{0,80}}(?:{_NOT_TAKEN})"
    return re.search(near, text, re.IGNORECASE | re.DOTALL) is not None


class Refusals:
    """What each model refused lately, as far as this worker knows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str, str], float] = {}

    def remember(self, provider: str, model: str, refused: PartRefused) -> None:
        """Remember what the model refused, so that it is left out from now on."""
        for key in refused.keys:
            self._until.pop((provider, model, key), None)  # so that it is the youngest
            self._until[provider, model, key] = self._clock() + REMEMBERED
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]

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
        """Whether this schema is to be sent in the prompt's text only."""
        return self.has(_digest(schema))

    @property
    def learnt(self) -> frozenset[Learnt]:
        """The other ways of making a request that this model has been found to need."""
        return frozenset(part for part in get_args(Learnt) if self.has(part))

    def notes(self, *, as_it_is: bool, schema: bool) -> list[str]:
        """What was left out of a prompt whose files or schema are not sent, one sentence each."""
        notes: list[str] = []
        if not as_it_is:
            notes.append(f"{self._model} did not take the file; it was sent what was read from it.")
        if not schema:
            notes.append(f"{self._model} did not take the schema; only the prompt told it.")
        return notes


def learnt_notes(prompt: Prompt) -> list[str]:
    """In which other way a prompt is put than it would be, one sentence each."""
    model, learnt = prompt.model, prompt.learnt
    limits = learnt & {"max_tokens", "max_completion_tokens"}
    notes = {
        f"{model} takes no temperature, so it was not sent.": (
            "temperature" in learnt and prompt.temperature is not None
        ),
        f"{model} takes no limit of tokens by any name, so none was sent.": (
            len(limits) == 2 and prompt.max_tokens is not None
        ),
        f"{model} does not take {'/'.join(limits)}; the limit was sent by its other name.": (
            len(limits) == 1 and prompt.max_tokens is not None
        ),
        f"{model} does not take stream_options, so it may not count its tokens.": (
            "stream_options" in learnt
        ),
        f"{model} takes no system prompt; it was sent at the head of the first message.": (
            "system" in learnt and prompt.system is not None
        ),
        f"{model} did not take its own thoughts, so they were not sent back.": (
            "thoughts" in learnt and any(m.role == "assistant" for m in prompt.messages)
        ),
        f"{model} wants its thoughts back with every reply; where there were none, it got none.": (
            "reasoning_content" in learnt and any(m.role == "assistant" for m in prompt.messages)
        ),
    }
    return [note for note, applies in notes.items() if applies]


def _kind(media_type: str) -> str:
    return "image" if media_type.startswith("image/") else media_type


def _digest(schema: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(schema)).hexdigest()
