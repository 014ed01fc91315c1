"""Pipelines are files: natterlog's own, and those that people write."""

from pathlib import Path

import pytest

from shared.events import PipelineStep
from shared.pipelines import OWN, BadPipeline, load, read
from shared.settings import BadSetting, Settings

MINE = """
name = "mine"
title = "Mine"
inputs = ["topic"]
[[steps]]
name = "one"
template = "Think of {topic}."
schema = '{"type": "object"}'
[[steps]]
name = "two"
system = "Be brief."
template = "Write about {topic}: {one}"
"""


def written(directory: Path, text: str, name: str = "mine.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_natterlogs_own_has_the_steps_that_its_clients_know():
    (pipeline,) = load(Settings()).values()

    assert (pipeline.name, pipeline.inputs) == ("content", ["topic", "query", "platform"])
    steps = {step.name: step.schema for step in pipeline.steps}
    assert list(steps) == ["keywords", "content_generation", "compliance_check"]
    strategy, text, compliance = steps.values()
    assert strategy is not None
    assert list(strategy["properties"]) == ["keywords", "audience", "tone", "hooks", "hashtags"]
    assert text is None
    assert compliance is not None
    assert list(compliance["properties"]) == ["approved", "issues", "disclaimer"]


def test_a_file_of_ones_own_is_loaded_beside_it(tmp_path: Path):
    written(tmp_path, MINE)

    found = load(Settings(pipelines_dir=tmp_path))

    assert list(found) == ["content", "mine"]
    assert found["mine"].steps == [
        PipelineStep(name="one", template="Think of {topic}.", schema={"type": "object"}),
        PipelineStep(name="two", template="Write about {topic}: {one}", system="Be brief."),
    ]


def test_a_copy_replaces_natterlogs_own(tmp_path: Path):
    written(tmp_path, OWN.read_text().replace("A post for a social platform", "Better"))

    found = load(Settings(pipelines_dir=tmp_path))

    assert [(p.name, p.title) for p in found.values()] == [("content", "Better")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "mine"', 'name = "My own"'),
        ('name = "mine"', ""),
        ('name = "two"', 'name = "one"'),
        ('name = "two"', 'name = "topic"'),
        ("{topic}: {one}", "{topic}: {two}"),
        ("Think of {topic}", "Think of {two}"),
        ('{"type": "object"}', '{"type": "nonsense"}'),
        ('{"type": "object"}', "no JSON"),
        ('{"type": "object"}', "[]"),
        ('system = "Be brief."', 'sistem = "Be brief."'),
        ("[[steps]]", "[[steps"),
        (MINE[MINE.index("[[steps]]") :], "steps = []"),
    ],
    ids=str,
)
def test_a_file_with_a_fault_is_named(tmp_path: Path, old: str, new: str):
    path = written(tmp_path, MINE.replace(old, new))

    with pytest.raises(BadPipeline, match=r"mine\.toml"):
        read(path)


def test_a_directory_that_is_not_there_is_named_by_its_variable(tmp_path: Path):
    with pytest.raises(BadSetting, match="NATTERLOG_PIPELINES_DIR"):
        load(Settings(pipelines_dir=tmp_path / "none"))
