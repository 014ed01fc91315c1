"""Answers that must be JSON of a certain form, and examples of such."""

from typing import Any

import pytest

from services.llm_worker.answers import Missed, checked, schema_instruction
from services.llm_worker.providers.base import Prompt, PromptMessage
from services.llm_worker.providers.demo import Demo
from services.llm_worker.providers.examples import as_json, example
from shared.pipelines import load
from shared.settings import Settings
from tests.support.providers import reply_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}, "why": {"type": "string"}},
    "required": ["good"],
    "additionalProperties": False,
}
SCHEMAS: list[dict[str, Any]] = [
    SCHEMA,
    {"type": "array", "items": {"type": "integer", "minimum": 3}, "minItems": 2},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": ["string", "null"], "minLength": 100, "maxLength": 120},
    {"enum": ["low", "high"]},
    {"const": {"a": 1}},
    {"anyOf": [{"type": "null"}, {"type": "string"}]},
    {"properties": {"deep": {"$ref": "#/$defs/leaf"}}, "$defs": {"leaf": {"type": "number"}}},
    {
        "type": "object",
        "properties": {"more": {"type": "array", "items": {"$ref": "#"}}},
    },
    *(
        step.schema
        for pipeline in load(Settings()).values()
        for step in pipeline.steps
        if step.schema is not None
    ),
]


@pytest.mark.parametrize(
    "answer",
    [
        '{"good": true}',
        ' \n{"good": true}\n',
        '```json\n{"good": true}\n```',
        '```\n{"good": true}\n```',
    ],
)
def test_json_that_fits_is_the_answer(answer: str):
    assert checked(answer, SCHEMA) == '{"good": true}'


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Certainly! I would say yes.", "it is no JSON"),
        ('Here it is: {"good": true}', "it is no JSON"),
        ("", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ('{"good": "yes"}', r"\$\.good: 'yes' is not of type 'boolean'"),
        ("{}", r"\$: 'good' is a required property"),
        ('{"good": true, "bad": 1}', "'bad' was unexpected"),
    ],
    ids=lambda text: text[:20],
)
def test_a_miss_is_named_by_its_place(answer: str, fault: str):
    with pytest.raises(Missed, match=fault):
        checked(answer, SCHEMA)


def test_a_fault_is_told_in_a_few_words():
    with pytest.raises(Missed) as missed:
        checked(as_json({"good": "x" * 10_000}), SCHEMA)

    assert len(str(missed.value)) < 400


def test_a_reference_to_elsewhere_is_never_fetched():
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}

    with pytest.raises(Missed, match=r"127\.0\.0\.1"):
        checked("{}", schema)


def test_a_model_is_told_the_schema_in_a_fence():
    assert schema_instruction({"const": "```"}).endswith('````json\n{\n  "const": "```"\n}\n````')


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: as_json(schema)[:60])
def test_an_example_fits_its_schema(schema: dict[str, Any]):
    checked(as_json(example(schema)), schema)


async def test_the_demo_answers_what_was_asked_for():
    prompt = Prompt(model="demo", messages=[PromptMessage("user", "hello")], schema=SCHEMA)

    text, _ = await reply_of(Demo(rate=0), prompt)

    assert checked(text, SCHEMA)
