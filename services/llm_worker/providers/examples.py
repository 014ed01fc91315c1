"""A value that fits a JSON Schema, for a provider that only pretends to think."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

_EXAMPLE = "An example of the demo provider"
_DEEP = 12
"""Levels after which a schema that contains itself is given its shortest value."""


def as_json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def example(schema: Mapping[str, Any]) -> object:
    """A value that fits, for the schemas that people write; patterns and formats it cannot."""
    return _Examples(schema).of(schema, 0)


class _Examples:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def of(self, schema: Mapping[str, Any], depth: int) -> object:
        if "$ref" in schema:
            return self.of(self._referred(schema["$ref"]), depth + 1) if depth < _DEEP else None
        for settled in ("const", "default"):
            if settled in schema:
                return schema[settled]
        if schema.get("enum"):
            return schema["enum"][0]
        for choices in ("anyOf", "oneOf", "allOf"):
            if schema.get(choices):
                return self.of(schema[choices][0], depth)
        return self._of_kind(schema, depth)

    def _of_kind(self, schema: Mapping[str, Any], depth: int) -> object:
        kind: Any = schema.get("type", "object" if "properties" in schema else "string")
        if not isinstance(kind, str):  # a list of kinds: the first will do
            kind = kind[0]
        match str(kind):
            case "object":
                return self._object(schema, depth)
            case "array":
                item = cast("Mapping[str, Any]", schema.get("items", {}))
                fewest = schema.get("minItems", min(1, schema.get("maxItems", 1)))
                count = fewest if depth < _DEEP else schema.get("minItems", 0)
                return [self.of(item, depth + 1) for _ in range(count)]
            case "integer" | "number":
                return schema.get("minimum", schema.get("maximum", 1))
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _text(schema)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, object]:
        required = schema.get("required", ())
        return {
            name: self.of(part, depth + 1)
            for name, part in schema.get("properties", {}).items()
            if depth < _DEEP or name in required
        }

    def _referred(self, reference: str) -> Mapping[str, Any]:
        """What ``#/$defs/name`` points to."""
        found: Any = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(part, {}) if part else found
        return found


def _text(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    text = _EXAMPLE
    while len(text) < least:
        text += f" {_EXAMPLE}"
    return text if most is None else text[: max(most, 0)]
