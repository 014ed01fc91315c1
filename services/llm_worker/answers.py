"""Answers that must be JSON of a certain form: the instruction for the model, and the check."""

import re
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import relevance
from referencing import Registry
from referencing.exceptions import Unresolvable

from shared.templates import fence

_LONGEST = 300
_FENCED = re.compile(r"^```[a-z]*\n(.*)\n```$", re.DOTALL | re.IGNORECASE)


class Missed(Exception):
    """An answer does not fit its schema; the message names the place."""


def schema_instruction(schema: dict[str, Any]) -> str:
    """The instruction to answer with JSON that fits ``schema``, as text for any model."""
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    return (
        "Answer with one JSON value that fits this JSON Schema, and with nothing else: no words "
        f"before or after it.\n\n{fence(text, 'json')}"
    )


def checked(answer: str, schema: dict[str, Any]) -> str:
    """The JSON in ``answer``, which fits ``schema``; a fence around it is forgiven.

    Raises:
        Missed: it is no JSON, or does not fit.
    """
    text = answer.strip()
    if fenced := _FENCED.match(text):
        text = fenced[1].strip()
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Missed(f"it is no JSON ({_short(str(error))}).") from error
    # an empty registry: a reference to elsewhere is never fetched
    validator: Any = Draft202012Validator(schema, registry=Registry[Any]())
    try:
        faults: list[Any] = sorted(validator.iter_errors(value), key=relevance)
    except Unresolvable as error:
        raise Missed(f"the schema refers to {error.ref}, which is not in it.") from error
    if faults:
        raise Missed(f"{faults[-1].json_path}: {_short(faults[-1].message)}.")
    return text


def _short(text: str) -> str:
    return f"{text[:_LONGEST]}…" if len(text) > _LONGEST else text
