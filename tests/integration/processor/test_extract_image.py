"""Pictures: small enough, upright, and with nothing in them that nobody wants to tell."""

import io
from pathlib import Path

import pytest
from PIL import Image

from services.processor.extract.findings import ExtractError, Limits
from services.processor.extract.sandbox import Extracted, extract
from tests.support.hostile_files import (
    a_png_of_too_many_pixels,
    a_png_that_is_cut_short,
    a_png_with_a_text_bomb,
)

ORIENTATION, MAKE = 0x0112, 0x010F


async def read(path: Path, data: bytes, limits: Limits | None = None) -> Extracted:
    file = path / "file"
    file.write_bytes(data)
    return await extract(file, "image", limits or Limits(), lambda _: None)


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "media_type"),
    [
        ("PNG", "image/png"),
        ("GIF", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/jpeg"),
    ],
)
async def test_a_small_picture_keeps_its_size(form: str, media_type: str, tmp_path: Path):
    with await read(tmp_path, encoded(Image.new("RGB", (40, 30), "red"), form)) as found:
        [image] = found.images
        assert (image.media_type, image.width, image.height) == (media_type, 40, 30)
        assert found.notes == []


async def test_a_large_picture_is_scaled_and_told(tmp_path: Path):
    with await read(tmp_path, encoded(Image.new("RGB", (4000, 2000)), "JPEG")) as found:
        [image] = found.images
        assert (image.width, image.height) == (1568, 784)
        assert found.notes == ["The image was scaled from 4,000 × 2,000 to 1,568 × 784 pixels."]


async def test_a_picture_is_turned_upright_and_loses_what_the_camera_noted(tmp_path: Path):
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE] = 6, "a secret camera"
    data = encoded(Image.new("RGB", (40, 30)), "JPEG", exif=exif, comment=b"secret place")

    with await read(tmp_path, data) as found:
        [image] = found.images
        assert (image.width, image.height) == (30, 40)
        assert b"secret" in data
        assert b"secret" not in image.path.read_bytes()
        assert found.notes == [
            "The image was turned upright.",
            "What the camera noted in the image (EXIF) was removed.",
        ]


async def test_of_an_animation_the_first_frame_is_read(tmp_path: Path):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    with await read(tmp_path, data) as found:
        with Image.open(found.images[0].path) as image:
            assert image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
        assert found.notes == ["Only the first frame of the animation was read."]


async def test_transparency_stays_and_sixteen_bits_of_grey_are_not_cut_off(tmp_path: Path):
    with await read(tmp_path, encoded(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "WEBP")) as found:
        assert found.images[0].media_type == "image/png"

    data = encoded(Image.new("I;16", (4, 4), 40_000), "PNG")
    with await read(tmp_path, data) as found, Image.open(found.images[0].path) as image:
        assert image.getpixel((0, 0)) == 156


async def test_what_stays_too_large_as_png_becomes_a_jpeg(tmp_path: Path):
    noise = encoded(Image.effect_noise((300, 300), 100), "PNG")

    with await read(tmp_path, noise, Limits(image_bytes=len(noise) - 1000)) as found:
        assert found.images[0].media_type == "image/jpeg"


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        (
            a_png_of_too_many_pixels(),
            "too_large",
            "The image has more than the 50,000,000 pixels that it may have.",
        ),
        (
            a_png_that_is_cut_short(),
            "invalid_request",
            "The image is damaged or cut short.",
        ),
        (
            a_png_with_a_text_bomb(),
            "invalid_request",
            "The image is damaged or cut short.",
        ),
        (
            b"\x89PNG\r\n\x1a\n",
            "unsupported_media_type",
            "The file is no PNG, JPEG, GIF or WebP image.",
        ),
        (
            encoded(Image.new("RGB", (4, 4)), "BMP"),
            "unsupported_media_type",
            "The file is no PNG, JPEG, GIF or WebP image.",
        ),
    ],
    ids=["pixel bomb", "cut short", "text bomb", "header only", "format that is not taken"],
)
async def test_a_harmful_picture_ends_in_a_sentence(
    data: bytes, code: str, sentence: str, tmp_path: Path
):
    with pytest.raises(ExtractError) as failed:
        await read(tmp_path, data)

    assert (failed.value.code, failed.value.message) == (code, sentence)
