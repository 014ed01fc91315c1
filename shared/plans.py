"""What a plan says: its steps in order, and which of them is due after which results."""

import msgspec

from shared.events import DocumentPlan, FilePlan, PipelinePlan, Plan, StepResult, Usage

EXTRACT = "extract"
ANSWER = "answer"


def step_names(plan: Plan) -> list[str]:
    """The steps of a plan, in the order in which they are done."""
    if isinstance(plan, FilePlan):
        return [EXTRACT]
    if isinstance(plan, DocumentPlan):
        return [EXTRACT, ANSWER]
    return [step.name for step in plan.steps]


def kind_of_plan(plan: Plan) -> str:
    """document, file, or the name of the pipeline."""
    match plan:
        case DocumentPlan():
            return "document"
        case FilePlan():
            return "file"
        case PipelinePlan():
            return plan.pipeline


def due_step(plan: Plan, results: list[StepResult]) -> str | None:
    """The first step that left no result yet; None when all did."""
    done = {result.step for result in results}
    return next((name for name in step_names(plan) if name not in done), None)


def without_file_text(plan: Plan, results: list[StepResult]) -> list[StepResult]:
    """The results without the text that was read from a file: it may be long, and is the file's."""
    if not isinstance(plan, DocumentPlan):
        return results
    return [msgspec.structs.replace(r, text="") if r.step == EXTRACT else r for r in results]


def notes_of(results: list[StepResult]) -> list[str]:
    """Every note of every step."""
    return [note for result in results for note in result.notes]


def total(*parts: Usage | None) -> Usage | None:
    """The sum of what was counted; None when nothing was."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return Usage(**{name: sum(getattr(u, name) for u in known) for name in Usage.__struct_fields__})


def total_cost(*parts: int | None) -> int | None:
    """The sum of what is known to have cost something; None when a part has no known price."""
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None


def cost_of(results: list[StepResult], *more: int | None) -> int | None:
    """What the results' answers cost together, and more."""
    return total_cost(*(r.cost for r in results if r.usage is not None), *more)
