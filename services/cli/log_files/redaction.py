"""Take people's words out of facts and leave their shape, so that a fault can be shown (pure).

Every text that is not known to be natterlog's own loses its letters; what a
field of a later version holds does so too, until it is named below.  A letter
becomes another one that depends on its place alone.  So a piece of a text is
redacted as the same piece of the redacted text, a splice or a doubling stays
visible, and redacting twice is redacting once.
"""

import hashlib
import re
import unicodedata
from typing import Any, TypeVar, cast

import msgspec

from shared import events as e

S = TypeVar("S", bound=msgspec.Struct)

_LETTERS = "etaoinsrhldcumfpgwybvkxjqz"
_BY_WIDTH = {2: "é", 3: "語", 4: "🙂"}
"""What stands for a character that is no ASCII, by its bytes in UTF-8."""

KEPT: dict[type, frozenset[str]] = {
    e.Fault: frozenset({"code"}),
    e.Turn: frozenset(
        {
            *("user_message_id", "assistant_message_id", "parent_id", "attachments"),
            *("model", "context", "edits"),
        }
    ),
    e.PastMessage: frozenset(
        {"id", "parent_id", "role", "status", "model", "provider", "attachments"}
    ),
    e.Try: frozenset({"code"}),
    e.History: frozenset({"leaf"}),
    e.PromptSource: frozenset({"provider", "model", "message_ids", "go_on"}),
    e.SentFile: frozenset({"id", "message_id", "as_it_is", "missing"}),
    e.Try: frozenset({"code"}),
    e.FileRef: frozenset({"id", "kind", "media_type"}),
    e.PipelineStep: frozenset({"name"}),
    e.PipelinePlan: frozenset({"pipeline"}),
    e.StepResult: frozenset({"step"}),
    e.Ask: frozenset({"step"}),
    e.SessionCreated: frozenset({"model", "on_busy", "nonce"}),
    e.SessionUpdated: frozenset({"model", "on_busy", "status", "nonce"}),
    e.BranchChosen: frozenset({"leaf", "nonce"}),
    e.MessageRated: frozenset({"message_id", "rating", "nonce"}),
    e.RunWaiting: frozenset({"nonce"}),
    e.RunScheduled: frozenset({"nonce"}),
    e.TodoChat: frozenset({"nonce"}),
    e.TodoProcess: frozenset({"step", "nonce"}),
    e.TodoGenerate: frozenset({"nonce"}),
    e.RunClaimed: frozenset({"worker", "nonce"}),
    e.CancelRequested: frozenset({"nonce"}),
    e.RunEnded: frozenset({"status", "model", "provider", "nonce"}),
}
"""The texts that are ids, names of the operator's own, or words of natterlog's; no others are."""

OWN_WORDS = frozenset(
    {
        # modes that natterlog itself gives, or takes for something of its own
        *("general", "adhoc", "document", "content", "file"),
        *("up", "down"),
        # why an attempt ended, why a run was cancelled
        *("its worker was lost", "the provider failed", "asked by the user"),
        *("its answer was taken", "its answer missed the schema"),
        *("its processor was lost", "the file was read"),
        *("another message came", "the session was deleted"),
        # how providers say that they stopped
        *("end_turn", "max_tokens", "stop_sequence", "stop", "length", "tool_use", "refusal"),
        *("content_filter", "tool_calls", "max_length"),
    }
)
_SCHEMA_WORDS = re.compile(r"object|array|string|number|integer|boolean|null")
_SHAPE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Mc", "Me"})
"""Categories of characters that are no word, and that a fault may depend on."""
_NO_DIGEST = "0" * 64


def redacted_text(text: str) -> str:
    """As many code points, bytes, spaces, lines and marks as ``text``, and no word of it."""
    return "".join(_other(character, place) for place, character in enumerate(text))


def redacted(fact: S) -> S:
    """The fact without anybody's words; its digests are those of what is left."""
    return cast("S", _struct(fact))


def _struct(value: msgspec.Struct) -> msgspec.Struct:
    kept = KEPT.get(type(value), frozenset())
    changes: dict[str, Any] = {}
    for field in value.__struct_fields__:
        if field not in kept:
            changes[field] = _value(getattr(value, field))
    match value:
        case e.RunEnded():
            changes["sha256"] = hashlib.sha256(changes["text"].encode()).hexdigest()
        case e.FileRef():
            changes["sha256"] = _NO_DIGEST  # the file's own would tell what is in it
        case e.Thoughts():
            changes["blocks"] = []  # signed by their provider: changed they are no use
        case e.Turn():
            changes["idempotency_digest"] = None  # that of what was asked would, too
        case _:
            pass
    return msgspec.structs.replace(value, **changes)


def _value(value: Any) -> Any:
    match value:
        case str():
            return value if value in OWN_WORDS else redacted_text(value)
        case msgspec.Struct():
            return _struct(value)
        case list():
            return [_value(each) for each in cast("list[Any]", value)]
        case tuple():
            return tuple(_value(each) for each in cast("tuple[Any, ...]", value))
        case dict():
            # names of inputs, keywords and properties of a schema: the operator's own
            return {
                name: _entry(name, each) for name, each in cast("dict[str, Any]", value).items()
            }
        case _:
            return value


def _entry(name: str, value: Any) -> Any:
    if name == "type" and isinstance(value, str) and _SCHEMA_WORDS.fullmatch(value):
        return value
    if name == "required" and isinstance(value, list):
        return cast("list[Any]", value)
    return _value(value)


def _other(character: str, place: int) -> str:
    if character.isascii():
        if not character.isalnum():
            return character
        if character.isdigit():
            return str((place + 1) % 10)
        letter = _LETTERS[(place * 7 + place // 26 * 3) % 26]
        return letter.upper() if character.isupper() else letter
    if unicodedata.category(character) in _SHAPE:
        return character
    return _BY_WIDTH[len(character.encode())]
