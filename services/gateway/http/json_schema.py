"""JSON Schemas of structs, as both descriptions of the API need them.

msgspec makes them; this module adds what it leaves out.  A component is named
after its module and its class (``assistant.SessionView``), because equal names
in two dialects are different things.  The text below a field becomes that
field's description.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, cast

import msgspec

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"


class Schemas:
    """The components of one document, as far as its parts asked for them."""

    def __init__(self, *, draft_7: bool = False) -> None:
        self.components: dict[str, Schema] = {}
        self._finish = _as_draft_7 if draft_7 else _as_it_is

    def of(self, shape: Any) -> Schema:
        """The schema of a type; structs in it become components."""
        (schema,), parts = msgspec.json.schema_components([shape], ref_template="{name}")
        classes = {_msgspec_name(cls): cls for cls in _classes(shape)}
        names = {theirs: name_of(cls) for theirs, cls in classes.items()}
        for theirs, part in parts.items():
            part = self._finish(_renamed(part, names))
            self.components[names[theirs]] = _described(part, classes[theirs])
        return self._finish(_renamed(schema, names))


def name_of(cls: Any) -> str:
    """A component's name: ``assistant.SessionView``, ``assistant.PageOfSessionView``."""
    return f"{_owner(cls.__module__)}.{_class_name(cls, 'Of', 'And')}"


def _owner(module: str) -> str:
    """The dialect that a module belongs to; elsewhere the module's own name."""
    _, _, in_dialects = module.partition(".dialects.")
    return in_dialects.partition(".")[0] or module.rpartition(".")[2]


def _class_name(cls: Any, of: str, also: str, after: str = "") -> str:
    """The name of a class, or of a generic one and of what it is made for."""
    origin = getattr(cls, "__origin__", cls)
    made_for = [_class_name(one, of, also, after) for one in getattr(cls, "__args__", ())]
    return origin.__name__ + (of + also.join(made_for) + after if made_for else "")


def _msgspec_name(cls: Any) -> str:
    # No two structs below one shape have the same name, so this is the short one.
    return re.sub(r"[^\w.\-]", "_", _class_name(cls, "[", ", ", "]"))


def _classes(shape: Any) -> set[Any]:
    """Every struct in a type, and in the types of their fields."""
    found: set[Any] = set()

    def look(at: Any) -> None:
        if isinstance(at, msgspec.inspect.StructType):
            if at.cls in found:
                return
            found.add(at.cls)
        if isinstance(at, msgspec.Struct):  # every type is described by a struct
            for name in at.__struct_fields__:
                look(getattr(at, name))
        elif type(at) is tuple:
            for one in cast("tuple[Any, ...]", at):
                look(one)

    look(msgspec.inspect.type_info(shape))
    return found


def _renamed(part: Any, names: dict[str, str]) -> Any:
    """``part`` with every reference under the component's own name."""
    if isinstance(part, list):
        return [_renamed(one, names) for one in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    found = cast("Schema", part).copy()
    for key, value in found.items():
        if key == "$ref":
            found[key] = PREFIX + names[value]
        elif key == "discriminator":
            tags = {tag: PREFIX + names[theirs] for tag, theirs in value["mapping"].items()}
            found[key] = value | {"mapping": tags}
        else:
            found[key] = _renamed(value, names)
    return found


def _as_it_is(part: Any) -> Any:
    return part


def _as_draft_7(part: Any) -> Any:
    """The same in draft 7, AsyncAPI's: without discriminators, and tuples by another name."""
    if isinstance(part, list):
        return [_as_draft_7(one) for one in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    found = {key: _as_draft_7(value) for key, value in cast("Schema", part).items()}
    if isinstance(found.get("discriminator"), dict):
        del found["discriminator"]
    if isinstance(found.get("prefixItems"), list):
        found["items"] = found.pop("prefixItems")
    return found


# -- descriptions ---------------------------------------------------------------------


def _described(schema: Schema, cls: Any) -> Schema:
    """The component with the texts that stand in the code."""
    if "description" in schema:
        schema["description"] = plain(schema["description"])
    properties: Schema = schema.get("properties", {})
    for field in _fields(cls):
        if _holds_time(field.type):
            for kind in (
                properties[field.encode_name],
                *properties[field.encode_name].get("anyOf", ()),
            ):
                if kind.get("type") == "string":
                    kind["format"] = "date-time"
    for name, text in _texts_of_fields(getattr(cls, "__origin__", cls)).items():
        if name in properties:
            properties[name].setdefault("description", text)
    return schema


def _fields(cls: Any) -> tuple[msgspec.inspect.Field, ...]:
    info = msgspec.inspect.type_info(cls)
    return info.fields if isinstance(info, msgspec.inspect.StructType) else ()


def _holds_time(kind: msgspec.inspect.Type) -> bool:
    """Whether it is a time, which msgspec says only of those that must name their zone."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_holds_time(one) for one in kind.types)
    return isinstance(kind, msgspec.inspect.DateTimeType)


@cache
def _texts_of_fields(cls: type) -> dict[str, str]:
    """What stands below each field of a struct and of those that it extends."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            texts |= dict(_own_texts(base))
    return texts


def _own_texts(cls: type) -> Iterator[tuple[str, str]]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, below in pairwise(body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, plain(text)
            case _:
                pass


def plain(docstring: str) -> str:
    """A docstring as Markdown, without what it says to callers only."""
    text = inspect.cleandoc(docstring).partition("\nRaises:")[0].rstrip()
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text).replace("``", "`")
    paragraphs = text.split("\n\n")
    return "\n\n".join(re.sub(r"\s+", " ", paragraph).strip() for paragraph in paragraphs)
