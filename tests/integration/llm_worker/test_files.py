"""Which files a model is sent, and how each provider says it."""

import base64
from typing import Any

import pytest

from services.llm_worker.files import MOST_BYTES, MOST_IMAGE, MOST_IMAGES, Choice, chosen
from services.llm_worker.providers.base import PromptFile
from services.llm_worker.providers.registry import Registry
from shared.events import FileRef
from tests.support.fake_provider import FakeProvider
from tests.support.plans import a_file
from tests.support.providers import prompt_for, reply_of

PDF = a_file(kind="pdf", media_type="application/pdf", size=1000)
PAGES = [a_file(kind="image", media_type="image/png", size=500) for _ in range(2)]


def everything(_: FileRef) -> bool:
    return True


def nothing(_: FileRef) -> bool:
    return False


def pictures(file: FileRef) -> bool:
    return file.media_type.startswith("image/")


@pytest.mark.parametrize(
    ("files", "takes", "choice"),
    [
        ([PDF, *PAGES], everything, Choice([PDF], needs_text=False, notes=[])),
        ([PDF, *PAGES], pictures, Choice(PAGES, needs_text=True, notes=[])),
        (
            [PDF, *PAGES],
            nothing,
            Choice(
                [], needs_text=True, notes=["Not shown to the model: 2 picture(s) of the file."]
            ),
        ),
        ([], everything, Choice([], needs_text=True, notes=[])),
        (
            [a_file(kind="pdf", media_type="application/pdf", size=MOST_BYTES + 1), *PAGES],
            everything,
            Choice(PAGES, needs_text=True, notes=[]),
        ),
        (
            [a_file(kind="image", media_type="image/png", size=MOST_IMAGE + 1)],
            everything,
            Choice(
                [], needs_text=True, notes=["Not shown to the model: 1 picture(s) of the file."]
            ),
        ),
    ],
)
def test_what_fits_and_is_taken_is_sent(files: list[FileRef], takes: Any, choice: Choice):
    assert chosen(files, takes) == choice


def test_no_more_pictures_are_sent_than_a_request_holds():
    many = [a_file(kind="image", media_type="image/png", size=MOST_IMAGE) for _ in range(30)]

    choice = chosen(many, everything)

    assert len(choice.files) == min(MOST_BYTES // MOST_IMAGE, MOST_IMAGES)
    assert choice.notes == ["Not shown to the model: 24 picture(s) of the file."]


IMAGE = PromptFile(name="1.png", media_type="image/png", data=b"png")
DOCUMENT = PromptFile(name="a.pdf", media_type="application/pdf", data=b"pdf")
PNG_URL = f"data:image/png;base64,{base64.b64encode(b'png').decode()}"
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


async def test_openai_is_sent_pictures_and_the_schema(fake: FakeProvider, registry: Registry):
    provider = registry.providers["openai"]

    await reply_of(provider, prompt_for("openai", "hello", files=[IMAGE], schema=SCHEMA))

    body = fake.seen[0].body
    assert body["messages"][-1]["content"] == [
        {"type": "image_url", "image_url": {"url": PNG_URL}},
        {"type": "text", "text": "hello"},
    ]
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }
    assert provider.takes("fake-gpt", "image/png")
    assert not provider.takes("fake-gpt", "application/pdf")  # another server than OpenAI's own


async def test_ollama_is_sent_pictures_and_the_schema(fake: FakeProvider, registry: Registry):
    provider = registry.providers["ollama"]

    await reply_of(provider, prompt_for("ollama", "hello", files=[IMAGE], schema=SCHEMA))

    body = fake.seen[0].body
    assert body["messages"][-1] == {
        "role": "user",
        "content": "hello",
        "images": [base64.b64encode(b"png").decode()],
    }
    assert body["format"] == SCHEMA
    assert not provider.takes("fake-llama", "application/pdf")


async def test_anthropic_is_sent_documents_pictures_and_the_schema(
    fake: FakeProvider, registry: Registry
):
    provider = registry.providers["anthropic"]

    prompt = prompt_for("anthropic", "hello", files=[DOCUMENT, IMAGE], schema=SCHEMA)
    await reply_of(provider, prompt)

    body = fake.seen[0].body
    document, image, text = body["messages"][-1]["content"]
    assert document == {
        "type": "document",
        "source": {
            "type": "base64",
            "media_type": "application/pdf",
            "data": base64.b64encode(b"pdf").decode(),
        },
        "title": "a.pdf",
    }
    assert image["source"]["media_type"] == "image/png"
    assert text == {"type": "text", "text": "hello"}
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
