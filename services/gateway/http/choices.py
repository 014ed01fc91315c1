"""Which values a field may have, for whoever sent another one."""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import inspect

_STEP = re.compile(r"\.([^.\[\]]+)|\[[^\]]*\]")
"""A step of a path as msgspec writes it: into a field, or into each element."""


def choices_at(shape: Any, path: str) -> list[str]:
    """The values that the field at ``path`` (``$.on_busy``) is one of; empty where it is free."""
    kinds = [inspect.type_info(shape)]
    for step in _STEP.finditer(path):
        kinds = [inner for kind in kinds for inner in _inside(kind, step[1])]
    return [str(value) for kind in kinds for each in _each(kind) for value in _values(each)]


def _inside(kind: inspect.Type, field: str | None) -> Iterator[inspect.Type]:
    for each in _each(kind):
        match each:
            case inspect.StructType(fields=fields):
                yield from (known.type for known in fields if known.encode_name == field)
            case inspect.ListType(item_type=item) if field is None:
                yield item
            case inspect.DictType(value_type=value):
                yield value
            case _:
                pass


def _each(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """The kinds that a union is of."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _values(kind: inspect.Type) -> tuple[object, ...]:
    return kind.values if isinstance(kind, inspect.LiteralType) else ()
