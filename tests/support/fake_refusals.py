"""How real servers refuse what they do not take, each in its own words.

A part is what the request has: a schema, files, a parameter, a system message, two
messages of one side in a row, an assistant's message with its thoughts or without.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """What is answered to a request that has the part."""

    part: str
    status: int
    body: dict[str, Any]


def _openai(message: str, param: str | None, code: str | None = None) -> dict[str, Any]:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _vllm(message: str) -> dict[str, Any]:
    kind = "BadRequestError"
    return {"object": "error", "message": message, "type": kind, "param": None, "code": 400}


def _llamacpp(status: int, message: str, kind: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "type": kind}}


def _pydantic(field: str, value: object) -> dict[str, Any]:
    fault = {
        "type": "extra_forbidden",
        "loc": ["body", field],
        "msg": "Extra inputs are not permitted",
        "input": value,
    }
    return {"object": "error", "message": {"detail": [fault]}, "type": "invalid_request_error"}


def _anthropic(message: str) -> dict[str, Any]:
    error = {"type": "invalid_request_error", "message": message}
    return {"type": "error", "error": error, "request_id": "req_1"}


REFUSALS = {
    "openai-schema": Refusal(
        "schema",
        400,
        _openai(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with "
            "this model.",
            None,
        ),
    ),
    "openai-image": Refusal(
        "files",
        400,
        _openai(
            "Invalid content type. image_url is only supported by certain models.",
            "messages.[0].content.[0].type",
        ),
    ),
    "openai-bad-image": Refusal(
        "files",
        400,
        _openai(
            "You uploaded an unsupported image. Please make sure your image is valid.",
            None,
            "invalid_image_format",
        ),
    ),
    "openrouter-image": Refusal(
        "files",
        404,
        {"error": {"message": "No endpoints found that support image input", "code": 404}},
    ),
    "deepseek-schema": Refusal(
        "schema", 400, _openai("This response_format type is unavailable now", None)
    ),
    "deepseek-image": Refusal(
        "files",
        400,
        _openai(
            "Failed to deserialize the JSON body into the target type: messages[0]: unknown "
            "variant `image_url`, expected `text` at line 1 column 120",
            None,
        ),
    ),
    "vllm-schema": Refusal(
        "schema",
        400,
        _vllm(
            "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
            "'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema'}]"
        ),
    ),
    "vllm-grammar": Refusal(
        "schema",
        400,
        _vllm("The provided JSON schema contains features not supported by xgrammar."),
    ),
    "vllm-image": Refusal("files", 400, _vllm("fake-gpt is not a multimodal model")),
    "llamacpp-schema": Refusal(
        "schema",
        400,
        _llamacpp(
            400,
            "Failed to initialize samplers: failed to parse grammar",
            "invalid_request_error",
        ),
    ),
    "llamacpp-image": Refusal(
        "files",
        500,
        _llamacpp(
            500,
            "image input is not supported - hint: if this is unexpected, you may need to "
            "provide the mmproj",
            "server_error",
        ),
    ),
    "fastapi-content": Refusal(
        "files",
        422,
        {
            "detail": [
                {
                    "loc": ["body", "messages", 0, "content"],
                    "msg": "Input should be a valid string",
                    "type": "string_type",
                }
            ]
        },
    ),
    "ollama-schema": Refusal(
        "schema",
        400,
        {"error": 'invalid format: "{}"; expected "json" or a valid JSON Schema object'},
    ),
    "ollama-old-schema": Refusal(
        "schema",
        400,
        {
            "error": "json: cannot unmarshal object into Go struct field ChatRequest.format of "
            "type string"
        },
    ),
    "ollama-image": Refusal(
        "files", 500, {"error": "this model is missing data required for image input"}
    ),
    "anthropic-schema": Refusal(
        "schema", 400, _anthropic("output_config.format: Extra inputs are not permitted")
    ),
    "anthropic-pdf": Refusal(
        "files", 400, _anthropic("'claude-haiku-5-5' does not support PDF input.")
    ),
    "anthropic-bad-pdf": Refusal(
        "files",
        400,
        _anthropic("messages.0.content.0.pdf.source.base64.data: The PDF specified was not valid."),
    ),
    "anthropic-too-large": Refusal(
        "files",
        413,
        {
            "type": "error",
            "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"},
        },
    ),
    "openai-max-tokens": Refusal(
        "max_tokens",
        400,
        _openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
    ),
    "mistral-max-completion-tokens": Refusal(
        "max_completion_tokens", 422, _pydantic("max_completion_tokens", 9)
    ),
    "openai-temperature": Refusal(
        "temperature",
        400,
        _openai(
            "Unsupported value: 'temperature' does not support 0.7 with this model. Only the "
            "default (1) value is supported.",
            "temperature",
            "unsupported_value",
        ),
    ),
    "kimi-temperature": Refusal(
        "temperature", 400, _openai("invalid temperature: only 1 is allowed for this model", None)
    ),
    "azure-stream-options": Refusal(
        "stream_options",
        400,
        _openai("Unrecognized request argument supplied: stream_options", None),
    ),
    "mistral-stream-options": Refusal(
        "stream_options", 422, _pydantic("stream_options", {"include_usage": True})
    ),
    "vllm-system": Refusal("system", 400, _vllm("System role not supported")),
    "llamacpp-system": Refusal(
        "system",
        500,
        _llamacpp(
            500,
            "Jinja Exception: System role not supported at row 1, column 30",
            "server_error",
        ),
    ),
    "google-system": Refusal(
        "system",
        400,
        {
            "error": {
                "code": 400,
                "message": "Developer instruction is not enabled for models/gemma-3-27b-it",
                "status": "INVALID_ARGUMENT",
            }
        },
    ),
    "openai-system": Refusal(
        "system",
        400,
        _openai(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "messages[0].role",
            "unsupported_value",
        ),
    ),
    "mistral-system": Refusal(
        "system",
        400,
        _vllm("Conversation roles must alternate user/assistant/user/assistant/..."),
    ),
    "vllm-turns": Refusal(
        "turns",
        400,
        _vllm(
            "After the optional system message, conversation roles must alternate "
            "user/assistant/user/assistant/..."
        ),
    ),
    "deepseek-thoughts": Refusal(
        "no_thoughts",
        400,
        _openai(
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
            None,
            "invalid_request_error",
        ),
    ),
    "groq-thoughts": Refusal(
        "thoughts",
        400,
        _openai(
            "'messages.1' : for 'role:assistant' the following must be satisfied"
            "[('messages.1' : property 'reasoning_content' is unsupported)]",
            None,
        ),
    ),
    "anthropic-thoughts": Refusal(
        "thoughts",
        400,
        _anthropic("messages.1.content.0: Invalid `signature` in `thinking` block"),
    ),
}


def refusal_of(names: str, body: dict[str, Any]) -> Refusal | None:
    """The first of ``names`` (with commas between) whose part the request has."""
    named = [REFUSALS[name] for name in names.split(",") if name]
    return next((refusal for refusal in named if _PARTS[refusal.part](body)), None)


def _has_schema(body: dict[str, Any]) -> bool:
    return bool({"response_format", "format", "output_config"} & body.keys())


def _has_files(body: dict[str, Any]) -> bool:
    for message in body.get("messages", []):
        content = message.get("content")
        parts: list[dict[str, Any]] = content if isinstance(content, list) else []
        if message.get("images") or any(part.get("type") != "text" for part in parts):
            return True
    return False


def _has_system(body: dict[str, Any]) -> bool:
    return bool(body.get("system")) or any(m["role"] == "system" for m in body["messages"])


def _has_no_turns(body: dict[str, Any]) -> bool:
    """What a strict chat template raises an error at."""
    roles = [m["role"] for m in body["messages"] if m["role"] != "system"]
    due = ["user", "assistant"] * len(roles)
    return roles != due[: len(roles)] or not roles or roles[-1] != "user"


def _thoughts(body: dict[str, Any]) -> list[bool]:
    """Whether each of the assistant's messages has its thoughts with it."""
    replies = [m for m in body["messages"] if m["role"] == "assistant"]
    return [
        "reasoning_content" in m or "thinking" in m or _has_blocks(m.get("content"))
        for m in replies
    ]


def _has_blocks(content: object) -> bool:
    return isinstance(content, list) and any(part.get("type") == "thinking" for part in content)


_PARTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "schema": _has_schema,
    "files": _has_files,
    "system": _has_system,
    "turns": _has_no_turns,
    "thoughts": lambda body: any(_thoughts(body)),
    "no_thoughts": lambda body: not all(_thoughts(body)),
    **{
        name: lambda body, name=name: name in body
        for name in ("max_tokens", "max_completion_tokens", "temperature", "stream_options")
    },
}
