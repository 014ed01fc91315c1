"""The step ``extract``: a job's file out of FILES, its text and pictures into a result."""

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from services.processor.extract.findings import ExtractError, Limits
from services.processor.extract.sandbox import Extracted, extract
from shared import objects
from shared.bus import Bus
from shared.events import DocumentPlan, FileKind, FilePlan, FileRef, StepResult
from shared.ids import new_id
from shared.kinds import mismatch
from shared.objects import ObjectMissing
from shared.plans import EXTRACT
from shared.subjects import Address

LIMITS = Limits()
MOST_PAGES = 100
"""Of a PDF that a model is sent whole."""


async def read(
    bus: Bus,
    address: Address,
    plan: DocumentPlan | FilePlan,
    on_progress: Callable[[float], None],
) -> StepResult:
    """Read the plan's file.

    A document's text goes to the next step; that of a file for messages is kept in
    FILES, for whoever answers them.

    Raises:
        ExtractError: it cannot be read, or is not there any more.
        BusError: FILES could not be asked.
    """
    with tempfile.TemporaryDirectory(prefix="natterlog-file-") as directory:  # mode 0700
        path = Path(directory) / "file"
        await _fetch(bus, f"{address.session}/{plan.file.id}", path)
        with await extract(path, plan.file.kind, LIMITS, on_progress) as found:
            images = [await _keep_image(bus, address, n, found) for n in range(len(found.images))]
    kept = isinstance(plan, FilePlan) and found.text.strip()
    misnamed = mismatch(plan.file.name, plan.file.media_type)
    return StepResult(
        step=EXTRACT,
        text="" if isinstance(plan, FilePlan) else found.text,
        text_file=await _keep_text(bus, address, found.text) if kept else None,
        notes=[misnamed, *found.notes] if misnamed else found.notes,
        images=_shown(plan.file, found, images),
    )


async def _fetch(bus: Bus, name: str, path: Path) -> None:
    try:
        with path.open("wb") as file:
            async with aclosing(objects.reading(bus, name)) as chunks:
                async for chunk in chunks:
                    file.write(chunk)
    except ObjectMissing as error:
        raise ExtractError("not_found", "The file of this job is gone.") from error


async def _keep_image(bus: Bus, address: Address, number: int, found: Extracted) -> FileRef:
    """Put a picture where the worker finds it."""
    image = found.images[number]
    name = f"{number + 1}.{image.media_type.rpartition('/')[2]}"
    return await _keep(bus, address, name, "image", image.media_type, image.path.read_bytes())


async def _keep_text(bus: Bus, address: Address, text: str) -> FileRef:
    return await _keep(bus, address, "text.txt", "text", "text/plain", text.encode())


async def _keep(
    bus: Bus, address: Address, name: str, kind: FileKind, media_type: str, data: bytes
) -> FileRef:
    file_id = new_id()
    await objects.put(bus, f"{address.session}/{file_id}", data)
    return FileRef(
        id=file_id,
        name=name,
        kind=kind,
        media_type=media_type,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _shown(file: FileRef, found: Extracted, images: list[FileRef]) -> list[FileRef]:
    """What a model that can see is shown: a PDF whole, where it is not too long, or pictures."""
    if file.kind == "pdf" and (found.pages or 0) <= MOST_PAGES:
        return [file, *images]
    return images
