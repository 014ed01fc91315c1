"""Named pipelines, from files that people write: ``docs/pipelines.md`` says how.

A run carries a copy of its steps (:class:`shared.events.PipelinePlan`), so only
who accepts jobs ever reads these files.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import jsonschema.exceptions
import msgspec
from jsonschema import Draft202012Validator

from shared.events import PipelineStep
from shared.settings import BadSetting, Settings
from shared.templates import names_in

OWN = Path(__file__).with_name("content.toml")
"""natterlog's own pipeline, to be copied and changed."""
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A named list of steps, and what a client has to give."""

    name: str
    title: str
    inputs: list[str]
    steps: list[PipelineStep]


class _Step(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    template: str
    system: str | None = None
    schema: str | None = None
    """JSON, because TOML has no good words for it."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    title: str
    inputs: list[str]
    steps: list[_Step]


class BadPipeline(BadSetting):
    """A pipeline's file cannot be used; the message names the file and the fault."""


def load(settings: Settings) -> dict[str, Pipeline]:
    """Every pipeline by name: natterlog's own, then those of ``NATTERLOG_PIPELINES_DIR``.

    A file there with the name of natterlog's own replaces it.

    Raises:
        BadSetting: the directory or one of its files cannot be used.
    """
    paths = [OWN]
    if settings.pipelines_dir is not None:
        if not settings.pipelines_dir.is_dir():
            raise BadSetting(
                f"NATTERLOG_PIPELINES_DIR is {str(settings.pipelines_dir)!r}: no such directory"
            )
        paths += sorted(settings.pipelines_dir.glob("*.toml"))
    found = [read(path) for path in paths]
    return {pipeline.name: pipeline for pipeline in found}


def read(path: Path) -> Pipeline:
    """The pipeline in a file.

    Raises:
        BadPipeline: it is none.
    """
    try:
        written = msgspec.convert(tomllib.loads(path.read_text()), _File)
        steps = [_step(step) for step in written.steps]
        _check(written, steps)
    except (OSError, ValueError) as error:  # msgspec's and TOML's errors are ValueErrors
        raise BadPipeline(f"The pipeline {path} cannot be used: {error}") from error
    return Pipeline(name=written.name, title=written.title, inputs=written.inputs, steps=steps)


def _step(step: _Step) -> PipelineStep:
    return PipelineStep(
        name=step.name,
        template=step.template.strip(),
        system=step.system.strip() if step.system else None,
        schema=None if step.schema is None else _schema(step.name, step.schema),
    )


def _schema(step: str, text: str) -> dict[str, Any]:
    try:
        schema = msgspec.json.decode(text, type=dict[str, Any])
        Draft202012Validator.check_schema(schema)  # pyright: ignore[reportUnknownMemberType]
    except msgspec.DecodeError as error:
        raise ValueError(f"the schema of {step} is no JSON object: {error}") from error
    except jsonschema.exceptions.SchemaError as error:
        raise ValueError(f"the schema of {step} is no JSON Schema: {error.message}") from error
    return schema


def _check(written: _File, steps: list[PipelineStep]) -> None:
    """A template may name the inputs and the steps before it, and nothing else."""
    names = [written.name, *written.inputs, *(step.name for step in steps)]
    for name in names:
        msgspec.convert(name, _Name)
    if not steps:
        raise ValueError("it has no steps")
    if len(set(names[1:])) < len(names) - 1:
        raise ValueError("two of its inputs and steps have the same name")
    known = set(written.inputs)
    for step in steps:
        unknown = names_in(step.template) - known
        if unknown:
            raise ValueError(f"the template of {step.name} names {{{min(unknown)}}}, unknown there")
        known.add(step.name)
