"""How real servers refuse a schema or a file that they do not take, each in its own words."""

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
}


def refusal_of(names: str, body: dict[str, Any]) -> Refusal | None:
    """The first of ``names`` (with commas between) whose part the request has."""
    parts = {"schema": _has_schema(body), "files": _has_files(body)}
    told = [REFUSALS[name] for name in names.split(",") if name]
    return next((refusal for refusal in told if parts[refusal.part]), None)


def _has_schema(body: dict[str, Any]) -> bool:
    return bool({"response_format", "format", "output_config"} & body.keys())


def _has_files(body: dict[str, Any]) -> bool:
    for message in body.get("messages", []):
        content = message.get("content")
        parts: list[dict[str, Any]] = content if isinstance(content, list) else []
        if message.get("images") or any(part.get("type") != "text" for part in parts):
            return True
    return False
