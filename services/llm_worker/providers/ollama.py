"""Ollama, by its own API: lines of JSON, the last one with ``done: true``."""

import base64
from collections.abc import AsyncGenerator

import msgspec

from services.llm_worker.providers import faults
from services.llm_worker.providers.base import Ended, ModelInfo, Prompt, PromptMessage
from services.llm_worker.providers.connections import Connections
from services.llm_worker.providers.reading import Reading, spoken
from shared.events import Usage


class Ollama:
    """The provider ``ollama``."""

    name = "ollama"

    def __init__(self, connections: Connections, *, host: str, patience: float) -> None:
        self._connections = connections
        self._host = host
        self._patience = patience

    def stream(self, prompt: Prompt) -> AsyncGenerator[str | Ended, None]:
        answer = self._connections.post(self.name, f"{self._host}/api/chat", {}, _body(prompt))
        return spoken(self, prompt.model, answer, OllamaReading(self.name), self._patience)

    def notes(self, prompt: Prompt) -> list[str]:
        return []

    def takes(self, model: str, media_type: str) -> bool:
        return media_type.startswith("image/")

    async def models(self) -> list[ModelInfo]:
        body = await self._connections.get(self.name, f"{self._host}/api/tags", {})
        try:
            models = msgspec.json.decode(body, type=_Models).models
        except msgspec.DecodeError as error:
            raise faults.garbled(self.name) from error
        return [
            ModelInfo(name=model.name, size=model.size, modified_at=model.modified_at)
            for model in models
            if not (model.details and "bert" in model.details.family)  # those make embeddings
        ]

    async def aclose(self) -> None:
        """Nothing: the connections belong to the registry."""


def _body(prompt: Prompt) -> dict[str, object]:
    messages: list[dict[str, object]] = [_message(m) for m in prompt.messages]
    if prompt.system:
        messages.insert(0, {"role": "system", "content": prompt.system})
    options: dict[str, object] = {}
    if prompt.temperature is not None:
        options["temperature"] = prompt.temperature
    if prompt.max_tokens is not None:
        options["num_predict"] = prompt.max_tokens
    body: dict[str, object] = {
        "model": prompt.model,
        "messages": messages,
        "stream": True,
        "options": options,
    }
    if prompt.schema is not None:
        body["format"] = prompt.schema
    return body


def _message(message: PromptMessage) -> dict[str, object]:
    said: dict[str, object] = {"role": message.role, "content": message.content}
    if message.files:
        said["images"] = [base64.b64encode(file.data).decode() for file in message.files]
    return said


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None


class _Line(msgspec.Struct):
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int = 0
    eval_count: int = 0
    error: object = None


class _Details(msgspec.Struct):
    family: str = ""


class _Model(msgspec.Struct):
    name: str
    size: int = 0
    modified_at: str | None = None
    details: _Details | None = None


class _Models(msgspec.Struct):
    models: list[_Model]


_decoder = msgspec.json.Decoder(_Line)


class OllamaReading(Reading[_Line]):
    """Chat lines.  Counts of the last one are the usage (a cached prompt counts nothing)."""

    def __init__(self, provider: str) -> None:
        super().__init__(provider, _decoder)

    def _take(self, frame: _Line) -> str:
        if frame.done:
            self.done = self.complete = True
            self.stop_reason = "max_tokens" if frame.done_reason == "length" else "end_turn"
            self.usage = Usage(input_tokens=frame.prompt_eval_count, output_tokens=frame.eval_count)
        if frame.error:
            self._fail(faults.from_event(self.provider, frame.error))
        message = frame.message
        if message is None:
            return ""
        if message.thinking:
            self.thinks = True
        return message.content or ""
