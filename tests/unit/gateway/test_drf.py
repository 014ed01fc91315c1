"""Django REST framework's manners: what fields are refused with, how pages are linked."""

from typing import Any

import msgspec
import pytest

from services.gateway.dialects.channels.drf import FieldsInvalid, metadata, page_view
from services.gateway.dialects.channels.presets_wire import (
    NEW_PRESET,
    PRESET_CHANGE,
    PRESET_REPLACEMENT,
    NewPreset,
    PresetChange,
)
from services.gateway.dialects.channels.wire import NEW_SESSION, SESSION_CHANGE, SessionChange


def refused(fields: Any, body: object, **options: bool) -> dict[str, list[str]]:
    with pytest.raises(FieldsInvalid) as caught:
        fields.read(body, **options)
    return caught.value.fields


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", None, "This field may not be null."),
        ("name", "", "This field may not be blank."),
        ("name", " \t", "This field may not be blank."),
        ("name", 5, "Not a valid string."),
        ("name", "x" * 201, "Ensure this field has no more than 200 characters."),
        ("temperature", "warm", "A valid number is required."),
        ("temperature", 2.1, "Ensure this value is less than or equal to 2."),
        ("temperature", -1, "Ensure this value is greater than or equal to 0."),
        ("max_tokens", 0, "Ensure this value is greater than or equal to 1."),
        ("max_tokens", 1.5, "A valid integer is required."),
        ("max_tokens", 2**31, "Ensure this value is less than or equal to 2147483647."),
        ("is_public", "maybe", "Must be a valid boolean."),
        ("system_prompt", [], "Not a valid string."),
    ],
)
def test_a_field_that_does_not_fit_is_refused_in_the_frameworks_words(
    field: str, value: object, sentence: str
):
    assert refused(NEW_PRESET, {"name": "Editor", field: value}) == {field: [sentence]}


def test_a_word_that_is_no_choice_is_named():
    assert refused(NEW_SESSION, {"on_busy": "dance"}) == {
        "on_busy": ['"dance" is not a valid choice.']
    }


def test_all_fields_that_do_not_fit_are_named_at_once():
    wrong = refused(NEW_PRESET, {"temperature": 9, "max_tokens": "many", "model": "demo"})

    assert wrong == {
        "name": ["This field is required."],
        "temperature": ["Ensure this value is less than or equal to 2."],
        "max_tokens": ["A valid integer is required."],
    }


@pytest.mark.parametrize(
    ("body", "kind"), [([], "list"), ("x", "str"), (3, "int"), (None, "NoneType")]
)
def test_a_body_that_is_no_object_is_no_fields_fault(body: object, kind: str):
    assert refused(NEW_PRESET, body) == {
        "non_field_errors": [f"Invalid data. Expected a dictionary, but got {kind}."]
    }


def test_what_is_read_only_or_unknown_is_passed_over():
    change = SESSION_CHANGE.read({"id": "mine", "created_at": 5, "message_count": 9, "nonsense": 1})

    assert change == SessionChange()


def test_null_and_left_out_are_two_things_in_a_change():
    assert PRESET_CHANGE.read({"model": None}) == PresetChange(model=None)
    assert PRESET_CHANGE.read({}) == PresetChange()


def test_a_replacement_must_have_what_a_new_one_must_have():
    assert refused(PRESET_REPLACEMENT, {"model": "demo"}) == {"name": ["This field is required."]}
    assert PRESET_REPLACEMENT.read({"name": "Poet"}) == PresetChange(name="Poet")


def test_a_form_has_numbers_and_truths_in_words_and_an_empty_one_is_none():
    form = {"name": "7", "temperature": "0.5", "max_tokens": "", "is_public": "true", "model": ""}

    preset = NEW_PRESET.read(form, form=True)

    assert preset == NewPreset(name="7", temperature=0.5, is_public=True, model="")
    assert refused(NEW_PRESET, {"name": "", "temperature": "warm"}, form=True) == {
        "name": ["This field may not be blank."],
        "temperature": ["A valid number is required."],
    }


def test_words_are_no_numbers_outside_a_form():
    assert refused(NEW_PRESET, {"name": "Editor", "max_tokens": "5"}) == {
        "max_tokens": ["A valid integer is required."]
    }


def test_a_page_knows_its_neighbours():
    def page(number: int) -> tuple[str | None, str | None]:
        made = page_view([], count=5, number=number, size=2, url="u", query={"a": "b c"})
        return made.previous, made.next

    assert [page(1), page(2), page(3)] == [
        (None, "u?a=b+c&page=2"),
        ("u?a=b+c", "u?a=b+c&page=3"),
        ("u?a=b+c&page=2", None),
    ]


def test_a_path_is_described_with_the_kind_and_the_bounds_of_each_field():
    described = metadata("Preset List", "Choices", {"POST": NewPreset})

    posted = msgspec.to_builtins(described)["actions"]["POST"]
    assert posted["name"] == {
        "type": "string",
        "max_length": 200,
        "required": True,
        "read_only": False,
        "label": "Name",
    }
    assert posted["temperature"] == {
        "type": "float",
        "min_value": 0.0,
        "max_value": 2.0,
        "required": False,
        "read_only": False,
        "label": "Temperature",
    }
    assert posted["is_public"]["type"] == "boolean"
    changed = metadata("Session", "", {"PUT": SessionChange}).actions["PUT"]
    assert [c["value"] for c in changed["on_busy"]["choices"]] == ["interrupt", "queue", "reject"]
    assert changed["title"]["type"] == "string"
    assert "max_length" not in changed["system_prompt"]
