"""Any OpenAI-compatible server, by its Chat Completions API, without its SDK."""

import base64
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from services.llm_worker.providers import faults
from services.llm_worker.providers.base import (
    Ended,
    ModelInfo,
    Prompt,
    PromptFile,
    PromptMessage,
)
from services.llm_worker.providers.connections import Connections
from services.llm_worker.providers.reading import Reading, spoken
from shared.events import Usage

DEFAULT_URL = "https://api.openai.com/v1"

_STOP_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_REASONING = re.compile(r"o\d|gpt-5")
"""OpenAI's own models that answer 400 to any temperature but their own."""
NO_CHAT = re.compile(
    r"embed|whisper|\btts\b|dall-e|moderation|transcribe|realtime|babbage|davinci|sora|image|audio"
)
"""Models that are left out of the list, because they do not talk."""


class OpenAI:
    """The provider ``openai``."""

    name = "openai"

    def __init__(
        self, connections: Connections, *, base_url: str, api_key: str | None, patience: float
    ) -> None:
        self._connections = connections
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._patience = patience
        self._is_openais_own = urlsplit(base_url).hostname == urlsplit(DEFAULT_URL).hostname

    def stream(self, prompt: Prompt) -> AsyncGenerator[str | Ended, None]:
        answer = self._connections.post(
            self.name, f"{self._base_url}/chat/completions", self._headers, self._body(prompt)
        )
        return spoken(self, prompt.model, answer, OpenAIReading(self.name), self._patience)

    def notes(self, prompt: Prompt) -> list[str]:
        if prompt.temperature is not None and not self._takes_temperature(prompt.model):
            return [f"{prompt.model} takes no temperature, so it was not sent."]
        return []

    def takes(self, model: str, media_type: str) -> bool:
        """Pictures; a PDF only at OpenAI's own, because few other servers know the word."""
        return media_type.startswith("image/") or (
            media_type == "application/pdf" and self._is_openais_own
        )

    async def models(self) -> list[ModelInfo]:
        body = await self._connections.get(self.name, f"{self._base_url}/models", self._headers)
        try:
            models = msgspec.json.decode(body, type=_Models).data
        except msgspec.DecodeError as error:
            raise faults.garbled(self.name) from error
        return [
            ModelInfo(
                name=model.id,
                context_window=model.max_model_len or model.context_length,
                modified_at=_moment(model.created),
            )
            for model in models
            if not NO_CHAT.search(model.id)
        ]

    async def aclose(self) -> None:
        """Nothing: the connections belong to the registry."""

    def _body(self, prompt: Prompt) -> dict[str, object]:
        messages: list[dict[str, object]] = [
            {"role": m.role, "content": _content(m)} for m in prompt.messages
        ]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        body: dict[str, object] = {
            "model": prompt.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.temperature is not None and self._takes_temperature(prompt.model):
            body["temperature"] = prompt.temperature
        if prompt.max_tokens is not None:
            # OpenAI's newer models refuse the old name; most other servers know only that
            limit = "max_completion_tokens" if self._is_openais_own else "max_tokens"
            body[limit] = prompt.max_tokens
        if prompt.schema is not None:
            wanted = {"name": "answer", "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return body

    def _takes_temperature(self, model: str) -> bool:
        return not (self._is_openais_own and _REASONING.match(model))


def _content(message: PromptMessage) -> object:
    if not message.files:
        return message.content
    return [*map(_part, message.files), {"type": "text", "text": message.content}]


def _moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time; None for what servers say that do not know it."""
    if not seconds or not 0 < seconds < 2**32:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _part(file: PromptFile) -> dict[str, object]:
    url = f"data:{file.media_type};base64,{base64.b64encode(file.data).decode()}"
    if file.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": file.name, "file_data": url}}


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: object = None


class _Model(msgspec.Struct):
    id: str
    created: float | None = None
    max_model_len: int | None = None
    context_length: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


_decoder = msgspec.json.Decoder(_Chunk)


class OpenAIReading(Reading[_Chunk]):
    """Chat completion chunks.  A finish reason or ``[DONE]`` ends the reply; usage may follow."""

    prefix = b"data:"
    end_marker = b"[DONE]"

    def __init__(self, provider: str) -> None:
        super().__init__(provider, _decoder)

    def _take(self, frame: _Chunk) -> str:
        if frame.usage:
            self.usage = _counted(frame.usage)
        if frame.error:
            self._fail(faults.from_event(self.provider, frame.error))
        if not frame.choices:
            return ""
        choice = frame.choices[0]
        if choice.finish_reason:
            self.complete = True
            self.stop_reason = _STOP_REASONS.get(choice.finish_reason, "end_turn")
        delta = choice.delta
        if delta is None:
            return ""
        if delta.reasoning_content or delta.reasoning:
            self.thinks = True
        return delta.content or ""


def _counted(usage: _Usage) -> Usage:
    """OpenAI's prompt tokens include the cached ones, Anthropic's (and ours) do not."""
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens if details else None) or 0
    return Usage(
        input_tokens=max(0, (usage.prompt_tokens or 0) - cached),
        output_tokens=usage.completion_tokens or 0,
        cache_read_input_tokens=cached,
    )
