"""Plans, results and asks for tests of what comes of them."""

from typing import Any

from shared.events import DocumentPlan, FileRef, PipelinePlan, PipelineStep, StepPrompt, StepResult
from shared.ids import new_id


def a_file(**fields: Any) -> FileRef:
    known = {
        "id": new_id(),
        "name": "report.txt",
        "kind": "text",
        "media_type": "text/plain",
        "size": 5,
        "sha256": "0" * 64,
    }
    return FileRef(**(known | fields))


def a_document(prompt: str = "Sum it up.", **file: Any) -> DocumentPlan:
    return DocumentPlan(file=a_file(**file), prompt=prompt)


def a_pipeline(*names: str, **step: Any) -> PipelinePlan:
    """Steps that each repeat the topic, without a schema unless one is given."""
    known: dict[str, Any] = {"template": "Write about {topic}.", **step}
    steps = [PipelineStep(name=name, **known) for name in names or ("one", "two")]
    return PipelinePlan(pipeline="test", steps=steps, inputs={"topic": "tea"})


def an_ask(step: str = "one", **fields: Any) -> StepPrompt:
    known: dict[str, Any] = {"prompt": "Write about tea.", **fields}
    return StepPrompt(step=step, **known)


def a_result(step: str, text: str = "done", **fields: Any) -> StepResult:
    return StepResult(step=step, text=text, **fields)
