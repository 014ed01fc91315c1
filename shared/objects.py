"""The object store FILES, in NATS's own layout, and the fields that are too large for a fact.

No fact is over 256 KiB: its largest fields go to FILES as JSON, and the fact
holds ``{"$file": "<session>/<sha256>"}`` in their place.  The archive puts
them back before it keeps a fact, so only hot facts ever point here.
"""

import base64
import hashlib
from typing import Any

import msgspec

from shared.bus import FRAME, ApiError, Bus
from shared.ids import new_id
from shared.streams import FILES
from shared.subjects import parse

CHUNK = 128 * 1024
_MARK = b'"$file"'


class _Info(msgspec.Struct):
    """An object's meta message, as every NATS client writes it."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str


class _Pointer(msgspec.Struct, frozen=True):
    """What stands in a fact for a field that lies in FILES."""

    file: str = msgspec.field(name="$file")


class ObjectMissing(Exception):
    """FILES does not hold the object, or not whole."""


# -- large fields -------------------------------------------------------------


def is_packed(data: bytes) -> bool:
    """Whether the fact ``data`` may point to FILES (cheap; a quotation may look alike)."""
    return _MARK in data


async def pack(bus: Bus, subject: str, data: bytes) -> bytes:
    """The fact ``data`` with its largest fields moved to FILES until it is small enough.

    Raises:
        NoAnswer, ApiError: a field could not be stored.
    """
    fields: dict[str, Any] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    size = len(data)
    for name in sorted(fields, key=lambda n: len(fields[n]), reverse=True):
        if size <= FRAME:
            break
        raw = bytes(fields[name])
        key = f"{parse(subject).session}/{hashlib.sha256(raw).hexdigest()}"
        # Once is enough, and a second copy's chunks would be out of reach of an erase.
        if await bus.head(FILES, _meta(key)) is None:
            await put(bus, key, raw)
        fields[name] = _Pointer(key)
        size -= len(raw)
    return msgspec.json.encode(fields)


async def unpack(bus: Bus, data: bytes) -> bytes:
    """The fact ``data`` whole again.

    Raises:
        ObjectMissing: a field is gone, as after a hard delete.
        NoAnswer, ApiError: FILES could not be asked.
    """
    if not is_packed(data):
        return data
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    for name, key in _pointers(fields):
        fields[name] = msgspec.Raw(await get(bus, key))
    return msgspec.json.encode(fields)


async def erase_refs(bus: Bus, data: bytes) -> None:
    """Erase from FILES whatever the fact ``data`` points to."""
    if is_packed(data):
        for _, key in _pointers(msgspec.json.decode(data, type=dict[str, msgspec.Raw])):
            await erase(bus, key)


def _pointers(fields: dict[str, msgspec.Raw]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, raw in fields.items():
        # A person's text is a JSON string, so it can never be taken for a pointer.
        if bytes(memoryview(raw)[:20]).lstrip().startswith(b'{"$file":'):
            found.append((name, msgspec.json.decode(raw, type=_Pointer).file))
    return found


# -- objects ------------------------------------------------------------------


async def put(bus: Bus, name: str, data: bytes) -> None:
    """Keep ``data`` under ``name``; it is there when this returns.

    Raises:
        NoAnswer, ApiError: it is not known to be stored.
    """
    nuid = new_id()
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    for chunk in chunks:
        await bus.store(f"$O.FILES.C.{nuid}", chunk)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    info = _Info(name, "FILES", nuid, len(data), len(chunks), f"SHA-256={digest}")
    await bus.store(_meta(name), msgspec.json.encode(info), rollup=True)


async def get(bus: Bus, name: str) -> bytes:
    """The object's bytes.

    Raises:
        ObjectMissing: there is no such object, or a part of it is gone.
        NoAnswer, ApiError: FILES could not be asked.
    """
    stored = await bus.head(FILES, _meta(name))
    if stored is None:
        raise ObjectMissing(name)
    info = msgspec.json.decode(stored.data, type=_Info)
    parts: list[bytes] = []
    after = 0
    chunks = f"$O.FILES.C.{info.nuid}"
    while len(parts) < info.chunks:
        found = await bus.read(FILES, chunks, after=after, limit=32)
        if not found:  # the replica that answered may be behind: only the leader can say so
            found = await bus.facts_after(FILES, chunks, after)
        if not found:
            raise ObjectMissing(name)
        parts += [chunk.data for chunk in found]
        after = found[-1].seq
    return b"".join(parts)


async def erase(bus: Bus, name: str) -> None:
    """Overwrite the object's bytes on disk; a missing object is no error."""
    stored = await bus.head(FILES, _meta(name))
    if stored is None:
        return
    info = msgspec.json.decode(stored.data, type=_Info)
    for chunk in await bus.facts_after(FILES, f"$O.FILES.C.{info.nuid}", 0):
        await erase_message(bus, FILES, chunk.seq)
    await erase_message(bus, FILES, stored.seq)


async def erase_message(bus: Bus, stream: str, seq: int) -> None:
    """Overwrite one message of a stream on disk (a purge would leave its bytes there)."""
    try:
        await bus.api(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": False})
    except ApiError as error:
        if error.err_code not in (10043, 10037, 10057):  # it is gone already
            raise


def _meta(name: str) -> str:
    return f"$O.FILES.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
