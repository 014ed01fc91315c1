"""Replace the letters of all texts in facts, and keep their shape, to show a fault (pure).

Every text is redacted that is not known to be natterlog's own, also in fields of later
versions, until they are named below.  A letter is replaced by one that depends on its
position alone.  So a part of a text, redacted, is the same part of the redacted text: a
splice or a doubling stays visible, and redacting twice changes nothing more.
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
"""The substitute of a character outside ASCII, by its length in UTF-8."""

KEPT: dict[type, frozenset[str]] = {
    e.Fact: frozenset({"nonce"}),  # of every fact
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
    e.FileRef: frozenset({"id", "kind", "media_type"}),
    e.PipelineStep: frozenset({"name"}),
    e.PipelinePlan: frozenset({"pipeline"}),
    e.StepResult: frozenset({"step"}),
    e.StepPrompt: frozenset({"step"}),
    e.SessionCreated: frozenset({"model", "on_busy"}),
    e.SessionUpdated: frozenset({"model", "on_busy", "status"}),
    e.BranchChosen: frozenset({"leaf"}),
    e.MessageRated: frozenset({"message_id", "rating"}),
    e.TodoProcess: frozenset({"step"}),
    e.RunClaimed: frozenset({"worker"}),
    e.RunEnded: frozenset({"status", "model", "provider"}),
}
"""The fields that hold ids, names that the operator gave, or texts of natterlog's own."""

OWN_TEXTS = frozenset(
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
_SCHEMA_TYPES = re.compile(r"object|array|string|number|integer|boolean|null")
_SHAPE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Mc", "Me"})
"""Categories of characters that carry no meaning, and that a fault may depend on."""
_NO_DIGEST = "0" * 64


def redacted_text(text: str) -> str:
    """A text of the same code points, bytes, spaces, lines and marks, with other letters."""
    return "".join(_stand_in(character, position) for position, character in enumerate(text))


def redacted(fact: S) -> S:
    """The fact with its texts redacted; its digests are those of the redacted texts."""
    return cast("S", _struct(fact))


def _struct(value: msgspec.Struct) -> msgspec.Struct:
    kept = KEPT.get(type(value), frozenset())
    if isinstance(value, e.Fact):
        kept |= KEPT[e.Fact]
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
            return value if value in OWN_TEXTS else redacted_text(value)
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
    if name == "type" and isinstance(value, str) and _SCHEMA_TYPES.fullmatch(value):
        return value
    if name == "required" and isinstance(value, list):
        return cast("list[Any]", value)
    return _value(value)


def _stand_in(character: str, position: int) -> str:
    if character.isascii():
        if not character.isalnum():
            return character
        if character.isdigit():
            return str((position + 1) % 10)
        letter = _LETTERS[(position * 7 + position // 26 * 3) % 26]
        return letter.upper() if character.isupper() else letter
    if unicodedata.category(character) in _SHAPE:
        return character
    return _BY_WIDTH[len(character.encode())]
