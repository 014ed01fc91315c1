"""Any OpenAI-compatible server, by its Chat Completions API, without its SDK."""

import base64
import re
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from services.llm_worker.providers import counts, faults, shapes
from services.llm_worker.providers.answer_reader import spoken
from services.llm_worker.providers.base import (
    Ended,
    Learnt,
    ModelInfo,
    Prompt,
    PromptFile,
    PromptMessage,
    Write,
)
from services.llm_worker.providers.connections import Connections
from services.llm_worker.providers.openai_reader import OpenAIReader
from services.llm_worker.providers.silence import Timeouts

DEFAULT_URL = "https://api.openai.com/v1"

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
        self, connections: Connections, *, base_url: str, api_key: str | None, timeouts: Timeouts
    ) -> None:
        self._connections = connections
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeouts = timeouts
        self._is_openais_own = urlsplit(base_url).hostname == urlsplit(DEFAULT_URL).hostname

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        url = f"{self._base_url}/chat/completions"
        answer = self._connections.post(self.name, url, self._headers, self._body(prompt))
        reader = OpenAIReader(self.name, url)
        return await spoken(self, prompt.model, answer, reader, self._timeouts, write)

    def notes(self, prompt: Prompt) -> list[str]:
        known = "temperature" not in prompt.learnt and not self._takes_temperature(prompt.model)
        if prompt.temperature is not None and known:
            return [f"{prompt.model} takes no temperature, so it was not sent."]
        return []

    def takes(self, model: str, media_type: str) -> bool:
        """Whether it takes such a file: pictures; a PDF only at OpenAI's own server."""
        return media_type.startswith("image/") or (
            media_type == "application/pdf" and self._is_openais_own
        )

    async def models(self) -> list[ModelInfo]:
        url = f"{self._base_url}/models"
        body = await self._connections.get(self.name, url, self._headers)
        found = shapes.rows(body, "data", "models")
        if found is None:
            raise faults.no_list(self.name, url, body)
        models = [shapes.shaped(row, _Model)[0] for row in found]
        return [
            ModelInfo(
                name=model.id,
                context_window=counts.tokens(model.max_model_len or model.context_length) or None,
                modified_at=_time(model.created),
            )
            for model in models
            if model.id and not NO_CHAT.search(model.id)
        ]

    async def aclose(self) -> None:
        """Close nothing: the connections belong to the registry."""

    def _body(self, prompt: Prompt) -> dict[str, object]:
        prompt, learnt = prompt.as_taken(), prompt.learnt
        messages = [_message(message, learnt) for message in prompt.messages]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        body: dict[str, object] = {
            "model": prompt.model,
            "messages": messages,
            "stream": True,
        }
        if "stream_options" not in learnt:
            body["stream_options"] = {"include_usage": True}
        takes = "temperature" not in learnt and self._takes_temperature(prompt.model)
        if prompt.temperature is not None and takes:
            body["temperature"] = prompt.temperature
        if prompt.max_tokens is not None and (limit := self._limit(learnt)):
            body[limit] = prompt.max_tokens
        if prompt.schema is not None:
            wanted = {"name": "answer", "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return body

    def _limit(self, learnt: frozenset[Learnt]) -> str | None:
        """What the limit of tokens is called here; None where it has been refused by both names."""
        # OpenAI's newer models refuse the old name; most other servers know only that
        names: list[Learnt] = ["max_tokens", "max_completion_tokens"]
        if self._is_openais_own:
            names.reverse()
        return next((name for name in names if name not in learnt), None)

    def _takes_temperature(self, model: str) -> bool:
        return not (self._is_openais_own and _REASONING.match(model))


def _message(message: PromptMessage, learnt: frozenset[Learnt]) -> dict[str, object]:
    sent: dict[str, object] = {"role": message.role, "content": _content(message)}
    if message.role == "assistant" and "thoughts" not in learnt:
        if message.thoughts is not None:
            sent["reasoning_content"] = message.thoughts.text
        elif "reasoning_content" in learnt:
            sent["reasoning_content"] = ""
    return sent


def _content(message: PromptMessage) -> object:
    if not message.files:
        return message.content
    return [*map(_part, message.files), {"type": "text", "text": message.content}]


def _time(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time; None for what servers say that do not know it."""
    if not seconds or not 0 < seconds < 2**32:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _part(file: PromptFile) -> dict[str, object]:
    url = f"data:{file.media_type};base64,{base64.b64encode(file.data).decode()}"
    if file.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": file.name, "file_data": url}}


class _Model(msgspec.Struct):
    id: str = ""
    created: float | None = None
    max_model_len: int | None = None
    context_length: int | None = None
