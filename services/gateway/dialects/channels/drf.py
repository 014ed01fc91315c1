"""The manners of Django REST framework: how fields are refused, lists paged, paths described."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlencode

import msgspec
from msgspec import inspect

from services.gateway.http.requests import MOST
from shared.errors import InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)

REQUIRED = "This field is required."
PAGE_SIZE = 20


# -- fields -----------------------------------------------------------------------


class FieldsInvalid(InvalidRequest):
    """Some fields do not fit; all of them are named at once."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        name, sentences = next(iter(fields.items()))
        super().__init__(sentences[0], path=f"$.{name}")
        self.fields = fields


class Fields(Generic[T]):
    """What a body may hold: a struct's fields, each of which is judged by itself.

    What the struct has no field for is passed over, read-only fields among it.
    """

    def __init__(self, kind: type[T], *, need: Collection[str] = ()) -> None:
        self._kind = kind
        self._all = msgspec.structs.fields(kind)
        self._needed = {field.name for field in self._all if field.required} | set(need)

    def read(self, body: object, *, form: bool = False) -> T:
        """The struct; in a ``form`` numbers are text, and an empty one is none.

        Raises:
            FieldsInvalid: what does not fit, each by name.
        """
        if not isinstance(body, dict):
            kind = type(body).__name__
            sentence = f"Invalid data. Expected a dictionary, but got {kind}."
            raise FieldsInvalid({"non_field_errors": [sentence]})
        values = cast("dict[str, object]", body)
        given: dict[str, Any] = {}
        wrong: dict[str, list[str]] = {}
        for field in self._all:
            value = values.get(field.name, msgspec.UNSET)
            if value is msgspec.UNSET or (form and value == "" and not _takes_text(field.type)):
                if field.name in self._needed:
                    wrong[field.name] = [REQUIRED]
                continue
            try:
                given[field.name] = msgspec.convert(value, field.type, strict=not form)
            except msgspec.ValidationError as error:
                wrong[field.name] = [_sentence(str(error))]
        if wrong:
            raise FieldsInvalid(wrong)
        return self._kind(**given)


def _takes_text(kind: Any) -> bool:
    try:
        msgspec.convert("text", kind)
    except msgspec.ValidationError:
        return False
    return True


_SENTENCES = [
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (r"got `null`", "This field may not be null."),
        (r"of length >= 1|matching regex", "This field may not be blank."),
        (r"of length <= (\d+)", "Ensure this field has no more than {} characters."),
        (r"<= (\d+)", "Ensure this value is less than or equal to {}."),
        (r">= (\d+)", "Ensure this value is greater than or equal to {}."),
        (r"Expected `bool", "Must be a valid boolean."),
        (r"Expected `int", "A valid integer is required."),
        (r"Expected `float", "A valid number is required."),
        (r"Expected `str", "Not a valid string."),
        (r"Invalid enum value '(.*)'", '"{}" is not a valid choice.'),
    )
]
"""What a field is refused with, by what msgspec says of it; the first that fits."""


def _sentence(refusal: str) -> str:
    for pattern, sentence in _SENTENCES:
        if found := pattern.search(refusal):
            return sentence.format(*found.groups())
    return f"{refusal}."


# -- pages ------------------------------------------------------------------------


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a list; one that is not there is not found."""

    page: str = "1"
    """Its number, or `last`."""
    page_size: str = str(PAGE_SIZE)
    """How many; 200 at most. What is no number counts for nothing."""

    @property
    def size(self) -> int:
        return min(number(self.page_size) or PAGE_SIZE, MOST)


def number(text: str) -> int | None:
    """The number from 1 that this is, or None."""
    fits = text.isascii() and text.isdigit() and len(text) < 10
    return int(text) or None if fits else None


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list, by number."""

    count: int
    next: str | None
    previous: str | None
    results: list[T]


def page_view(
    results: list[Any], *, count: int, number: int, size: int, url: str, query: dict[str, str]
) -> Page[Any]:
    """Page ``number`` of a list, with absolute links to its neighbours."""

    def link(page: int) -> str:
        parameters = {**query, "page": str(page)}
        if page == 1:
            del parameters["page"]
        return f"{url}?{urlencode(parameters)}" if parameters else url

    return Page(
        count=count,
        next=link(number + 1) if number * size < count else None,
        previous=link(number - 1) if number > 1 else None,
        results=results,
    )


# -- what a path is ---------------------------------------------------------------

PARSES = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to OPTIONS."""

    name: str
    description: str
    renders: tuple[str, ...]
    parses: tuple[str, ...]
    actions: dict[str, dict[str, Any]]


def metadata(name: str, description: str, bodies: Mapping[str, type[msgspec.Struct]]) -> Metadata:
    """What a path is, and what may be sent to it by each method."""
    return Metadata(
        name=name,
        description=description,
        renders=("application/json",),
        parses=PARSES,
        actions={method: _described(body) for method, body in bodies.items()},
    )


def _described(body: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        field.name: {
            **{name: value for name, value in _kind(field.type).items() if value is not None},
            "required": field.required,
            "read_only": False,
            "label": field.name.replace("_", " ").capitalize(),
        }
        for field in msgspec.structs.fields(body)
    }


def _kind(kind: Any) -> dict[str, Any]:
    info = inspect.type_info(kind)
    if isinstance(info, inspect.UnionType):
        info = next(kind for kind in info.types if not isinstance(kind, inspect.NoneType))
    match info:
        case inspect.LiteralType(values=values):
            choices = [{"value": v, "display_name": str(v).capitalize()} for v in values]
            return {"type": "choice", "choices": choices}
        case inspect.StrType(max_length=most):
            return {"type": "string", "max_length": most}
        case inspect.IntType(ge=least, le=most) | inspect.FloatType(ge=least, le=most):
            name = "integer" if isinstance(info, inspect.IntType) else "float"
            return {"type": name, "min_value": least, "max_value": most}
        case _:
            return {"type": "boolean" if isinstance(info, inspect.BoolType) else "field"}
