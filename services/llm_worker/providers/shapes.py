"""JSON of other shapes than documented: whatever of it can be understood."""

import json
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin

import msgspec

S = TypeVar("S", bound=msgspec.Struct)
Object = dict[str, Any]

NOTHING = msgspec.Raw()
"""A field for JSON of any kind that is not there."""
MANY_VALUES = 250_000
"""Objects and arrays in one piece of JSON; each costs many times the bytes it is written in."""
LONG = 1024 * 1024
"""Bytes above which JSON is looked at before it is decoded."""
MOST_ROWS = 2_000
"""Entries of a list that are looked at."""


def as_object(value: object) -> Object | None:
    """``value`` if it is an object."""
    return cast("Object", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[Any] | None:
    """``value`` if it is a list."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def alone(value: object) -> object:
    """What stands alone in a list, as some servers wrap their errors."""
    entries = as_list(value)
    return entries[0] if entries is not None and len(entries) == 1 else value


def is_bomb(data: bytes) -> bool:
    """Whether decoding would take far more memory than the bytes do."""
    return len(data) > LONG and data.count(b"{") + data.count(b"[") > MANY_VALUES


def raw(value: object) -> msgspec.Raw:
    """A decoded value as JSON again; lone surrogates stay escaped."""
    return msgspec.Raw(json.dumps(value).encode())


def shaped(data: Object, kind: type[S]) -> tuple[S, bool]:
    """``data`` as a ``kind``, and whether some of it had to be left out for that.

    A field that does not fit gets its default; of a list the entries that fit are kept.
    """
    fields: Object = {}
    lost = False
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in data:
            continue
        value, fits = _fitting(data[field.encode_name], field.type)
        lost = lost or not fits
        if value is not _UNFIT:
            fields[field.name] = value
    return kind(**fields), lost


_UNFIT: Any = object()


def _fitting(value: Any, kind: Any) -> tuple[Any, bool]:
    if kind is msgspec.Raw:
        return raw(value), True
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    fields, entries = as_object(value), as_list(value)
    for option in options:
        if fields is not None and _is_struct(option):
            found, lost = shaped(fields, option)
            return found, not lost
        if entries is not None and get_origin(option) is list:
            (entry,) = get_args(option)
            fitted = [_fitting(one, entry) for one in entries]
            kept = [found for found, _ in fitted if found is not _UNFIT]
            return kept, all(fits for _, fits in fitted)
    try:
        return msgspec.convert(value, kind), True
    except msgspec.ValidationError:
        return _UNFIT, False


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


class Parts(NamedTuple):
    """The text, thoughts and refusal in a content, and whether it held anything else."""

    text: str = ""
    thought: str | None = None
    refusal: str | None = None
    strange: bool = False


def parts(content: object) -> Parts:
    """What a content says: a text, one part, or a list of parts of several kinds."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    strange = False
    for kind, piece in _pieces(content):
        match kind:
            case "text":
                texts.append(piece)
            case "thought":
                thoughts.append(piece)
            case "refusal":
                refusals.append(piece)
            case _:
                strange = True
    return Parts(
        "".join(texts),
        "".join(thoughts) if thoughts else None,
        "".join(refusals) if refusals else None,
        strange,
    )


def text_in(value: object) -> str | None:
    """All text in a value that should have been a text, whatever its kind; None: there is none."""
    found = [piece for kind, piece in _pieces(value) if kind]
    return "".join(found) if found else None


_THOUGHTS = ("thinking", "reasoning", "thought", "summary")


def _pieces(content: object, within: str = "text") -> Iterator[tuple[str, str]]:
    """(kind, text) of everything in a content; the kind is empty for what is no text."""
    if content is None:
        return
    if isinstance(content, str):
        yield within, content
    elif (several := as_list(content)) is not None:
        for part in several:
            yield from _pieces(part, within)
    elif (part := as_object(content)) is not None:
        yield from _part(part, within)
    else:
        yield "", ""


def _part(part: Object, within: str) -> Iterator[tuple[str, str]]:
    kind = part.get("type")
    name = kind if isinstance(kind, str) else ""
    if name == "refusal":
        yield from _pieces(part.get("refusal"), "refusal")
        return
    if any(word in name for word in _THOUGHTS):
        within = "thought"
    for key in ("text", "thinking", "reasoning", "summary", "content", "value"):
        if part.get(key) is not None:
            yield from _pieces(part[key], within)
            return
    if name not in ("text", "reference"):  # a reference has no text to show
        yield "", ""


def rows(body: bytes, *keys: str) -> list[Object] | None:
    """The objects of a list, or of the first of ``keys`` that holds one; None: there is no list.

    Lists that nobody can look through are cut.
    """
    if is_bomb(body):
        return None
    try:
        data: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if (fields := as_object(data)) is not None:
        data = next((fields[key] for key in keys if as_list(fields.get(key)) is not None), None)
    if (entries := as_list(data)) is None:
        return None
    return [row for row in map(as_object, entries[:MOST_ROWS]) if row is not None]
