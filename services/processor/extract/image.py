"""Reads pictures: upright, without what else a camera wrote, and as small as models take them.

Pillow is imported here only.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from services.processor.extract.findings import ExtractError, Findings, Limits

Picture = Image.Image
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_ORIENTATION = 0x0112
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, struct.error, zlib.error)
"""What Pillow's many formats raise over bytes that do not fit."""


def read(path: Path, limits: Limits, findings: Findings) -> None:
    """One picture; of an animation its first frame."""
    try:
        with _open(path, limits) as picture:
            findings.progress(0.2)
            _note_what_goes(picture, findings)
            lossy = picture.format in ("JPEG", "WEBP")
            small = ImageOps.exif_transpose(_fitted(picture, limits, findings))
            findings.progress(0.8)
            keep(small, limits, findings, lossy=lossy)
    except _DAMAGED as error:
        raise ExtractError("invalid_request", "The image is damaged or cut short.") from error


def keep(picture: Picture, limits: Limits, findings: Findings, *, lossy: bool) -> None:
    """Keep a picture that has its size: PNG when it is drawn or transparent, JPEG otherwise."""
    media_type, data = "image/png", b""
    if not lossy or picture.has_transparency_data:
        data = _encoded(picture, "PNG")
    if not data or len(data) > limits.image_bytes:
        media_type, data = "image/jpeg", _encoded(_on_white(picture), "JPEG")
    if len(data) > limits.image_bytes:
        raise ExtractError("too_large", "The image stays too large although it was made smaller.")
    findings.keep_image(data, media_type, picture.width, picture.height)


def _open(path: Path, limits: Limits) -> Picture:
    Image.MAX_IMAGE_PIXELS = limits.pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path, formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ExtractError(
            "too_large", f"The image has more than the {limits.pixels:,} pixels that it may have."
        ) from error
    except UnidentifiedImageError as error:
        raise ExtractError(
            "unsupported_media_type", "The file is no PNG, JPEG, GIF or WebP image."
        ) from error


def _note_what_goes(picture: Picture, findings: Findings) -> None:
    if getattr(picture, "is_animated", False):
        findings.note("Only the first frame of the animation was read.")
    exif = picture.getexif()
    if exif.get(_ORIENTATION, 1) != 1:
        findings.note("The image was turned upright.")
    if exif:
        findings.note("What the camera noted in the image (EXIF) was removed.")


def _fitted(picture: Picture, limits: Limits, findings: Findings) -> Picture:
    """The picture in plain colours, its longest side no longer than it may be."""
    whole, side = picture.size, limits.image_side
    # a JPEG is decoded at a fraction of its size, which is what keeps large ones small
    picture.draft(None, (side, side))
    plain = _plain(picture)
    plain.thumbnail((side, side))
    if plain.size != whole:
        findings.note(
            f"The image was scaled from {whole[0]:,} × {whole[1]:,} "
            f"to {plain.width:,} × {plain.height:,} pixels."
        )
    return plain


def _plain(picture: Picture) -> Picture:
    """In one of the modes that scale well and that both PNG and JPEG know."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which a plain conversion would cut off
        return picture.convert("I").point(lambda value: value / 256).convert("L")  # pyright: ignore[reportUnknownMemberType]
    if picture.mode in ("L", "RGB", "RGBA"):
        return picture
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _on_white(picture: Picture) -> Picture:
    if not picture.has_transparency_data:
        return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _encoded(picture: Picture, form: str) -> bytes:
    """The picture alone, without anything that came along with it."""
    bare = Image.new(picture.mode, picture.size)
    bare.paste(picture)
    file = io.BytesIO()
    bare.save(file, form, quality=90)
    return file.getvalue()
